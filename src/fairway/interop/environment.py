"""The environment variables of the field's published scripts, and the model they describe.

Every published script is configured by variables alone, so a checkpoint means nothing without the
ones it was trained under. What is left unset takes the script's own default; what the script does
not know is an error here, though there it goes unnoticed (#1048). Defaults are in `defaults.py`,
the tensors of such a model in `published_weights.py`, settings of a run in `settings.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from fairway.interop.defaults import DEFAULTS, IRRELEVANT, LINEAGES, Lineage, Value
from fairway.model.attention import AttentionConfig, GateConfig
from fairway.model.depth import Loop
from fairway.model.embedding import EmbeddingConfig, NgramTableConfig, ValueEmbeddingConfig
from fairway.model.gpt import MlpConfig, ModelConfig, ParallelConfig, SkipConfig

# Switches whose other positions lead to models or runs of which nothing here has a counterpart.
_ONLY: dict[str, tuple[Value, str]] = {
    "DTG_ENABLED": (False, "dynamic token gates"),
    "ETLB_ENABLED": (False, "a bias trained on the window being priced"),
    "ROPE_YARN": (False, "YaRN"),
    "ATTN_OUT_GATE_ENABLED": (False, "the dense output gate of #1667"),
    "GATED_ATTN_ENABLED": (False, "the dense attention gate of #1736"),
    "PARALLEL_FINAL_LANE": ("mean", "another end of the two lanes than their mean"),
}
# Companions that mean nothing while their switch is off.
_COMPANIONS: dict[str, tuple[str, ...]] = {
    "VE_ENABLED": ("VE_DIM", "VE_LAYERS"),
    "VE_DIM": ("VE_LAYERS",),
    "BIGRAM_VOCAB_SIZE": ("BIGRAM_DIM",),
    "NUM_LOOPS": ("LOOP_START", "LOOP_END", "ENABLE_LOOPING_AT"),
    "SPARSE_ATTN_GATE_ENABLED": ("SPARSE_ATTN_GATE_SCALE",),
}


@dataclass(frozen=True)
class Environment:
    """Variables of one script, parsed; `values` has every name it knows, `given` those set."""

    lineage: Lineage
    values: dict[str, Any]
    given: frozenset[str]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def get(self, name: str, otherwise: Any) -> Any:
        """The variable, or `otherwise` where this script has none of that name."""
        return self.values.get(name, otherwise)

    def describe(self, name: str) -> str:
        origin = "" if name in self.given else " (the script's default)"
        value = self.values[name]
        return f"{name}={int(value) if isinstance(value, bool) else value}{origin}"


def check_lineage(lineage: str) -> Lineage:
    for known in LINEAGES:
        if lineage == known:
            return known
    raise ValueError(f"unknown lineage {lineage!r}; choose one of {', '.join(LINEAGES)}")


def parse_environment(lineage: str, env: Mapping[str, str]) -> Environment:
    """Read variables as the script of that lineage does; ValueError lists every unknown one."""
    script = check_lineage(lineage)
    defaults = DEFAULTS[script]
    given = {name: text for name, text in env.items() if name not in IRRELEVANT}
    problems = [_unknown(name, script) for name in sorted(given.keys() - defaults.keys())]
    values: dict[str, Any] = dict(defaults)
    for name in sorted(given.keys() & defaults.keys()):
        try:
            values[name] = parse_value(name, given[name], defaults[name])
        except ValueError as error:
            problems.append(str(error))
    environment = Environment(script, values, frozenset(given))
    problems += _contradictions(environment) if not problems else []
    if problems:
        raise ValueError(f"environment of {lineage}: " + "; ".join(problems))
    return environment


def parse_value(name: str, text: str, default: Value) -> Value:
    """A variable's text as the type of its default.

    >>> parse_value("LN_SCALE", "1", False), parse_value("MATRIX_LR", "2e-2", 0.04)
    (True, 0.02)
    """
    kind = type(default)
    try:
        return bool(int(text)) if kind is bool else kind(text)
    except (ValueError, TypeError):
        wanted = {bool: "0 or 1", int: "a whole number", float: "a number"}[kind]
        raise ValueError(f"{name}={text!r} is not {wanted}") from None


def _unknown(name: str, lineage: Lineage) -> str:
    owners = [other for other in LINEAGES if name in DEFAULTS[other]]
    if owners:
        return f"{name} is not a variable of this script, but of {', '.join(owners)}"
    close = get_close_matches(name, DEFAULTS[lineage], n=1)
    return f"{name} is not a variable of any known script" + (
        f"; did you mean {close[0]}?" if close else ""
    )


def _contradictions(env: Environment) -> list[str]:
    """What no model can be built from, in words that name the variables."""
    problems = []
    for name, (only, what) in _ONLY.items():
        if env.get(name, only) != only:
            problems.append(f"{env.describe(name)}: {what} is not supported")
    for switch, companions in _COMPANIONS.items():
        if switch in env.values and not env[switch]:
            problems += [
                f"{env.describe(name)} means nothing while {env.describe(switch)}"
                for name in companions
                if name in env.given
            ]
    dim, heads, kv_heads, layers = (
        env[name] for name in ("MODEL_DIM", "NUM_HEADS", "NUM_KV_HEADS", "NUM_LAYERS")
    )
    for name in ("VOCAB_SIZE", "NUM_LAYERS", "MODEL_DIM", "NUM_HEADS", "NUM_KV_HEADS", "MLP_MULT"):
        if env[name] <= 0:
            problems.append(f"{env.describe(name)} must be positive")
    if problems:
        return problems
    if dim % heads:
        problems.append(f"{env.describe('NUM_HEADS')} does not divide {env.describe('MODEL_DIM')}")
    elif dim // heads % 2:
        problems.append(
            f"{env.describe('MODEL_DIM')} over {env.describe('NUM_HEADS')} gives heads of odd width"
        )
    if heads % kv_heads:
        problems.append(
            f"{env.describe('NUM_KV_HEADS')} does not divide {env.describe('NUM_HEADS')}"
        )
    rope_dims = env.get("ROPE_DIMS", 0)
    if rope_dims % 2 or not 0 <= rope_dims <= dim // heads:
        problems.append(
            f"{env.describe('ROPE_DIMS')} must be even and at most the head width {dim // heads}"
        )
    if "XSA_LAST_N" in env.given and env["XSA_LAST_N"] > layers:
        problems.append(f"{env.describe('XSA_LAST_N')} exceeds {env.describe('NUM_LAYERS')}")
    if env["LOGIT_SOFTCAP"] <= 0:
        problems.append(f"{env.describe('LOGIT_SOFTCAP')} must be positive")
    if env.get("NUM_LOOPS", 0) > 0:
        if env["LOOP_END"] >= layers:
            problems.append(
                f"{env.describe('LOOP_END')} must be below {env.describe('NUM_LAYERS')}"
            )
        if not 0 <= env["LOOP_START"] <= env["LOOP_END"]:
            problems.append(
                f"{env.describe('LOOP_START')} must lie between 0 and {env.describe('LOOP_END')}"
            )
    if env.get("BIGRAM_VOCAB_SIZE", 0) == 1:
        problems.append(f"{env.describe('BIGRAM_VOCAB_SIZE')}: a hash table needs 2 buckets")
    problems += _value_layer_problems(env)
    return problems


def _value_layer_problems(env: Environment) -> list[str]:
    if not (env.get("VE_ENABLED", False) and env["VE_DIM"]):
        return []
    try:
        value_layers(env)
    except ValueError:
        return [f"{env.describe('VE_LAYERS')} is not a list of whole numbers such as 9,10"]
    if any(not 0 <= layer < env["NUM_LAYERS"] for layer in value_layers(env)):
        return [f"{env.describe('VE_LAYERS')} names a layer beyond {env.describe('NUM_LAYERS')}"]
    return []


def value_layers(env: Environment) -> tuple[int, ...]:
    """The layers that VE_LAYERS lists."""
    return tuple(int(layer) for layer in str(env["VE_LAYERS"]).split(",") if layer.strip())


def model_config(env: Environment) -> ModelConfig:
    """The model that a script builds under these variables."""
    dim, layers = env["MODEL_DIM"], env["NUM_LAYERS"]
    buckets = env.get("BIGRAM_VOCAB_SIZE", 0)
    ngrams = (NgramTableConfig(buckets=buckets, dim=env["BIGRAM_DIM"]),) if buckets else ()
    value = None
    if env.get("VE_ENABLED", False) and env["VE_DIM"] and value_layers(env):
        value = ValueEmbeddingConfig(dim=env["VE_DIM"], layers=value_layers(env))
    smear = "v1" if env.lineage in ("pr254", "pr414") else None
    if env.get("SMEAR_GATE_ENABLED", False):
        smear = "v2"
    gate = None
    if env.get("SPARSE_ATTN_GATE_ENABLED", False):
        gate = GateConfig(window=env["GATE_WINDOW"], scale=env["SPARSE_ATTN_GATE_SCALE"])
    narrow = env.get("EMBEDDING_DIM", dim)
    return ModelConfig(
        vocab_size=env["VOCAB_SIZE"],
        model_dim=dim,
        num_layers=layers,
        attention=AttentionConfig(
            num_heads=env["NUM_HEADS"],
            num_kv_heads=env["NUM_KV_HEADS"],
            rope_dims=env.get("ROPE_DIMS", 0) or None,
            rope_base=env["ROPE_BASE"],
            qk_gain=env["QK_GAIN_INIT"],
            exclusive_layers=min(env.get("XSA_LAST_N", 0), layers),
            gate=gate,
        ),
        mlp=MlpConfig(ratio=env["MLP_MULT"], slope=_slope(env.lineage)),
        embedding=EmbeddingConfig(
            dim=None if narrow == dim else narrow,
            init_std=env["TIED_EMBED_INIT_STD"],
            ngrams=ngrams,
            smear=smear,
            smear_window=env.get("GATE_WINDOW", 12),
            value=value,
        ),
        train_context=_train_context(env),
        skips=SkipConfig(gated=bool(env.get("SKIP_GATES_ENABLED", False))),
        loop=_loop(env),
        parallel=_parallel(env),
        layer_scale=bool(env.get("LN_SCALE", False)),
        logit_softcap=env["LOGIT_SOFTCAP"],
        tied=env["TIE_EMBEDDINGS"],
        init="uniform" if env.lineage == "baseline" else "orthogonal",
    )


def _slope(lineage: Lineage) -> float:
    return 0.5 if lineage in ("pr1413", "pr1493", "pr1855") else 0.0


def _train_context(env: Environment) -> int:
    # These two always tell their rotary tables 1,024, whatever context they train at, so at 2,048
    # their angles are stretched in training already.
    return 1024 if env.lineage in ("pr254", "pr414") else env["TRAIN_SEQ_LEN"]


def _loop(env: Environment) -> Loop | None:
    if env.get("NUM_LOOPS", 0) <= 0:
        return None
    return Loop(first=env["LOOP_START"], last=env["LOOP_END"], extra_passes=env["NUM_LOOPS"])


def _parallel(env: Environment) -> ParallelConfig | None:
    layers = env["NUM_LAYERS"]
    if env.lineage == "pr1493" and 0 <= env["PARALLEL_RESIDUAL_START"] < layers:
        return ParallelConfig(start=env["PARALLEL_RESIDUAL_START"], form="shared")
    if env.lineage == "pr1855" and 0 < env["PARALLEL_START_LAYER"] < layers:
        return ParallelConfig(start=env["PARALLEL_START_LAYER"], form="lanes")
    return None
