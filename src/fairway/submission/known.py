"""What a recipe decides about the code: settings that are fixed, and what no one will call.

The rows of `RULES` know the package: which names hold nothing when a part of the recipe is absent.
A row that is wrong shows at once: the script then lacks what it calls, and the tests of scripts
train and score with every kind of recipe.
"""

import dataclasses
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import get_args, get_type_hints

from fairway.average import EmaConfig
from fairway.evaluate.learners.documents import DocumentAdapters
from fairway.evaluate.learners.phased import Phased
from fairway.evaluate.learners.sgd import Sgd
from fairway.recipes.recipe import Recipe
from fairway.runtime.native import source_of
from fairway.submission.program import Symbol
from fairway.submission.settled import Settled

Value = bool | str | None
# Fields of which a run makes objects with other values, or whose name means something else too.
CHANGING = frozenset({"context", "name", "parent", "published", "seed", "steps"})


@dataclass(frozen=True, kw_only=True)
class Facts:
    """values    of settings, by field
    holders   fields that hold further settings
    answers   what calls give, as they are written: "is_plugin" for `is_plugin(cls)`
    nothing   names and attributes that are always None, by the beginning of modules' names
    left_out  classes and functions that no one calls
    unused    methods that no one calls, as (module, "Class.method")
    configs   classes of settings, by module
    """

    values: dict[str, Value]
    holders: frozenset[str]
    answers: dict[str, object]
    nothing: dict[str, dict[str, object]]
    left_out: frozenset[Symbol]
    unused: frozenset[Symbol]
    configs: dict[str, frozenset[str]]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What follows if `when` is true of a run; fields are those of `Facts`."""

    when: Callable[[Settled], bool] = lambda run: True
    answers: dict[str, object] = field(default_factory=dict)
    nothing: dict[str, dict[str, object]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()  # "module:Name"
    unused: tuple[str, ...] = ()  # "module:Class.method Class.method"
    made: tuple[str, ...] = ()  # settings that the code makes, though the recipe holds none


def _adapts(run: Settled) -> bool:
    return isinstance(run.evaluate.ttt, DocumentAdapters | Phased)


def _learner(run: Settled) -> object:
    """What learns on the model's own weights."""
    return getattr(run.evaluate.ttt, "sgd", run.evaluate.ttt)


def _masks(run: Settled) -> bool:
    return run.recipe.model.attention.within_documents or run.recipe.train.batch.joined


