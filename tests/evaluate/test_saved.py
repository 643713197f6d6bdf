"""How far an evaluation has come: read back as it was, and never as another's."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fairway.evaluate.bpb import Score
from fairway.evaluate.chunks import ChunkPlan, plan_chunks
from fairway.evaluate.clocked import Budget
from fairway.evaluate.curves import Curve
from fairway.evaluate.documents import DocumentNats
from fairway.evaluate.predictor import ALONE
from fairway.evaluate.saved import CheckpointConfig, Saved, State
from fairway.runtime.tensor_file import read_tensors
from fairway.tokens.val_text import ValText

TEXT = ValText(torch.arange(65), torch.ones(64, dtype=torch.long), (0,))
PLANS = plan_chunks(65, 16, 8, 16)


class Weights:
    """A predictor's state and no more."""

    def __init__(self, value: float) -> None:
        self.weight = torch.full((2, 3), value)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"weight": self.weight.T}  # a view, as learners have them

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self.weight = state["weight"].T


def saved(path: Path, *identity: str, plans: list[ChunkPlan] = PLANS, keep: bool = False) -> Saved:
    config = CheckpointConfig(path=path, every_seconds=10.0, keep=keep)
    return Saved(config, plans, TEXT, ALONE, identity)


def progress() -> State:
    state = State(2, [0], 30.5, Score(), Curve(), DocumentNats(TEXT.document_starts))
    state.documents.nats[:] = 80.0
    for seconds in (1.0, 2.0):
        state.curve.add(tokens=16, num_bytes=16, nats=40.0, score_seconds=seconds)
    state.curve.learn_seconds[0] = 4.0
    return state


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "score.safetensors"
    saved(path, "a").save(Weights(3.0), progress(), now=True)  # type: ignore[arg-type]
    other = Weights(0.0)
    found = saved(path, "a").load(other)  # type: ignore[arg-type]
    assert found.facts() == progress().facts()
    assert found.documents.nats.tolist() == progress().documents.nats.tolist()
    assert other.weight.tolist() == [[3.0] * 3] * 2
    pace = found.pace(PLANS, Budget(60.0))
    assert pace.score == [1.0 / 16, 2.0 / 16]
    assert pace.lesson == [4.0 / 16]


def test_another_evaluation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "score.safetensors"
    saved(path, "a").save(Weights(3.0), progress(), now=True)  # type: ignore[arg-type]
    others = [
        saved(path, "b"),
        saved(path, "a", plans=plan_chunks(65, 16, 8, 8)),
        Saved(
            CheckpointConfig(path=path),
            PLANS,
            replace(TEXT, tokens=TEXT.tokens + 1),
            ALONE,
            ("a",),
        ),
    ]
    for other in others:
        with pytest.raises(ValueError, match="checkpoint of another evaluation"):
            other.load(Weights(0.0))  # type: ignore[arg-type]


def test_it_is_written_now_and_then_and_removed_at_the_end_unless_kept(tmp_path: Path) -> None:
    path, state = tmp_path / "score.safetensors", progress()
    one = saved(path)
    one.load(Weights(0.0))  # type: ignore[arg-type]
    state.seconds = 9.0
    one.save(Weights(1.0), state)  # type: ignore[arg-type]
    assert not path.exists()
    state.seconds = 11.0
    one.save(Weights(1.0), state)  # type: ignore[arg-type]
    assert read_tensors(path, "a file").facts["progress"]["seconds"] == 11.0
    one.end(Weights(1.0), state)  # type: ignore[arg-type]
    assert not path.exists()
    saved(path, keep=True).end(Weights(1.0), state)  # type: ignore[arg-type]
    assert path.exists()


def test_a_folder_that_was_removed_is_not_made_anew(tmp_path: Path) -> None:
    one = saved(tmp_path / "gone" / "score.safetensors")
    one.load(Weights(0.0))  # type: ignore[arg-type]
    with pytest.raises((OSError, ValueError), match="gone"):
        one.save(Weights(1.0), progress(), now=True)  # type: ignore[arg-type]
    assert not (tmp_path / "gone").exists()


def test_without_a_file_it_begins_at_the_beginning() -> None:
    nothing = Saved(None, PLANS, TEXT, ALONE, ())
    assert nothing.path is None
    assert nothing.load(Weights(0.0)).next_chunk == 0  # type: ignore[arg-type]
    nothing.save(Weights(0.0), progress(), now=True)  # type: ignore[arg-type]
    nothing.end(Weights(0.0), progress())  # type: ignore[arg-type]
