import json
import math

import pytest

from fairway.evaluate.curves import Curve, curve_data, gains


def curve(*nats: float, num_bytes: int = 10) -> Curve:
    made = Curve()
    for one in nats:
        made.add(tokens=5, num_bytes=num_bytes, nats=one, score_seconds=0.5, learn_seconds=0.25)
    return made


def test_the_last_running_value_is_the_score() -> None:
    made = curve(3.0, 5.0, 1.0)
    running = made.running_bits_per_byte()
    assert running[0] == pytest.approx(3.0 / math.log(2) / 10)
    assert running[-1] == pytest.approx(9.0 / math.log(2) / 30)


def test_gains_are_what_learning_saved_in_each_chunk() -> None:
    found = gains(curve(4.0, 4.0), curve(4.0, 3.0))
    assert found == [0.0, pytest.approx(1.0 / math.log(2) / 10)]


def test_curves_of_other_chunks_are_not_compared() -> None:
    with pytest.raises(ValueError, match="the plans of one EvaluateConfig"):
        gains(curve(1.0, 2.0), curve(1.0))


def test_before_the_first_byte_there_is_no_ratio() -> None:
    assert curve(1.0, num_bytes=0).running_bits_per_byte() == [None]


def test_thinning_keeps_all_totals() -> None:
    made = curve(*range(1000))
    thin = made.thinned(300)
    assert len(thin.tokens) == 250
    assert sum(thin.nats) == sum(made.nats)
    assert thin.running_bits_per_byte()[-1] == made.running_bits_per_byte()[-1]
    assert made.thinned(5000).tokens == made.tokens
    assert Curve().thinned(3).tokens == []


def test_the_data_is_plain_and_every_list_equally_long() -> None:
    data = curve_data(curve(3.0, 2.0), curve(3.0, 3.0))
    assert json.loads(json.dumps(data)) == data
    assert {len(values) for values in data.values()} == {2}
    assert data["tokens"] == [5, 10]
    assert set(curve_data(curve(1.0))) == {
        "tokens",
        "bits_per_byte",
        "score_seconds",
        "learn_seconds",
    }
