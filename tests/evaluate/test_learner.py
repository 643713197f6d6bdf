"""A way to learn from outside the package does whatever ours do; nobody asks which one it is."""

import ast
import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

import fairway
from fairway.artifact.config_json import config_from_json, config_to_json, plugins_of
from fairway.evaluate import learner
from fairway.evaluate.chunks import ChunkPlan
from fairway.evaluate.config import EvaluateConfig, make_predictor
from fairway.evaluate.frozen import Frozen
from fairway.evaluate.learner import Learner, WindowConfig
from fairway.evaluate.learners.mixture import Mixture
from fairway.evaluate.learners.phased import Phased
from fairway.evaluate.learners.sgd import Sgd
from fairway.evaluate.planner import (
    Range,
    estimate,
    largest_that_fits,
    measure_rates,
)
from fairway.model.gpt import GPT
from fairway.runtime import plugins
from fairway.runtime.distributed import Ranks
from fairway.runtime.plugins import load_plugin

from .models import (
    CONTEXT,
    PLAIN,
    by_position,
    chunks_of,
    nats_in_order,
    plans_of,
    text,
    tiny_model,
    val_text,
)

TOKENS, STARTS = text((40, 50, 40))


@dataclass(frozen=True, kw_only=True)
class Bare(Learner):
    """As little as a learner can be."""

    def predictor(self, model: GPT, windows: WindowConfig, *, seed: int, ranks: Ranks) -> Frozen:
        return Frozen(model, windows.rows, ranks, windows.cached)


@dataclass(frozen=True, kw_only=True)
class ByDocument(Bare):
    def chunk_targets(self) -> None:
        return None


def test_a_learner_from_outside_learns_only_from_what_was_scored(sign_steps: type) -> None:
    config = replace(PLAIN, ttt=sign_steps(lr=0.02, chunk_tokens=26))
    assert {plan.num_targets for plan in plans_of(config, TOKENS, STARTS)[1:-1]} == {24}
    before = by_position(config, TOKENS, STARTS)
    frozen = by_position(PLAIN, TOKENS, STARTS)
    assert torch.equal(before[:16], frozen[:16])
    assert not torch.allclose(before[48:], frozen[48:], atol=1e-4)
    edited = TOKENS.clone()
    edited[80:] = 9
    assert torch.equal(by_position(config, edited, STARTS)[:79], before[:79])


@pytest.mark.parametrize("changes", [{}, {"cached": 3}, {"mixture": Mixture()}], ids=str)
def test_a_learner_from_outside_goes_on_from_its_state(sign_steps: type, changes: dict) -> None:
    config = replace(PLAIN, ttt=sign_steps(lr=0.02, chunk_tokens=24), **changes)
    chunks, model = chunks_of(config, TOKENS, STARTS), tiny_model()
    expected = nats_in_order(make_predictor(model, config), chunks)
    first = make_predictor(model, config)
    nats_in_order(first, chunks[:3])
    second = make_predictor(model, config)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    found = nats_in_order(second, chunks[3:])
    assert all(torch.equal(a, b) for a, b in zip(found, expected[3:], strict=True))


def test_a_learner_from_outside_is_planned_into_a_clock(sign_steps: type) -> None:
    config = replace(PLAIN, ttt=sign_steps(chunk_tokens=24))
    found = largest_that_fits(tiny_model(), config, val_text(TOKENS), 1e9)
    assert found.config == config
    assert found.learn_seconds > 0
    assert str(found).startswith("stride 4: scoring")
    lines: list[str] = []

    def progress(done: float = 0.0, total: float = 0.0, *, text: str = "", **_: float) -> None:
        lines.append(text)

    choices = Range(strides=(4, 8), epochs=(3, 1))  # it has no epochs, so there are two choices
    with pytest.raises(ValueError, match="nothing allowed fits"):
        largest_that_fits(
            tiny_model(), config, val_text(TOKENS), 1e-9, choices=choices, progress=progress
        )
    assert len(lines) == 2


