import dataclasses
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fairway.evaluate.bpb import Score
from fairway.evaluate.chunks import ChunkPlan, plan_chunks, read_chunks
from fairway.evaluate.frozen import Frozen
from fairway.evaluate.learners.optimizers import is_control
from fairway.evaluate.learners.sgd import (
    Sgd,
    SgdPredictor,
    WeightLearner,
    chunk_rate,
    cut_pieces,
)
from fairway.evaluate.predictor import Predictor, score_stream
from fairway.evaluate.windows import Window
from fairway.interop.published_weights import load_checkpoint
from fairway.model.gpt import GPT
from fairway.tokens.val_text import ValText

from ..models import CONTEXT, SGD, nats_in_order, text, tiny_model, val_text

TOKENS, _ = text((60, 60))


def golden(shared: Path, name: str, lineage: str) -> tuple[dict, GPT, Tensor]:
    """The vector, its model, and the bytes of each target by the field's tables."""
    vector = torch.load(shared / "vectors" / name, weights_only=True)
    before, after = vector["tokens"][:-1], vector["tokens"][1:]
    leading = vector["has_leading_space"][after] & ~vector["is_boundary"][before]
    target_bytes = vector["base_bytes"][after].long() + leading
    return vector, load_checkpoint(lineage, vector["config"], vector["state_dict"]), target_bytes


def published(config: dict[str, str]) -> Sgd:
    return Sgd(
        chunk_tokens=int(config["TTT_CHUNK_TOKENS"]),
        epochs=int(config["TTT_EPOCHS"]),
        lr=float(config["TTT_LR"]),
        batch_sequences=int(config["TTT_BATCH_SEQS"]),
        frozen_blocks=int(config.get("TTT_FREEZE_BLOCKS", 0)),
    )


def published_plans(config: dict[str, str], num_tokens: int) -> list[ChunkPlan]:
    names = ("EVAL_SEQ_LEN", "EVAL_STRIDE", "TTT_CHUNK_TOKENS")
    context, stride, chunk_tokens = (int(config[name]) for name in names)
    return plan_chunks(num_tokens, context, stride, chunk_tokens)


def walk(predictor: Predictor, plans: list[ChunkPlan], tokens: Tensor, sizes: Tensor) -> Score:
    return score_stream(predictor, read_chunks(plans, ValText(tokens, sizes, ())))


def test_scores_and_weights_are_those_of_1413(shared: Path) -> None:
    vector, model, sizes = golden(shared, "eval_pr1413.pt", "pr1413")
    config, tokens = vector["config"], vector["tokens"]
    context, plans = int(config["EVAL_SEQ_LEN"]), published_plans(config, len(tokens))
    sliding = walk(Frozen(model), plans, tokens, sizes)
    assert sliding.bits_per_byte == pytest.approx(vector["sliding"]["val_bpb"], abs=1e-6)
    assert sliding.nats_per_token == pytest.approx(vector["sliding"]["val_loss"], abs=1e-6)

    predictor = SgdPredictor(model, published(config), context=context)
    learning = walk(predictor, plans, tokens, sizes)
    assert learning.bits_per_byte == pytest.approx(vector["ttt"]["val_bpb"], abs=1e-6)
    after = load_checkpoint("pr1413", config, vector["state_dict_after_ttt"]).state_dict()
    for name, weight in predictor.model.state_dict().items():
        assert torch.allclose(weight, after[name], atol=1e-5), name


def test_scores_of_691_follow_from_ours_by_counting_its_last_tokens_as_often(shared: Path) -> None:
    """Its windows at the end, shorter than the context, score the last `stride` tokens again."""
    vector, model, sizes = golden(shared, "eval_pr691.pt", "pr414")
    config, tokens = vector["config"], vector["tokens"]
    context, stride = int(config["EVAL_SEQ_LEN"]), int(config["EVAL_STRIDE"])
    stop, plans = len(tokens), published_plans(config, len(tokens))
    short = range(stop - 1 - context + stride, stop - 1, stride)
    again = [Window(start, stop - stride, stop) for start in short]
    last = plans[-1]
    windows = (*last.windows, *again)
    repeating = dataclasses.replace(last, windows=windows, rows=(0,) * len(windows))

    for name, predictor in (
        ("sliding", lambda: Frozen(model)),
        ("ttt", lambda: SgdPredictor(model, published(config), context=context)),
    ):
        honest = walk(predictor(), plans, tokens, sizes)
        theirs = walk(predictor(), [*plans[:-1], repeating], tokens, sizes)
        assert theirs.bits_per_byte == pytest.approx(vector[name]["val_bpb"], abs=1e-6)
        assert honest.num_tokens == stop - 1 < theirs.num_tokens
        assert honest.bits_per_byte != pytest.approx(vector[name]["val_bpb"], abs=1e-3)


