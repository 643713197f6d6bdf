import pytest

from fairway.train.config import BatchConfig, TrainConfig
from fairway.train.schedule import Curriculum, MomentumWarmup


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: TrainConfig(), r"give exactly one of them"),
        (lambda: TrainConfig(seconds=1.0, steps=1), r"give exactly one of them"),
        (lambda: TrainConfig(seconds=5.0, reserve_seconds=5.0), r"leaves nothing"),
        (lambda: TrainConfig(steps=5, reserve_seconds=1.0), r"set it to 0"),
        (lambda: TrainConfig(steps=8, grad_clip=0.0), r"None is no clipping"),
        (lambda: TrainConfig(steps=8, loops_at=1.5), r"When.progress=1.5"),
        (lambda: BatchConfig(rows=0), r"must be at least 1"),
        (
            lambda: BatchConfig(context=3072, context_curriculum=Curriculum(stages=((1.0, 2048),))),
            r"3072 tokens cannot be cut into rows of 2048",
        ),
        (lambda: BatchConfig(context_warmup=4), "without one set it to 0"),
    ],
)
def test_an_impossible_run_cannot_be_written(build, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build()


def test_configs_are_plain_data() -> None:
    import fairway.train.config as settings
    import fairway.train.muon as muon
    import fairway.train.param_groups as groups
    import fairway.train.schedule as schedule

    c = TrainConfig(
        steps=8,
        batch=BatchConfig(rows=4, context=6),
        momentum_warmup=MomentumWarmup(fraction=0.3),
        loops_at=0.35,
    )
    names = {**vars(settings), **vars(muon), **vars(groups), **vars(schedule)}
    assert eval(repr(c), names) == c
