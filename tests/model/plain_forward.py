"""A second forward pass: NumPy in float64, one row, every position, nothing fused and nothing kept.

Written from the description of the model, apart from the package down to the constants; it guards
the one that scores, and decodes what that one encoded (`benchmarks/travel.py`).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
EPS = 2.0**-23
HASH = (36313, 27191, 48271)


def forward(config: Any, weights: dict[str, Floats], tokens: NDArray, positions: int) -> Floats:
    """Logits (T, V) for token ids (T,).

    config     the model's, any object with its fields
    weights    by the names of a model file; all in float64
    positions  of the window, which may be longer: beyond the training context they decide the
               rotary angles
    """
    w, x = weights, embedded(config, weights, tokens)
    angles = rotary_angles(config, len(tokens), positions)
    looks_back = np.tril(np.ones((len(tokens), len(tokens)), dtype=bool))
    if config.attention.within_documents:
        document = np.cumsum(tokens == config.bos_id)
        looks_back &= document[:, None] == document[None]
    layers, first, skips = depth(config), x, []
    lane: Floats | None = None
    half = len(layers) // 2
    for slot, layer in enumerate(layers):
        decoding = slot >= half
        parallel = config.parallel if config.parallel and layer >= config.parallel.start else None
        lanes = decoding and parallel is not None and parallel.form == "lanes"
        skip = skips.pop() if decoding and skips else None
        if lanes:
            lane = x if lane is None else lane
        elif lane is not None:
            continue
        if skip is not None:
            skip = w["skip_weights"][slot - half] * skip
            gates = w.get("skip_gates")
            x = x + skip if gates is None else skip + sigmoid(gates[slot - half]) * (x - skip)
        name, damping = f"blocks.{layer}.", (layer + 1) ** -0.5 if config.layer_scale else 1.0
        mix = w.get(name + "residual_mix")
        mixed = x if mix is None else mix[0] * x + mix[1] * first
        read = damping * norm(mixed)
        attended = attention(config, w, name, layer, read, tokens, angles, looks_back)
        if lanes and lane is not None:
            bent = mlp(config, w, name, damping * norm(lane))
            carry, route = w["lane_carry"][layer], w["lane_route"][layer]
            x = carry[0] * x + route[0, 0] * attended + route[1, 0] * bent
            lane = carry[1] * lane + route[0, 1] * attended + route[1, 1] * bent
        elif parallel is not None and parallel.form == "shared":
            x = mixed + attended + mlp(config, w, name, read)
        else:
            x = mixed + attended
            x = x + mlp(config, w, name, damping * norm(x))
        if config.skips is not None and not decoding:
            skips.append(x)
    x = norm(x if lane is None else 0.5 * (x + lane))
    x = x @ w["head_down.weight"].T if "head_down.weight" in w else x
    logits = x @ w["embed.weight" if config.tied else "head.weight"].T
    cap = config.logit_softcap
    if config.asymmetric_softcap:
        cap = np.where(logits > 0, w["softcap_positive"], w["softcap_negative"])
    return logits if cap is None else cap * np.tanh(logits / cap)


def embedded(config: Any, w: dict[str, Floats], tokens: NDArray) -> Floats:
    """(T, D): what enters the first block."""
    x = w["embed.weight"][tokens]
    for i, table in enumerate(config.embedding.ngrams):
        mixed = np.zeros(len(tokens), dtype=np.int64)
        for back in range(table.order):
            mixed ^= np.pad(tokens, (back, 0))[: len(tokens)] * HASH[back]
        bucket = ((mixed + 2**31) % 2**32 - 2**31) % (table.buckets - 1)
        bucket[: table.order - 1] = table.buckets - 1
        row = w[f"ngrams.{i}.table.weight"][bucket]
        if f"ngrams.{i}.project.weight" in w:
            row = row @ w[f"ngrams.{i}.project.weight"].T
        x = x + row * w[f"ngrams.{i}.scale"]
    if config.embedding.smear == "v2":
        gate = w["smear_v2.gate"]
        same = (tokens != config.bos_id) | config.embedding.smear_across_documents
        opened = w["smear_v2.strength"] * sigmoid(x[:, : len(gate)] @ gate) * same
        x = x + opened[:, None] * before(x)
    x = norm(x)
    if config.embedding.smear == "v1":
        x = x + sigmoid(w["smear_v1.gate"]) * (before(x) - x)
    return x @ w["embed_up.weight"].T if "embed_up.weight" in w else x


def attention(
    config: Any, w: dict[str, Floats], name: str, layer: int, read: Floats, tokens: NDArray,
    angles: tuple[Floats, Floats], looks_back: NDArray,
) -> Floats:  # fmt: skip
    """(T, D) -> (T, D), the block's scale of its output included."""
    settings, at = config.attention, name + "attention."
    heads, group = settings.num_heads, settings.num_heads // settings.num_kv_heads
    width = config.model_dim // heads
    q, k, v = (read @ w[f"{at}{part}.weight"].T for part in ("query", "key", "value"))
    value = config.embedding.value
    if value is not None and layer in value.layers:
        more = w["value_embed.table.weight"][tokens]
        if "value_embed.project.weight" in w:
            more = more @ w["value_embed.project.weight"].T
        scales = w["value_embed.scale"], w["value_embed.layer_scales"]
        v = v + more * scales[0] * scales[1][value.layers.index(layer)]
    q, k, v = (part.reshape(len(tokens), -1, width) for part in (q, k, v))
    q, k = rotated(norm(q), angles) * w[at + "gain"][:, None], rotated(norm(k), angles)
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    scores = np.einsum("thk,shk->hts", q, k) * width**-0.5
    scores = np.where(looks_back, scores, -np.inf)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    y = np.einsum("hts,shk->thk", shares / shares.sum(-1, keepdims=True), v)
    if layer >= config.num_layers - settings.exclusive_layers:
        direction = v / np.maximum(np.sqrt((v * v).sum(-1, keepdims=True)), 1e-12)
        y = y - (y * direction).sum(-1, keepdims=True) * direction
    if settings.gate is not None:
        gate = w[at + "gate"]
        y = y * sigmoid(settings.gate.scale * (read[:, : gate.shape[1]] @ gate.T))[..., None]
    return y.reshape(len(tokens), -1) @ w[at + "output.weight"].T * w[name + "attention_scale"]


