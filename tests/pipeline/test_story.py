"""Every recipe, in miniature, through the whole pipeline; and the promises of a run."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from torch import Tensor

from fairway.audit.findings import AuditReport
from fairway.evaluate.chunks import Chunk
from fairway.evaluate.learners.mixture import Mixture
from fairway.evaluate.learners.sgd import Sgd
from fairway.model.gpt import GPT
from fairway.pipeline import scoring, story, training
from fairway.pipeline.story import RunOptions, run
from fairway.proof.proof_file import ProofFile
from fairway.recipes.recipe import Recipe
from fairway.recipes.registry import RECIPES, recipe, smoke
from fairway.result import RunResult, read_result
from fairway.runtime.stopping import Stopped
from fairway.tokens.shards import DataFolder
from fairway.tokens.val_text import ValText
from fairway.train.divergence import TrainingDiverged

Go = Callable[..., RunResult]
FINE = AuditReport("model.fwy", {})


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains_packs_scores_and_proves(
    name: str, song: DataFolder, go: Go, tmp_path: Path
) -> None:
    small = smoke(recipe(name))
    result = go(small, tmp_path, proof_tokens=40)
    assert result.score is not None
    assert result.score.tokens == len(song.val) - 1
    assert result.score.bytes == int(ValText.of(song).target_bytes.sum())
    assert list(result.stages) == ["float", "quantized", "sliding", "ttt"]
    assert result.artifact is not None
    assert result.artifact.bytes_total <= (result.artifact.cap_bytes or 0)
    assert result.chunks["tokens"][-1] == len(song.val) - 1
    assert result.proof is not None
    # In an order by length a part is whole batches of documents; here there is one document. In
    # settled arithmetic all of the text is encoded.
    in_part = small.evaluate.order == "file" and not small.evaluate.settled
    assert result.proof.tokens == (40 if in_part else len(song.val) - 1)
    assert result.holds
    assert read_result(tmp_path) == result


def test_the_same_run_gives_the_same_bytes(go: Go, tmp_path: Path) -> None:
    chosen = smoke(recipe("pocket"))
    files = []
    for part in "ab":
        go(chosen, tmp_path / part)
        files.append((tmp_path / part / "model.fwy").read_bytes())
    assert files[0] == files[1]


def test_a_tokenizer_that_does_not_fit_is_refused_before_training(go: Go, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--vocab-size 270"):
        go(smoke(recipe("pocket"), vocab_size=270), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_loss_that_is_no_number_names_the_step(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object) -> GPT:
        model = honest(*args)  # type: ignore[arg-type]
        model.embed.weight.data.fill_(float("nan"))
        return model

    honest = story.new_model
    monkeypatch.setattr(story, "new_model", broken)
    chosen = smoke(recipe("pocket"))
    native = replace(chosen, evaluate=replace(chosen.evaluate, arithmetic="native"))
    with pytest.raises(TrainingDiverged, match="step 1"):
        go(native, tmp_path / "native")
    with pytest.raises(ValueError, match="logits are not finite"):  # planning looks at them
        go(chosen, tmp_path / "settled")


def test_three_lines_of_python_start_watch_and_resume_a_run(
    song: DataFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The lines themselves, as the module shows them; the first run is interrupted."""
    assert story.__doc__ is not None
    start, watched, resumed = [
        line.strip() for line in story.__doc__.splitlines() if line.startswith("    ")
    ]
    monkeypatch.setattr(story, "audit_run", lambda *_: FINE)
    tiny = smoke(recipe("pocket"))
    paths = {"data": song.path, "runs/a": tmp_path / "run"}
    options = partial(RunOptions, proof_tokens=20)
    names = {"run": run, "RunOptions": options, "recipe": lambda name: tiny, "Path": paths.get}
    exec(start, names)
    take = training.Dealt.step_done

    def interrupted(dealt: training.Dealt, micro_batches: int) -> None:
        take(dealt, micro_batches)
        if dealt.batches.position == 3 * tiny.train.batch.micro_batches:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(training.Dealt, "step_done", interrupted)
        with pytest.raises(Stopped, match="SIGTERM after step 3"):
            exec(watched, names)
    assert "train 3.0 6.0" in capsys.readouterr().out
    exec(resumed, names)
    result = names["result"]
    assert isinstance(result, RunResult)
    assert result == read_result(tmp_path / "run")
    assert result.audit == FINE
    assert result.train.steps == 6
    assert result.holds
    assert set(result.baselines) == {"xz", "zstd", "ppmd"}
    assert (tmp_path / "run" / "report.html").is_file()
    log = (tmp_path / "run" / "train.log").read_text()
    assert "going on after step 3" in log


def settled(chosen: Recipe) -> Recipe:
    """The same in settled arithmetic, learning by plain steps."""
    steps = Sgd(chunk_tokens=64, epochs=1, lr=0.01, batch_sequences=2)
    evaluate = replace(chosen.evaluate, arithmetic="settled", ttt=steps, mixture=Mixture())
    return replace(chosen, evaluate=evaluate, evaluate_range=None)


def test_a_settled_score_is_the_length_of_the_whole_texts_code(go: Go, tmp_path: Path) -> None:
    result = go(settled(smoke(recipe("pocket"))), tmp_path, proof_tokens=1)
    proof, score = result.proof, result.score
    assert proof is not None
    assert score is not None
    assert proof.settled is not None
    assert (proof.tokens, proof.decoded_tokens, proof.holds) == (score.tokens, None, True)
    assert score.bits_per_byte == 8 * proof.coded_bytes / score.bytes
    assert score.bits_per_byte == proof.coded_bits_per_byte == proof.claimed_bits_per_byte
    assert score.code_bytes == proof.coded_bytes
    excess = 8 * (proof.coded_bytes - proof.settled.tie_bytes) / score.bytes
    assert 0 <= excess - score.nats_bits_per_byte < 16 / score.bytes  # the coder's end
    assert proof.settled.deviation is not None
    assert proof.settled.deviation < proof.settled.margin / 10
    file = ProofFile.from_bytes((tmp_path / "proof.fwp").read_bytes())
    assert len(file.symbols) + file.tie_bytes == proof.coded_bytes


def test_a_settled_run_that_is_killed_proves_the_same_code(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settled(smoke(recipe("pocket")))
    whole = go(chosen, tmp_path / "whole", proof_tokens=1)
    stop_in_score = Stops(after=2)
    with monkeypatch.context() as patch:
        patch.setattr(scoring.CodedScore, "book", lambda *args: stop_in_score.book(*args))
        with pytest.raises(KeyboardInterrupt):
            go(chosen, tmp_path / "parts", proof_tokens=1)
    with monkeypatch.context() as patch:
        patch.setattr(story, "prove_score", killed)
        with pytest.raises(KeyboardInterrupt):
            go(chosen, tmp_path / "parts", proof_tokens=1, resume="yes")
    parts = go(chosen, tmp_path / "parts", proof_tokens=1, resume="yes")
    assert parts.score == whole.score
    files = [(tmp_path / part / "proof.fwp").read_bytes() for part in ("whole", "parts")]
    assert files[0] == files[1]


class Stops:
    """Dies within a walk, after so many chunks."""

    def __init__(self, after: int) -> None:
        self.left, self.plain = after, scoring.CodedScore.book

    def book(self, coded: scoring.CodedScore, chunk: Chunk, nats: Tensor) -> None:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        self.plain(coded, chunk, nats)


def killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt
