"""The tensors of a published checkpoint, under our names.

Two layouts exist: one tensor per matrix, and since #1530 banks that stack the matrices of all
layers. Both are described from our side: for each of our parameters, the published tensor it comes
from. Variables say what the model is like (`environment.py`); files are read in `ptz.py`.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from fairway.interop.environment import model_config, parse_environment, published_script
from fairway.model.blank import blank
from fairway.model.gpt import GPT
from fairway.model.model_config import ModelConfig
from fairway.recipes.registry import SCRIPTS
from fairway.recipes.script import Environment

RENAMED = {  # our suffix within a block: the published one
    "attention.query.weight": "attn.c_q.weight",
    "attention.key.weight": "attn.c_k.weight",
    "attention.value.weight": "attn.c_v.weight",
    "attention.output.weight": "attn.proj.weight",
    "attention.gain": "attn.q_gain",
    "attention.gate": "attn.attn_gate_w",
    "mlp.up.weight": "mlp.fc.weight",
    "mlp.down.weight": "mlp.proj.weight",
    "attention_scale": "attn_scale",
    "mlp_scale": "mlp_scale",
    "residual_mix": "resid_mix",
}
OUTSIDE = {  # our name: the published one, outside the blocks
    "embed.weight": "tok_emb.weight",
    "embed_up.weight": "embed_proj.weight",
    "head_down.weight": "head_proj.weight",
    "head.weight": "lm_head.weight",
    "ngrams.0.table.weight": "bigram.embed.weight",
    "ngrams.0.project.weight": "bigram.proj.weight",
    "ngrams.0.scale": "bigram.scale",
    "value_embed.table.weight": "ve_shared.embed.weight",
    "value_embed.project.weight": "ve_shared.proj.weight",
    "value_embed.scale": "ve_shared.scale",
    "smear_v1.gate": "smear.gate",
    "smear_v2.strength": "smear_lambda",
    "softcap_positive": "softcap_pos",
    "softcap_negative": "softcap_neg",
    "skip_weights": "skip_weights",
    "skip_gates": "skip_gates",
    "lane_carry": "parallel_resid_lambdas",
    "lane_route": "parallel_post_lambdas",
}
BANKED = {  # our suffix within a block: (bank, which of the bank's runs of all layers)
    "attention.query.weight": ("qo_bank", 0),
    "attention.output.weight": ("qo_bank", 1),
    "attention.key.weight": ("kv_bank", 0),
    "attention.value.weight": ("kv_bank", 1),
    "mlp.up.weight": ("mlp_up_bank", 0),
    "mlp.down.weight": ("mlp_down_bank", 0),
}
BANK_RUNS = {"qo_bank": 2, "kv_bank": 2}
# Which variables decide a tensor's presence and shape.
DECIDING = (
    ("bigram.", ("BIGRAM_VOCAB_SIZE", "BIGRAM_DIM")),
    ("ve_", ("VE_ENABLED", "VE_DIM", "VE_LAYERS", "NUM_KV_HEADS")),
    ("skip_", ("NUM_LAYERS", "NUM_LOOPS", "LOOP_START", "LOOP_END", "SKIP_GATES_ENABLED")),
    ("softcap_", ("ASYM_LOGIT_RESCALE",)),
    ("smear_", ("SMEAR_GATE_ENABLED", "GATE_WINDOW")),
    ("lm_head", ("TIE_EMBEDDINGS",)),
    ("tok_emb", ("VOCAB_SIZE", "EMBEDDING_DIM", "MODEL_DIM")),
    ("_proj.weight", ("EMBEDDING_DIM", "MODEL_DIM")),
    ("attn_gate", ("SPARSE_ATTN_GATE_ENABLED", "GATE_WINDOW")),
    ("mlp", ("MLP_MULT", "MODEL_DIM", "NUM_LAYERS")),
    ("c_k", ("NUM_KV_HEADS", "NUM_HEADS", "MODEL_DIM")),
    ("c_v", ("NUM_KV_HEADS", "NUM_HEADS", "MODEL_DIM")),
    ("kv_bank", ("NUM_KV_HEADS", "NUM_HEADS", "MODEL_DIM", "NUM_LAYERS")),
    ("q_gain", ("NUM_HEADS",)),
    ("", ("MODEL_DIM", "NUM_LAYERS")),
)


class Source(NamedTuple):
    """Where one of our parameters comes from: a published tensor, or a slice of one."""

    tensor: str
    index: int | None = None  # along the published tensor's first dimension
    length: int | None = None  # of that dimension


def sources(lineage: str, config: ModelConfig) -> dict[str, tuple[Source, ...]]:
    """For each of our parameters the published tensors it is made of (several are stacked)."""
    names = blank(config).state_dict().keys()
    banked = published_script(lineage).banked
    return {name: _sources_of(name, config, banked) for name in names}


def _sources_of(name: str, config: ModelConfig, banked: bool) -> tuple[Source, ...]:
    if name.startswith("extra_heads."):
        return (Source(name.replace("extra_heads.", "mtp_heads.")),)
    if name == "value_embed.layer_scales":
        layers = range(len(config.embedding.value.layers)) if config.embedding.value else ()
        return tuple(Source(f"ve_layer_scales.{i}") for i in layers)
    if name == "smear_v2.gate":
        return (Source("smear_gate.weight", 0, 1),)
    if not name.startswith("blocks."):
        return (Source(OUTSIDE[name]),)
    _, number, suffix = name.split(".", 2)
    layer = int(number)
    if banked and suffix in BANKED:
        bank, run = BANKED[suffix]
        length = BANK_RUNS.get(bank, 1) * config.num_layers
        return (Source(bank, run * config.num_layers + layer, length),)
    return (Source(f"blocks.{layer}.{RENAMED[suffix]}"),)


def published_shapes(lineage: str, config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that a checkpoint of this model holds."""
    ours = blank(config).state_dict()
    shapes: dict[str, tuple[int, ...]] = {}
    for name, parts in sources(lineage, config).items():
        for part in parts:
            shape = (1,) if len(parts) > 1 or name.endswith("layer_scales") else ours[name].shape
            shapes[part.tensor] = tuple(shape) if part.length is None else (part.length, *shape)
    return shapes | published_script(lineage).always(config)


