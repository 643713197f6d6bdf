"""The order in which blocks run."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.model.depth import Loop, depth_plan


@given(st.integers(1, 12), st.data())
def test_every_layer_runs_once_and_looped_ones_as_often_as_asked(
    num_layers: int, data: st.DataObject
) -> None:
    last = data.draw(st.integers(0, num_layers - 1))
    loop = Loop(
        first=data.draw(st.integers(0, last)), last=last, extra_passes=data.draw(st.integers(1, 3))
    )
    plan = depth_plan(num_layers, loop)
    for layer in range(num_layers):
        looped = loop.first <= layer <= loop.last
        assert plan.layers.count(layer) == (1 + loop.extra_passes if looped else 1)
    assert plan.num_skips == len(plan.layers) // 2 == plan.num_encoder


def test_the_published_orders_come_out() -> None:
    """#1394 and #1493, as their pages list encoder and decoder."""
    four_five = depth_plan(11, Loop(first=4, last=5))
    assert four_five.layers[: four_five.num_encoder] == (0, 1, 2, 3, 4, 5, 4)
    assert four_five.layers[four_five.num_encoder :] == (5, 4, 5, 6, 7, 8, 9, 10)
    three_five = depth_plan(11, Loop(first=3, last=5))
    assert three_five.layers[: three_five.num_encoder] == (0, 1, 2, 3, 4, 5, 3, 4)
    assert three_five.layers[three_five.num_encoder :] == (5, 3, 4, 5, 6, 7, 8, 9, 10)


def test_a_loop_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no loop at all is None"):
        Loop(first=3, last=2)