def test_a_config_names_a_learner_from_outside_and_needs_it_loaded(
    sign_steps: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(PLAIN, ttt=sign_steps(lr=0.5))
    data = config_to_json(config)
    assert data["ttt"] == {"type": "sign_steps:SignSteps", "lr": 0.5, "chunk_tokens": 4096}
    assert config_from_json(EvaluateConfig, data) == config
    (plugin,) = plugins_of(config)
    assert (plugin.name, len(plugin.sha256)) == ("sign_steps:SignSteps", 64)
    assert plugins_of(replace(PLAIN, ttt=Sgd(chunk_tokens=24), mixture=Mixture())) == []
    monkeypatch.setattr(plugins, "_loaded", {})
    with pytest.raises(ValueError, match=r"ttt: it needs the plug-in 'sign_steps:SignSteps'.*name"):
        config_from_json(EvaluateConfig, data)
    load_plugin("sign_steps:SignSteps")  # so that the fixture finds what it loaded
    assert config_from_json(EvaluateConfig, data) == config


def test_a_learner_from_outside_shrinks_for_a_miniature_run(sign_steps: type) -> None:
    small = EvaluateConfig(stride=64, rows=64, ttt=sign_steps()).smoke(32, 16)
    assert small == EvaluateConfig(context=32, stride=16, rows=4, ttt=sign_steps(chunk_tokens=64))


def test_nothing_but_a_predictor_has_to_be_written() -> None:
    config = replace(PLAIN, ttt=Bare()).resolved(CONTEXT, "bfloat16", True).smoke(CONTEXT, 4)
    assert config.learner.for_segments(4, CONTEXT) == Bare()
    assert torch.equal(by_position(config, TOKENS, STARTS), by_position(PLAIN, TOKENS, STARTS))
    plans = plans_of(config, TOKENS, STARTS)
    rates = measure_rates(tiny_model(), config, plans, repeats=1)
    assert estimate(config, rates, plans).phase_seconds == 0.0
    assert Bare().excerpt_tokens() == Bare().chunk_targets() == learner.CHUNK_TOKENS
    with pytest.raises(TypeError, match="abstract"):
        Learner()  # type: ignore[abstract]


def test_what_learns_by_document_needs_documents_and_no_cache() -> None:
    with pytest.raises(ValueError, match="ByDocument learns document by document: set documents"):
        replace(PLAIN, ttt=ByDocument())
    with pytest.raises(ValueError, match="cached=3 with ByDocument"):
        replace(PLAIN, ttt=ByDocument(), documents=True, cached=3)
    config = replace(PLAIN, ttt=ByDocument(), documents=True)
    plans: Iterable[ChunkPlan] = plans_of(config, TOKENS, STARTS)
    assert all(plan.ends and len(plan.windows) <= config.rows for plan in plans)


def test_pauses_are_timed_whatever_the_stride() -> None:
    """A phase's chunks share a learning rate; windows need not fit into them."""
    phased = Phased(pauses=(1,), adapters=None, sgd=Sgd(chunk_tokens=18, batch_sequences=2))
    config = replace(PLAIN, ttt=phased, documents=True)
    plans = plans_of(config, TOKENS, STARTS)
    assert measure_rates(tiny_model(), config, plans, repeats=1).phase > 0


def test_nobody_asks_which_learner_it_is() -> None:
    ours = {"Sgd", "DocumentAdapters", "Phased", "NoLearning"}
    source = Path(str(fairway.__file__)).parent
    found = []
    # What of the source a learner does without is written down apart from the source.
    files = set(source.rglob("*.py")) - {source / "submission" / "known.py"}
    for file in sorted(files):
        for node in ast.walk(ast.parse(file.read_text())):
            asks = isinstance(node, ast.MatchClass) or (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("isinstance", "issubclass", "type")
            )
            named = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} if asks else set()
            if named & ours:
                found.append(f"{file.relative_to(source)}:{getattr(node, 'lineno', 0)}")
    assert not found