RULES = (
    Rule(  # plain forms alone: compilers fuse them, and kernels of ours are no part of a script
        answers={
            "on_cpu.take": False,
            "on_cpu.take_products": False,
            "on_gpu.take": False,
            "on_gpu.take_loss": False,
            "is_plugin": False,
            "plugins_of": [],
            "kernels_matrices.take": False,
            "why_plain": "in a script",
            "self._told": (None, "training diverged"),
            "_casts_itself": True,
        },
        made=("fairway.quant.schemes:KeepHalf",),
        nothing={
            "fairway.runtime.attention_backend": {"requested": None},
            "fairway.train.loop": {"stop": None},
            "fairway.evaluate.rounding": {"functions": None},
        },
        left_out=(
            "fairway.model.decode_step:_in_compiled",
            "fairway.runtime.run_log:RunLog",
            "fairway.runtime.stopping:Stop",
            "fairway.runtime.attention_backend:_obstacle_plain _obstacle_flex",
            "fairway.runtime.meter:Meter",
            "fairway.runtime.watchdog:Watchdog",
        ),
        unused=(
            "fairway.runtime.distributed:Ranks.start Ranks.running Ranks.stop Ranks.lockstep "
            "Ranks.__post_init__",
            "fairway.tokens.tokenizer:ByteTokenizer.encode SentencePieceTokenizer.encode "
            "BpeTokenizer.encode BpeTokenizer._ids CaseTokenizer.encode CaseTokenizer.decode",
        ),
    ),
    Rule(  # compiled backward hands over all gradients at its end: there is nothing to overlap
        when=lambda run: run.device == "cuda",
        nothing={
            "fairway.train.loop": {"overlapped": False},
            "fairway.train.divergence": {"self.device.type": "cuda"},
        },
    ),
    Rule(  # what a CPU learns faster with
        when=lambda run: run.device == "cuda",
        answers={"_is_plain": True},
        nothing={"fairway.runtime.kernels": {"training_on_cpu": False}},
    ),
    Rule(
        when=lambda run: run.tokenizer == "sentencepiece",
        answers={"ByteTokenizer().to_bytes": b"FWYT1bytes"},
        left_out=("fairway.tokens.tokenizer:ByteTokenizer BpeTokenizer _our_bpe",),
    ),
    Rule(
        when=lambda run: run.tokenizer == "bpe",
        answers={"ByteTokenizer().to_bytes": b"FWYT1bytes"},
        left_out=("fairway.tokens.tokenizer:ByteTokenizer _check_published",),
    ),
    Rule(
        when=lambda run: run.transform is None,
        left_out=("fairway.tokens.tokenizer:CaseTokenizer",),
    ),
    Rule(
        when=lambda run: run.evaluate.arithmetic == "native",
        answers={"self._settled": False, "config.settled": False, "self._round_gradients": None},
        left_out=("fairway.evaluate.config:make_settled_predictor",),
        unused=(
            "fairway.train.param_groups:Optimizers.state_dict Optimizers.load_state_dict",
            "fairway.train.muon:Muon.state_dict Muon.load_state_dict",
            "fairway.evaluate.clocked:LearnsFrom.state_dict LearnsFrom.load_state_dict",
            "fairway.evaluate.frozen:Frozen.state_dict Frozen.load_state_dict Frozen.reader",
            "fairway.evaluate.learners.sgd:SgdPredictor.state_dict SgdPredictor.load_state_dict "
            "WeightLearner.state_dict WeightLearner.load_state_dict",
            "fairway.evaluate.learners.optimizers:TorchStepper.state_dict "
            "TorchStepper.load_state_dict MuonStepper.state_dict MuonStepper.load_state_dict",
            "fairway.evaluate.learners.phased:PhasedPredictor.state_dict "
            "PhasedPredictor.load_state_dict",
            "fairway.evaluate.learners.tilt:TiltPredictor.state_dict TiltPredictor.load_state_dict",
            "fairway.evaluate.learners.mixture:MixturePredictor.state_dict "
            "MixturePredictor.load_state_dict",
            "fairway.evaluate.learners.documents:DocumentPredictor.state_dict "
            "DocumentPredictor.load_state_dict",
            "fairway.tokens.batches:Batches.state_dict Batches.load_state_dict",
        ),
    ),
    Rule(
        when=lambda run: run.recipe.train.loops_at is not None,
        made=("fairway.train.schedule:When",),
    ),
    Rule(
        when=lambda run: getattr(run.evaluate.ttt, "optimizer", None) == "muon",
        made=("fairway.train.muon:MuonConfig",),
    ),
    Rule(
        when=lambda run: run.recipe.train.steps is None,
        left_out=("fairway.train.clock:StepClock",),
    ),
    Rule(
        when=lambda run: run.recipe.train.steps is not None,
        left_out=("fairway.train.clock:WallClock",),
    ),
    Rule(
        when=lambda run: run.recipe.train.batch.context_curriculum is None,
        answers={"context_warmup": None, "warmup.scale": 1.0},
        left_out=("fairway.train.config:context_warmup",),
    ),
    Rule(
        when=lambda run: run.recipe.round_from is None,
        answers={"late_rounding": [], "detach": None},
    ),
    Rule(
        when=lambda run: isinstance(run.recipe.average, EmaConfig),
        left_out=("fairway.average:LastWeights Swa",),
        unused=("fairway.average:_Shadow.move",),
    ),
    Rule(
        when=lambda run: run.recipe.tokens.order.order != "documents",
        nothing={"fairway.tokens.batches": {"self._texts": []}},
    ),
    Rule(
        when=lambda run: run.recipe.tokens.order.order == "documents",
        unused=("fairway.tokens.batches:Batches._row Batches._starts_of",),
    ),
    Rule(
        when=lambda run: run.evaluate.ttt is not None,
        left_out=("fairway.evaluate.frozen:NoLearning",),
    ),
    Rule(
        when=lambda run: getattr(_learner(run), "optimizer", "muon") != "muon",
        left_out=("fairway.evaluate.learners.optimizers:MuonStepper",),
    ),
    Rule(
        when=lambda run: isinstance(run.evaluate.ttt, Sgd),
        nothing={"fairway.evaluate.learners.sgd": {"packed": False}},
    ),
    Rule(
        when=lambda run: isinstance(run.evaluate.ttt, Phased),
        nothing={"fairway.evaluate.learners.sgd": {"packed": True}},
        unused=("fairway.evaluate.learners.sgd:WeightLearner.learn WeightLearner._losses",),
    ),
    Rule(
        when=lambda run: not _adapts(run),
        nothing={"fairway.model": {"adapters": None}},
    ),
    Rule(
        when=lambda run: run.evaluate.cached is None,
        nothing={"fairway.model": {"cache": None}, "fairway.evaluate": {"self.cached": None}},
    ),
    Rule(
        when=lambda run: run.recipe.model.embedding.value is None,
        nothing={"fairway.model": {"value_embedding": None, "self.value_embed": None}},
        left_out=("fairway.model.embedding:ValueEmbedding",),
    ),
    Rule(
        when=lambda run: run.recipe.model.attention.gate is None,
        nothing={"fairway.model.attention": {"self.gate": None}},
    ),
    Rule(
        when=lambda run: run.recipe.model.tied,
        nothing={"fairway.model": {"self.head": None}},
    ),
    Rule(
        when=lambda run: run.recipe.model.embedding.dim is None,
        nothing={"fairway.model": {"self.head_down": None, "self.embed_up": None}},
    ),
    Rule(
        when=lambda run: run.recipe.model.embedding.smear != "v1",
        nothing={"fairway.model": {"self.smear_v1": None}},
        left_out=("fairway.model.embedding:SmearV1",),
    ),
    Rule(
        when=lambda run: run.recipe.model.embedding.smear != "v2",
        nothing={"fairway.model": {"self.smear_v2": None}},
        left_out=("fairway.model.embedding:SmearV2",),
    ),
    Rule(
        when=lambda run: not run.recipe.model.embedding.ngrams,
        nothing={"fairway.model": {"self.ngrams": ()}},
        left_out=("fairway.model.embedding:NgramTable",),
    ),
    Rule(
        when=lambda run: not run.recipe.model.extra_heads,
        nothing={"fairway.model": {"self.extra_heads": ()}},
    ),
    Rule(
        when=lambda run: not _masks(run),
        nothing={"fairway.model": {"mask": None, "self.parts": None}},
    ),
    Rule(
        when=lambda run: (
            run.recipe.model.parallel is None or run.recipe.model.parallel.form != "lanes"
        ),
        nothing={"fairway.model": {"lane": None, "lanes": None}},
    ),
)


