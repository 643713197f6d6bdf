"""Adapters, pauses and orders, number for number against the published evaluators."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fairway.evaluate.chunks import read_chunks
from fairway.evaluate.config import make_predictor, plan_text
from fairway.evaluate.learners.phased import PhasedPredictor
from fairway.interop.challenge import load_checkpoint, score_documents
from fairway.interop.published_weights import sources
from fairway.interop.score_documents import published_evaluator, started
from fairway.model.gpt import GPT
from fairway.tokens.val_text import ValText

RUNS = {  # of phased_pr1855.pt: what of its variables is set otherwise
    "frozen": {"PHASED_TTT_PREFIX_DOCS": "0", "TTT_LORA_LR": "0"},
    "cold": {"PHASED_TTT_PREFIX_DOCS": "0", "TTT_WARM_START_A": "0"},
    "warm": {"PHASED_TTT_PREFIX_DOCS": "0"},
    "paused": {},
}
# Of eval_*.pt: the largest difference of a target's nats, a few times what rounding does to the
# script's own numbers (a step of Adam without momentum turns a gradient near zero into a full one).
EVALUATORS = {"pr1945": 2e-5, "pr1953": 2e-5, "pr2014": 5e-4, "pr2135": 1e-3}
FEW = 3.0  # times the noise of the script itself


def phased(shared: Path) -> dict[str, Any]:
    vector = torch.load(shared / "vectors" / "phased_pr1855.pt", weights_only=True)
    vector["state_dict"] = {name: t.float() for name, t in vector["state_dict"].items()}
    return vector


def scored(vector: Mapping[str, Any], **changes: str) -> Tensor:
    documents = vector["documents"].tolist()
    env, weights = {**vector["env"], **changes}, vector["state_dict"]
    return score_documents("pr1855", env, weights, vector["tokens"], documents, vector["down"])


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS)
def test_every_target_costs_what_it_cost_there(run: str, shared: Path) -> None:
    vector = phased(shared)
    nats = scored(vector, **RUNS[run])
    assert (nats - vector[f"nats_{run}"]).abs().max() < FEW * vector["noise"][run]


@pytest.mark.slow
def test_documents_side_by_side_do_not_change_what_a_cold_one_costs(shared: Path) -> None:
    vector = phased(shared)
    nats = scored(vector, **RUNS["cold"], TTT_BATCH_SIZE="3")
    assert (nats - vector["nats_cold"]).abs().max() < FEW * vector["noise"]["cold"]


@dataclass
class Walked:
    """One evaluation: what was scored, which text each pause learned from, and the weights."""

    windows: list[list[int]]
    batches: list[list[int]]
    pauses: list[list[Tensor]]
    rates: list[float]
    after: list[dict[str, Tensor]]
    model: GPT


def walked(lineage: str, env: dict[str, str], vector: Mapping[str, Any], starts: Any) -> Walked:
    tokens = vector["tokens"].long()
    documents = (tokens == 1).nonzero()[:, 0].tolist()
    model, config = published_evaluator(lineage, env, vector["state_dict"], len(documents))
    # What prices a distribution otherwise changes no lesson.
    predictor = started(make_predictor(model, replace(config, tilt=None)), starts)
    assert isinstance(predictor, PhasedPredictor)
    found = Walked([], [], [], [], [], predictor.model)
    learn, run_phase = predictor.learner.learn_packed, predictor._run_phase

    def spy(piece: Tensor, rate: float) -> None:
        found.pauses[-1].append(piece)
        found.rates.append(rate * predictor.learner.config.lr)
        learn(piece, rate)

    def pause(most: int) -> None:
        found.pauses.append([])
        run_phase(most)
        found.after.append({n: t.clone() for n, t in predictor.model.state_dict().items()})

    predictor.learner.learn_packed = spy  # type: ignore[method-assign]
    predictor._run_phase = pause  # type: ignore[method-assign]
    text = ValText(tokens, torch.zeros(len(tokens) - 1, dtype=torch.long), tuple(documents))
    for plan in plan_text(config, text):
        found.windows += [[w.start, w.score_from - 1, w.stop - 1] for w in plan.windows]
        if plan.batch == len(found.batches):
            found.batches.append(list(plan.rows))
        for chunk in read_chunks([plan], text):
            predictor.score(chunk)
            predictor.learn(chunk)
    return found


def published(lineage: str, model: GPT, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our weights in the places of the script's."""
    theirs: dict[str, Tensor] = {}
    for name, (part, *_) in sources(lineage, model.config).items():
        if part.index is None:
            theirs[part.tensor] = weights[name]
        else:
            assert part.length is not None
            bank = theirs.setdefault(part.tensor, torch.zeros(part.length, *weights[name].shape))
            bank[part.index] = weights[name]
    return theirs


