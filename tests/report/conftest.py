"""A ledger of three changes, one of them with a name that no page may take for its own."""

import pytest

from fairway.recipes.diff import ABSENT
from fairway.runs.effects import SCORE, Effect, Equal, Ledger, StageEffect


def effect(
    path: str, old: object, new: object, mean: float, equal: Equal = "steps", **about: float
) -> Effect:
    stage = StageEffect(
        differences=(mean - 0.01, mean + 0.01), standard_error=0.007, p=0.01, p_holm=0.02
    )
    return Effect(
        recipe="pocket",
        path=path,
        old=old,
        new=new,
        equal=equal,
        seeds=(1, 2),
        backgrounds=1,
        stages={"float": stage, SCORE: stage},
        step_time=1.25,
        num_bytes=about.get("num_bytes"),
    )


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(
        effects=(
            effect("model.loop", None, {"last": 5}, -0.02, num_bytes=1200.0),
            effect("train.grad_clip", 0.3, 1.0, 0.004),
            effect("<b>evil</b>", ABSENT, "a,b", 0.001, "seconds"),
        ),
        num_runs=9,
        unmatched=("pocket, train.steps 7",),
        luck={"steps": 0.0123, "seconds": None},
    )