def load_checkpoint(
    lineage: str,
    env: Mapping[str, str],
    state_dict: Mapping[str, Tensor],
    loops_active: bool = True,
) -> GPT:
    """The model of a published script, with a checkpoint's weights, as float32.

    lineage       a published script: `recipes.registry.SCRIPTS` has them
    env           the variables the script ran under; the script's defaults fill the rest
    state_dict    tensors under the script's own names
    loops_active  whether looped layers repeat, as they do once training has switched them on

    Raises ValueError naming every variable that is unknown or contradicts another, or else every
    tensor that is missing, unexpected or of the wrong shape.
    """
    environment = parse_checkpoint_environment(lineage, env, state_dict)
    if environment.get("MTP_NUM_HEADS", 0):  # they serve training only and never ship
        state_dict = {n: t for n, t in state_dict.items() if not n.startswith("mtp_heads.")}
    model = GPT(model_config(environment))
    load_published(model, environment, state_dict)
    model.loops_active = loops_active
    return model.eval()


def parse_checkpoint_environment(
    lineage: str, env: Mapping[str, str], state_dict: Mapping[str, Tensor]
) -> Environment:
    """`parse_environment`, with the widths that the tensors themselves tell."""
    return parse_environment(lineage, _widths(lineage, state_dict) | dict(env))


def load_published(model: GPT, env: Environment, state_dict: Mapping[str, Tensor]) -> None:
    """Load tensors under the script's names into `model`; ValueError unless every one fits."""
    lineage = env.script.name
    _check_tensors(env, published_shapes(lineage, model.config), state_dict)
    weights = {}
    for name, parts in sources(lineage, model.config).items():
        tensors = [
            state_dict[part.tensor] if part.index is None else state_dict[part.tensor][part.index]
            for part in parts
        ]
        tensor = torch.cat(tensors) if name.endswith("layer_scales") else tensors[0]
        weights[name] = tensor.detach().float().clone()
    model.load_state_dict(weights)


def to_published(
    lineage: str, config: ModelConfig, weights: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Our tensors under the script's names: the inverse of `load_published`.

    Tensors that the script holds and our model has no use for are not among them.
    """
    whole: dict[str, Tensor] = {}
    stacked: dict[str, dict[int, Tensor]] = {}
    for name, parts in sources(lineage, config).items():
        pieces = weights[name].split(1) if name.endswith("layer_scales") else (weights[name],)
        for part, piece in zip(parts, pieces, strict=True):
            if part.index is None:
                whole[part.tensor] = piece.clone()
            else:
                stacked.setdefault(part.tensor, {})[part.index] = piece
    for name, slices in stacked.items():
        whole[name] = torch.stack([slices[index] for index in range(len(slices))])
    return whole


def _check_tensors(
    env: Environment, shapes: Mapping[str, tuple[int, ...]], state_dict: Mapping[str, Tensor]
) -> None:
    problems: dict[str, str] = {}
    for name, shape in shapes.items():
        tensor = state_dict.get(name)
        if tensor is None:
            problems[name] = f"{name} {shape} is missing"
        elif tuple(tensor.shape) != shape:
            problems[name] = f"{name} is {tuple(tensor.shape)}, but should be {shape}"
        elif not tensor.is_floating_point():
            problems[name] = f"{name} is {tensor.dtype}, but should be a float; dequantize it"
    for name in state_dict.keys() - shapes.keys():
        problems[name] = f"{name} {tuple(state_dict[name].shape)} is not expected"
    if not problems:
        return
    likely = _likely(state_dict)
    hint = ""
    if likely and env.script.name not in likely:
        hint = f"It looks like a checkpoint of {' or '.join(likely)}. "
    raise ValueError(
        f"{len(problems)} tensors do not fit a {env.script.name} model, as set by "
        f"{_deciding(env, problems)}. {hint}"
        f"{'; '.join(problems[name] for name in sorted(problems))}"
    )


def _widths(lineage: str, state_dict: Mapping[str, Tensor]) -> dict[str, str]:
    """Variables that the tensors themselves tell."""
    return {
        variable: str(state_dict[tensor].size(dimension))
        for variable, (tensor, dimension) in published_script(lineage).widths.items()
        if tensor in state_dict and state_dict[tensor].ndim > dimension
    }


def _likely(names: Iterable[str]) -> list[str]:
    """The lineages whose checkpoints alone have a tensor that is there, the latest ones first."""
    for script in reversed(SCRIPTS.values()):
        for mark in script.marks:
            if any(name.startswith(mark) for name in names):
                return [other.name for other in SCRIPTS.values() if mark in other.marks]
    return []


def _deciding(env: Environment, problems: Iterable[str]) -> str:
    deciding = {
        variable
        for name in problems
        for variable in next(variables for part, variables in DECIDING if part in name)
    }
    return ", ".join(env.describe(v) for v in sorted(deciding & env.values.keys()))