def mlp(config: Any, w: dict[str, Floats], name: str, read: Floats) -> Floats:
    hidden = read @ w[name + "mlp.up.weight"].T
    if config.mlp.activation == "swiglu":
        gate = read @ w[name + "mlp.gate.weight"].T
        hidden = hidden * gate * sigmoid(gate)
    else:
        hidden = np.where(hidden > 0, hidden, config.mlp.slope * hidden) ** 2
    return hidden @ w[name + "mlp.down.weight"].T * w[name + "mlp_scale"]


def depth(config: Any) -> list[int]:
    """Layers in the order in which they run."""
    once, loop = list(range(config.num_layers)), config.loop
    if loop is None:
        return once
    again = once[loop.first : loop.last + 1] * (1 + loop.extra_passes)
    return once[: loop.first] + again + once[loop.last + 1 :]


def rotary_angles(config: Any, length: int, positions: int) -> tuple[Floats, Floats]:
    settings = config.attention
    dims, base = settings.rope_dims or config.model_dim // settings.num_heads, settings.rope_base
    if settings.rope_stretch and positions > config.train_context and dims > 2:
        base = base * (positions / config.train_context) ** (dims / (dims - 2))
    angle = np.arange(length)[:, None] * base ** -(np.arange(0, dims, 2) / dims)
    return np.cos(angle)[:, None], np.sin(angle)[:, None]


def rotated(x: Floats, angles: tuple[Floats, Floats]) -> Floats:
    """(T, H, K): the first channels turned in pairs that lie half of them apart."""
    cos, sin = angles
    half = cos.shape[-1]
    one, two, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return np.concatenate((one * cos + two * sin, two * cos - one * sin, rest), axis=-1)


def norm(x: Floats) -> Floats:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS)


def before(x: Floats) -> Floats:
    return np.concatenate((np.zeros_like(x[:1]), x[:-1]))


def sigmoid(x: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-x))