@pytest.mark.slow
def test_pauses_read_and_learn_what_they_did_there(shared: Path) -> None:
    vector = phased(shared)
    found = walked("pr1855", vector["env"], vector, vector["down"])
    assert found.windows == vector["windows"].tolist()
    chunk = int(vector["env"]["GLOBAL_TTT_CHUNK_TOKENS"])
    for pieces, text in zip(found.pauses, vector["pause_texts"], strict=True):
        assert len(pieces) == (len(text) - 2) // chunk
        for number, piece in enumerate(pieces):
            begin = number * chunk
            assert piece.tolist() == text[begin : begin + chunk + 1].tolist()
    assert found.rates == pytest.approx(vector["pause_rates"].tolist(), abs=1e-12)
    for number, after in enumerate(found.after, start=1):
        ours = published("pr1855", found.model, after)
        for name, sample in vector[f"sample_after_pause_{number}"].items():
            gap = (ours[name].flatten()[vector["sample_index"][name]] - sample).abs().max()
            assert gap < FEW * vector["noise"][f"after_pause_{number}"], name
            moved = (ours[name] - vector["state_dict"][name]).norm().item()
            change = float(vector[f"change_after_pause_{number}"][name])
            assert moved == pytest.approx(change, rel=1e-2, abs=1e-5), name


@pytest.mark.slow
@pytest.mark.parametrize("lineage", EVALUATORS)
def test_the_whole_evaluator_gives_its_numbers(lineage: str, shared: Path) -> None:
    vector = torch.load(shared / "vectors" / f"eval_{lineage}.pt", weights_only=True)
    documents = (vector["tokens"] == 1).nonzero()[:, 0].tolist()
    env, starts = vector["config"], vector["lora_starts"]
    args = (vector["state_dict"], vector["tokens"], documents, starts)
    nats = score_documents(lineage, env, *args)
    assert (nats - vector["nll"].double()).abs().max() < EVALUATORS[lineage]
    assert nats.mean().item() == pytest.approx(vector["val_loss"], abs=2e-6)
    counted = vector["token_bytes"][1:].sum().item()
    bits = nats.sum().item() / torch.tensor(2.0).log().item() / counted
    assert bits == pytest.approx(vector["val_bpb"], abs=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("lineage", EVALUATORS)
def test_batches_and_weights_are_those_of_the_evaluator(lineage: str, shared: Path) -> None:
    vector = torch.load(shared / "vectors" / f"eval_{lineage}.pt", weights_only=True)
    found = walked(lineage, vector["config"], vector, vector["lora_starts"])
    assert found.batches == vector["batch_order"]
    ours = published(lineage, found.model, found.after[-1])
    moved = 0
    for name, theirs in vector["state_dict_after"].items():
        assert (ours[name] - theirs).abs().max() < 2e-6, name
        moved += not torch.equal(theirs, vector["state_dict"][name])
    assert moved == len(vector["state_dict"]) - 2  # all but the two caps


def test_what_does_not_fit_is_refused(shared: Path) -> None:
    vector = torch.load(shared / "vectors" / "eval_pr1953.pt", weights_only=True)
    documents = (vector["tokens"] == 1).nonzero()[:, 0].tolist()
    args = (vector["state_dict"], vector["tokens"], documents)
    with pytest.raises(ValueError, match="adapter_starts has 1 entries"):
        score_documents("pr1953", vector["config"], *args, vector["lora_starts"][:1])
    with pytest.raises(ValueError, match="does not adapt to documents"):
        score_documents("pr1953", {**vector["config"], "TTT_ENABLED": "0"}, *args, [])
    assert isinstance(load_checkpoint("pr1953", vector["config"], vector["state_dict"]), GPT)
