"""The environment variables of the field's published scripts, read and checked.

Every published script is configured by variables alone, so a checkpoint means nothing without the
ones it was trained under. What is left unset takes the script's own default; what the script does
not know is an error here, though there it goes unnoticed (#1048). Which variables a script has
stands beside its recipe (`recipes/script.py`).
"""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches

from fairway.model.model_config import ModelConfig
from fairway.recipes.names import canonical
from fairway.recipes.registry import SCRIPTS
from fairway.recipes.script import Environment, Script, Value

# Say where files lie, how often to log, or which machine runs: nothing about a model or its run.
IRRELEVANT = {
    "ARTIFACT_DIR", "CONTROL_TENSOR_NAME_PATTERNS", "DATA_DIR", "DATA_PATH",
    "INT8_KEEP_FLOAT_FP32_NAME_PATTERNS", "LOCAL_RANK", "MODEL_PATH", "NCCL_NET",
    "PYTORCH_CUDA_ALLOC_CONF", "QUANTIZED_MODEL_PATH", "RANK", "RUN_ID",
    "TOKENIZER_PATH", "TRAIN_LOG_EVERY",
    "VAL_BATCH_SIZE", "VAL_BATCH_TOKENS", "VAL_LOSS_EVERY", "WARMUP_STEPS", "WORLD_SIZE",
}  # fmt: skip
POSITIVE = ("VOCAB_SIZE", "NUM_LAYERS", "MODEL_DIM", "NUM_HEADS", "NUM_KV_HEADS", "MLP_MULT")


def published_script(lineage: str) -> Script:
    """The script of that lineage; ValueError lists those there are."""
    return SCRIPTS[canonical(lineage, SCRIPTS, "lineage")]


def parse_environment(
    lineage: str, env: Mapping[str, str], otherwise: Mapping[str, Value] | None = None
) -> Environment:
    """Read variables as the script of that lineage does; ValueError lists every unknown one.

    otherwise  what is meant by the variables left out; the script's defaults when absent
    """
    script = published_script(lineage)
    unread = IRRELEVANT | set(script.ignored)
    given = {name: text for name, text in env.items() if name not in unread}
    problems = [_unknown(name, script) for name in sorted(given.keys() - script.defaults.keys())]
    values: dict[str, Value] = dict(otherwise or script.defaults)
    for name in sorted(given.keys() & values.keys()):
        try:
            values[name] = parse_value(name, given[name], script.defaults[name])
        except ValueError as error:
            problems.append(str(error))
    environment = Environment(script, values, frozenset(given))
    problems = problems or list(_contradictions(environment))
    if problems:
        raise ValueError(f"environment of {script.name}: " + "; ".join(problems))
    return environment


def ignored_variables(lineage: str, env: Mapping[str, str]) -> tuple[str, ...]:
    """Those of `env` that published command lines set though the script never reads them."""
    return tuple(name for name in published_script(lineage).ignored if name in env)


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


def model_config(env: Environment) -> ModelConfig:
    """The model that a script builds under these variables."""
    return env.script.model(env)


def _unknown(name: str, script: Script) -> str:
    owners = [other.name for other in SCRIPTS.values() if name in other.variables]
    if owners:
        return f"{name} is not a variable of this script, but of {', '.join(owners)}"
    close = get_close_matches(name, script.variables, n=1)
    return f"{name} is not a variable of any known script" + (
        f"; did you mean {close[0]}?" if close else ""
    )


def _contradictions(env: Environment) -> list[str]:
    """What no model can be built from, in words that name the variables."""
    problems = [*_meaningless(env), *_not_positive(env, POSITIVE)]
    if problems:
        return problems
    problems = [*_misfits(env), *_not_positive(env, ("LOGIT_SOFTCAP",))]
    return problems + [problem for check in env.script.checks for problem in check(env)]


def _meaningless(env: Environment) -> Iterator[str]:
    for name, row in env.script.variables.items():
        if row.unsupported and env[name] != env.script.defaults[name]:
            yield f"{env.describe(name)}: {row.unsupported} is not supported"
        for needed in row.needs:
            if name in env.given and not env[needed]:
                yield f"{env.describe(name)} means nothing while {env.describe(needed)}"


def _not_positive(env: Environment, names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        if env[name] <= 0:
            yield f"{env.describe(name)} must be positive"


def _misfits(env: Environment) -> Iterator[str]:
    dim, heads, layers = env["MODEL_DIM"], env["NUM_HEADS"], env["NUM_LAYERS"]
    if dim % heads:
        yield f"{env.describe('NUM_HEADS')} does not divide {env.describe('MODEL_DIM')}"
    elif dim // heads % 2:
        yield (
            f"{env.describe('MODEL_DIM')} over {env.describe('NUM_HEADS')} gives heads of odd width"
        )
    if heads % env["NUM_KV_HEADS"]:
        yield f"{env.describe('NUM_KV_HEADS')} does not divide {env.describe('NUM_HEADS')}"
    rope_dims = env.get("ROPE_DIMS", 0)
    if rope_dims % 2 or not 0 <= rope_dims <= dim // heads:
        yield f"{env.describe('ROPE_DIMS')} must be even and at most the head width {dim // heads}"
    if "XSA_LAST_N" in env.given and env["XSA_LAST_N"] > layers:
        yield f"{env.describe('XSA_LAST_N')} exceeds {env.describe('NUM_LAYERS')}"
