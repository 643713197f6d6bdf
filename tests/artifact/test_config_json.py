"""A config survives the trip through JSON, and what does not fit is named."""

import json
from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.artifact.config_json import config_from_json, config_to_json
from fairway.model.attention import AttentionConfig, GateConfig
from fairway.model.depth import Loop
from fairway.model.embedding import EmbeddingConfig, NgramTableConfig, ValueEmbeddingConfig
from fairway.model.model_config import ModelConfig, ParallelConfig, SkipConfig


@dataclass(frozen=True, kw_only=True)
class Fixed:
    rate: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Decayed:
    rate: float
    floor: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Everything:
    schedule: Fixed | Decayed
    steps: int
    name: str = ""
    fused: bool = False
    warmup: int | None = None
    form: Literal["shared", "lanes"] = "shared"
    pair: tuple[int, float] = (1, 2.0)
    phases: tuple[Fixed | Decayed | None, ...] = ()
    clips: dict[str, float] = field(default_factory=dict)


def through_json(config):
    return config_from_json(type(config), json.loads(json.dumps(config_to_json(config))))


number = st.floats(allow_nan=False, allow_infinity=False)
schedules = st.builds(Fixed, rate=number) | st.builds(Decayed, rate=number, floor=number)


@given(
    st.builds(
        Everything,
        schedule=schedules,
        steps=st.integers(),
        name=st.text(),
        fused=st.booleans(),
        warmup=st.none() | st.integers(),
        form=st.sampled_from(["shared", "lanes"]),
        pair=st.tuples(st.integers(), number),
        phases=st.lists(schedules | st.none()).map(tuple),
        clips=st.dictionaries(st.text(), number),
    )
)
def test_any_config_comes_back_equal(config: Everything) -> None:
    assert through_json(config) == config


attentions = st.builds(
    AttentionConfig,
    num_heads=st.just(4),
    num_kv_heads=st.sampled_from([1, 2, 4]),
    rope_dims=st.none() | st.just(8),
    gate=st.none() | st.builds(GateConfig),
    exclusive_layers=st.integers(0, 3),
)
embeddings = st.builds(
    EmbeddingConfig,
    dim=st.none() | st.integers(8, 64),
    ngrams=st.lists(st.builds(NgramTableConfig, order=st.integers(2, 3)), max_size=2).map(tuple),
    smear=st.sampled_from(["v1", "v2", None]),
    value=st.none() | st.builds(ValueEmbeddingConfig, layers=st.just((0, 2))),
)


@given(
    st.builds(
        ModelConfig,
        vocab_size=st.integers(2, 9000),
        model_dim=st.just(64),
        num_layers=st.just(3),
        attention=attentions,
        embedding=embeddings,
        skips=st.none() | st.builds(SkipConfig, gated=st.booleans()),
        loop=st.none() | st.just(Loop(first=1, last=2)),
        parallel=st.none() | st.builds(ParallelConfig, start=st.integers(0, 2)),
        logit_softcap=st.none() | st.just(30.0),
    )
)
def test_any_model_config_comes_back_equal(config: ModelConfig) -> None:
    assert through_json(config) == config


def test_a_class_is_named_only_where_there_is_a_choice() -> None:
    data = config_to_json(Everything(schedule=Decayed(rate=2.0), steps=3))
    assert data["schedule"] == {"type": "Decayed", "rate": 2.0, "floor": 0.1}
    model = ModelConfig(
        vocab_size=8,
        model_dim=8,
        num_layers=1,
        attention=AttentionConfig(num_heads=1, num_kv_heads=1, gate=GateConfig()),
    )
    assert "type" not in config_to_json(model)["attention"]["gate"]


def test_a_whole_number_may_stand_for_a_float() -> None:
    assert config_from_json(Fixed, {"rate": 2}).rate == 2.0
    assert type(config_from_json(Fixed, {"rate": 2}).rate) is float


def test_a_field_left_out_takes_its_default() -> None:
    assert config_from_json(Fixed, {}) == Fixed()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"rate": 1.0, "gamma": 2}, r"Decayed has no field 'gamma'; its fields are rate, floor"),
        ({"floor": 1.0}, r"Decayed lacks 'rate'"),
        ({"rate": "fast"}, r"Decayed.rate is 'fast'; it must be float"),
        ({"rate": True}, r"Decayed.rate is True; it must be float"),
    ],
)
def test_the_error_names_the_place(data: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        config_from_json(Decayed, data)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schedule": {"type": "Cosine"}}, r"schedule: 'type' is 'Cosine'.*Decayed, Fixed"),
        ({"schedule": 3}, r"Everything.schedule is 3"),
        ({"form": "triple"}, r"Everything.form is 'triple'.*shared"),
        ({"pair": [1, 2.0, 3.0]}, r"pair holds 3 values; it needs exactly 2"),
        ({"phases": [{"type": "Fixed", "rat": 1.0}]}, r"Everything.phases\[0\] has no field 'rat'"),
        ({"steps": 1.5}, r"Everything.steps is 1.5; it must be int"),
    ],
)
def test_the_error_names_the_nested_place(change: dict, words: str) -> None:
    data = config_to_json(Everything(schedule=Fixed(), steps=1)) | change
    with pytest.raises(ValueError, match=words):
        config_from_json(Everything, data)


def test_a_value_that_could_not_come_back_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Everything.steps is 'many'; it must be int"):
        config_to_json(Everything(schedule=Fixed(), steps="many"))  # type: ignore[arg-type]