def _native(name: str) -> str:
    """C++ of ours without comments and what only people need."""
    text = re.sub(r"//[^\n]*", "", source_of(name))
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())


def facts_of(settled: Settled) -> Facts:
    """What the script of this run may rely on."""
    recipe = settled.frozen()
    every = set(_classes(Recipe))
    used = {cls for value in _objects(recipe) for cls in type(value).__mro__}
    rules = [rule for rule in RULES if rule.when(settled)]
    order = recipe.tokens.order.order
    nothing: dict[str, dict[str, object]] = {
        "fairway.tokens.batches": {"config.order": order, "self.config.order": order}
    }
    for rule in rules:
        for prefix, names in rule.nothing.items():
            nothing.setdefault(prefix, {}).update(names)
    unheld = {(cls.__module__, cls.__name__) for cls in every - used}
    made = {pair for rule in rules for pair in _pairs(rule.made)}
    left_out = frozenset(pair for rule in rules for pair in _pairs(rule.left_out))
    answers: dict[str, object] = {}
    for rule in rules:
        answers |= rule.answers
    if settled.evaluate.tilt is not None:
        answers["source_of"] = _native("hints")
    elif settled.evaluate.mixture is not None:
        answers["source_of"] = _native("ngram")
    configs: dict[str, set[str]] = {}
    for cls in {parent for config in every for parent in config.__mro__}:
        configs.setdefault(cls.__module__, set()).add(cls.__name__)
    return Facts(
        values=_settled_values(
            recipe, {cls for cls in every if (cls.__module__, cls.__name__) in made}
        ),
        holders=frozenset(_holders(recipe)),
        answers=answers,
        nothing=nothing,
        left_out=left_out | (unheld - made),
        unused=frozenset(pair for rule in rules for pair in _pairs(rule.unused)),
        configs={module: frozenset(names) for module, names in configs.items()},
    )


def _pairs(rows: tuple[str, ...]) -> Iterator[Symbol]:
    for row in rows:
        module, _, names = row.partition(":")
        yield from ((module, name) for name in names.split())


def _settled_values(recipe: Recipe, made: Collection[type]) -> dict[str, Value]:
    """Fields on whose value all settings agree, where it is none, a truth value or a name.

    made  classes of which the code makes objects of its own
    """
    found: dict[str, set[object]] = {
        each.name: {...} for cls in made for each in dataclasses.fields(cls)
    }
    for value in _objects(recipe):
        for each in dataclasses.fields(value):  # type: ignore[arg-type]
            held = getattr(value, each.name)
            known = held is None or isinstance(held, bool | str)
            found.setdefault(each.name, set()).add(held if known else ...)
    return {
        name: next(iter(values))  # type: ignore[misc]
        for name, values in found.items()
        if len(values) == 1 and ... not in values and name not in CHANGING
    }


def _holders(recipe: Recipe) -> Iterator[str]:
    for value in _objects(recipe):
        for each in dataclasses.fields(value):  # type: ignore[arg-type]
            if dataclasses.is_dataclass(getattr(value, each.name)):
                yield each.name


def _objects(value: object) -> Iterator[object]:
    """A config and all configs that it holds."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield value
        value = [getattr(value, each.name) for each in dataclasses.fields(value)]
    if isinstance(value, tuple | list):
        for item in value:
            yield from _objects(item)


def _classes(cls: type, seen: set[type] | None = None) -> Iterator[type]:
    """A config class and all that its fields may hold."""
    seen = set() if seen is None else seen
    if cls in seen:
        return
    seen.add(cls)
    yield cls
    for hint in get_type_hints(cls).values():
        for each in _listed(hint):
            yield from _classes(each, seen)


def _listed(hint: object) -> Iterator[type]:
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        yield hint
    for argument in get_args(hint):
        yield from _listed(argument)