def learned(config: Sgd, model: GPT | None = None) -> SgdPredictor:
    predictor = SgdPredictor(model or tiny_model(), config, context=CONTEXT)
    plans = plan_chunks(len(TOKENS), CONTEXT, 4, config.chunk_tokens)
    nats_in_order(predictor, list(read_chunks(plans, val_text(TOKENS))))
    return predictor


def changed(predictor: SgdPredictor) -> set[str]:
    before = tiny_model().state_dict()
    after = predictor.model.state_dict()
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_the_last_chunk_teaches_nothing() -> None:
    """Its text could only help with tokens that do not exist."""
    one_chunk = dataclasses.replace(SGD, chunk_tokens=240)
    assert not changed(learned(one_chunk))
    assert changed(learned(SGD))


def test_frozen_blocks_stay_as_they_are_and_all_else_learns() -> None:
    names = set(tiny_model().state_dict())
    first = {name for name in names if name.startswith("blocks.0.")}
    assert changed(learned(SGD)) == names
    assert changed(learned(dataclasses.replace(SGD, frozen_blocks=1))) == names - first


def test_controls_are_few_and_nothing_else_moves_with_them() -> None:
    moved = changed(learned(dataclasses.replace(SGD, trained="controls")))
    parameters = dict(tiny_model().named_parameters())
    assert moved == {name for name, p in parameters.items() if is_control(name, p)}
    assert sum(parameters[name].numel() for name in moved) < 0.2 * sum(
        p.numel() for p in parameters.values()
    )


def test_a_rate_of_zero_freezes_what_its_pattern_names() -> None:
    config = dataclasses.replace(SGD, rates=(("*.mlp.*", 0.0), ("embed.*", 0.5)))
    moved = changed(learned(config))
    assert moved
    assert not any(".mlp." in name for name in moved)
    half, full = (learned(c).model.embed.weight for c in (config, SGD))
    start = tiny_model().embed.weight
    assert 0 < (half - start).norm() < (full - start).norm()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
def test_every_optimizer_learns_the_text(optimizer: str) -> None:
    lr = {"sgd": 0.1, "adamw": 0.01, "muon": 0.02}[optimizer]
    config = Sgd(optimizer=optimizer, lr=lr, epochs=20, batch_sequences=8)  # type: ignore[arg-type]
    model = tiny_model()
    learner = WeightLearner(model, config, CONTEXT)
    x = torch.stack(cut_pieces(TOKENS, CONTEXT)[:6])
    before = model.loss(x[:, :-1], x[:, 1:]).item()
    learner.learn([TOKENS], rate=1.0)
    assert model.loss(x[:, :-1], x[:, 1:]).item() < before - 0.1


def test_a_sharpness_aware_step_descends_from_where_it_stood() -> None:
    """With no learning rate it changes nothing: the look uphill is taken back, to the last bit."""
    assert not changed(learned(dataclasses.replace(SGD, lr=0.0, sharpness=0.5)))
    plain, aware = learned(SGD), learned(dataclasses.replace(SGD, sharpness=0.5))
    assert not torch.allclose(plain.model.embed.weight, aware.model.embed.weight)


def test_a_chunk_shorter_than_the_context_is_learned_from_whole() -> None:
    short = dataclasses.replace(SGD, chunk_tokens=8)
    assert changed(learned(short)) == set(tiny_model().state_dict())


def test_pieces_hold_every_target_once() -> None:
    for length in (1, 2, 16, 17, 18, 50):
        pieces = cut_pieces(torch.arange(length), 16)
        assert [t for piece in pieces for t in piece[1:].tolist()] == list(range(1, length))
        assert all(2 <= len(piece) <= 17 for piece in pieces)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_rates_fall_over_the_chunks_from_one(schedule: str) -> None:
    rates = [chunk_rate(schedule, i, 7) for i in range(7)]  # type: ignore[arg-type]
    assert rates[0] == 1.0
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(1.0 if schedule == "constant" else 0.0)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="to learn nothing, set ttt=None"):
        Sgd(epochs=0)
    with pytest.raises(ValueError, match=r"schedule='cosinus'.*cosine, linear, constant"):
        Sgd(schedule="cosinus")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="momentum must lie in"):
        Sgd(momentum=1.0)
    with pytest.raises(ValueError, match="frozen_blocks=3 of a model with 2"):
        SgdPredictor(tiny_model(), Sgd(frozen_blocks=3), context=CONTEXT)


def test_compiled_it_learns_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    plain, compiled = learned(SGD), learned(dataclasses.replace(SGD, compiled=True))
    assert compiled.learner.compiled_loss != compiled.model.loss
    for one, other in zip(plain.model.parameters(), compiled.model.parameters(), strict=True):
        torch.testing.assert_close(one, other)
