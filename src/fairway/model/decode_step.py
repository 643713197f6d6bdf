"""Some tokens of every row through the model in C++ (`native/decode.cpp`), for whoever reads.

At one token a time the plain forward pass is some hundred small operations, each of which costs
more to call than to compute. The step here is one call over all layers, on the weights where they
lie: nothing is copied, so whatever learns between two windows is seen at once. It takes every model
of `GPT` whose weights are of the type that is computed in, on a CPU; for others, and where there is
no compiler, the plain pass runs and `why_plain` says why. In float64, where libraries are made for
others, whole windows go the same way.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from fairway.model.adapters import Adapters, Target
from fairway.model.cache import Cache
from fairway.model.gpt import GPT, Block
from fairway.model.linear import Linear
from fairway.runtime.native import explain, library

NAME = "decode"
TYPES = {torch.float32: "float32", torch.float64: "float64"}
FORMS = {"serial": 0, "shared": 1, "lanes": 2}
SMEARS = {None: 0, "v1": 1, "v2": 2}


def next_logits(
    model: GPT, tokens: Tensor, cache: Cache, adapters: Adapters | None = None
) -> Tensor:
    """Logits (B, V) after tokens (B, T), as `GPT.forward` gives them for the last one."""
    last = tokens.size(1) - 1
    return window_logits(model, tokens, start=last, cache=cache, adapters=adapters)[:, -1]


@torch.inference_mode()
def window_logits(
    model: GPT,
    tokens: Tensor,
    *,
    start: int = 0,
    cache: Cache | None = None,
    adapters: Adapters | None = None,
) -> Tensor:
    """`GPT.forward`, without derivatives: logits (B, T - start, V) of tokens (B, T).

    In C++ where that takes the model, for a single token of each row and, in float64, for any
    number. The choice depends on the model and on T alone, so encoder and decoder make the same.
    """
    few = tokens.size(1) == 1 or model.compute_dtype == torch.float64
    if not why_plain(model) and few:
        return _in_compiled(model, tokens, start, cache, adapters)
    if cache is not None:
        cache.step = None
    return model(tokens, start=start, cache=cache, adapters=adapters)


def why_plain(model: GPT) -> str:
    """Why this model is decoded by the plain forward pass; "" where it is not."""
    if model.compute_dtype not in TYPES:
        return f"it computes in {str(model.compute_dtype).removeprefix('torch.')}"
    weight = model.embed.weight
    if weight.dtype != model.compute_dtype or weight.device.type != "cpu":
        return f"its weights are {str(weight.dtype).removeprefix('torch.')} on {weight.device.type}"
    if model.training and model.parts is not None:
        return "it is being trained"
    return "" if library(NAME, tuned=True) is not None else explain(NAME, tuned=True)


def describe_step(model: GPT) -> str:
    """How one more token is computed, in words."""
    why = why_plain(model)
    return f"plain forward pass ({why})" if why else "compiled C++"


def _in_compiled(
    model: GPT, tokens: Tensor, start: int, cache: Cache | None, adapters: Adapters | None
) -> Tensor:
    rows, new = tokens.shape
    cache = model.new_cache(rows, new, num_slots=1) if cache is None else cache
    cache.require_room(new)
    step = cache.step
    made_for = (id(model), id(adapters), versions(model))
    if not isinstance(step, _Step) or step.made_for != made_for:
        step = cache.step = _Step.of(model, cache, adapters, made_for)
    shape = (rows, new - start, model.config.vocab_size)
    logits, tokens = torch.empty(shape, dtype=model.compute_dtype), tokens.contiguous()
    failed = step.function(
        step.address,
        tokens.data_ptr(),
        new,
        cache.length,
        cache.embedding is not None,
        start,
        torch.get_num_threads(),
        logits.data_ptr(),
    )
    if failed:
        raise IndexError(f"tokens {tokens.flatten().tolist()!s:.80} of {model.config.vocab_size}")
    cache.embedding = step.before
    cache.advance(new)
    return logits


_modules: "WeakKeyDictionary[GPT, list[nn.Module]]" = WeakKeyDictionary()
_narrow: "WeakKeyDictionary[GPT, tuple[object, dict[int, Tensor]]]" = WeakKeyDictionary()


def matrices(model: GPT) -> list[Tensor]:
    """What many vectors are multiplied with."""
    modules = _modules.get(model)
    if modules is None:
        linear = [module for module in model.modules() if isinstance(module, Linear)]
        modules = _modules[model] = [model.embed, *linear]
    return [module._parameters["weight"] for module in modules]  # type: ignore[misc]


def _may_be_narrow(model: GPT) -> bool:
    # What was made in inference mode does not say when it changes.
    return model.compute_dtype == torch.float64 and not model.embed.weight.is_inference()


def versions(model: GPT) -> object:
    """Changes with every matrix that is changed, where copies of them are kept."""
    if not _may_be_narrow(model):
        return None
    return [weight._version for weight in matrices(model)]


def narrow_matrices(model: GPT) -> dict[int, Tensor]:
    """The matrices of a model in float64 by id, in float32 and so in half the memory, which is what
    a step waits for; none, unless that is exact: settled weights have few bits."""
    if not _may_be_narrow(model):
        return {}
    made_for, kept = versions(model), _narrow.get(model)
    if kept is None or kept[0] != made_for:
        exact = {id(weight): weight.detach().float() for weight in matrices(model)}
        if not all(torch.equal(exact[id(w)].double(), w) for w in matrices(model)):
            exact = {}
        kept = _narrow[model] = (made_for, exact)
    return kept[1]


# What follows mirrors the structures of decode.cpp: field by field, all of eight bytes.


def _fields(**kinds: str) -> list[tuple[str, Any]]:
    ctype = {"integers": ctypes.c_int64, "numbers": ctypes.c_double, "tensors": ctypes.c_void_p}
    return [(name, ctype[kind]) for kind, names in kinds.items() for name in names.split()]


class _AdapterFields(ctypes.Structure):
    _fields_ = _fields(tensors="down up")


class _NgramFields(ctypes.Structure):
    _fields_ = _fields(integers="order buckets width", tensors="table project scale")


class _PassFields(ctypes.Structure):
    _fields_ = [
        *_fields(
            integers="form exclusive skip_from skip_to hidden gate_window",
            numbers="read_scale gate_scale slope",
            tensors="query key value output gain gate attention_scale mlp_scale mix up mlp_gate "
            "down carry route skip_weight skip_gate value_scale keys values",
        ),
        *(
            (f"on_{target}", _AdapterFields)
            for target in ("query", "key", "value", "output", "mlp")
        ),
    ]


class _ModelFields(ctypes.Structure):
    _fields_ = [
        *_fields(
            integers="rows context vocab dim embed_dim heads kv_heads head_dim rotary bos "
            "within_documents smear smear_window smear_across value_width rank num_ngrams "
            "num_passes num_skips narrow",
            numbers="softcap adapter_scale",
            tensors="embed embed_up head_down head smear_gate smear_strength value_table "
            "value_project value_scale cos sin cap_positive cap_negative tokens before",
        ),
        ("on_head", _AdapterFields),
        *_fields(tensors="ngrams passes"),
    ]


@dataclass(eq=False)
class _Step:
    """A model and a cache as the C++ sees them, from one clearing of the cache to the next."""

    made_for: object
    function: Any
    address: int
    before: Tensor  # (B, 1, E), see `Cache.embedding`; the step reads and writes it in place
    kept: list[Any]  # whatever the addresses point at

    @classmethod
    def of(cls, model: GPT, cache: Cache, adapters: Adapters | None, made_for: object) -> "_Step":
        addresses = _Addresses(model, cache, adapters)
        functions = library(NAME, tuned=True)
        assert functions is not None
        function = getattr(functions, f"{NAME}_{TYPES[model.compute_dtype]}")
        function.restype = ctypes.c_int64
        function.argtypes = [ctypes.c_void_p] * 2 + [ctypes.c_int64] * 5 + [ctypes.c_void_p]
        fields = addresses.model_fields()
        addresses.kept += [model, adapters, fields]
        return cls(made_for, function, ctypes.addressof(fields), addresses.before, addresses.kept)


class _Addresses:
    """Fills the structures, and keeps what they point at."""

    def __init__(self, model: GPT, cache: Cache, adapters: Adapters | None) -> None:
        self.model, self.cache, self.adapters = model, cache, adapters
        self.kept: list[Any] = []
        # Whoever keeps keys reads the matrices again for each token.
        self.narrow = narrow_matrices(model) if cache.keys.size(0) > 1 else {}
        shape = (cache.tokens.size(0), 1, model.embed.embedding_dim)
        before = cache.embedding
        self.before = torch.zeros(shape, dtype=model.compute_dtype)
        if before is not None:
            self.before.copy_(before)

    def of(self, tensor: Tensor | None) -> int | None:
        """Where a tensor lies, in the type that is computed in."""
        if tensor is None:
            return None
        if not tensor.is_contiguous() or tensor.dtype not in (self.model.compute_dtype, torch.long):
            raise ValueError(
                f"a weight of {tuple(tensor.shape)} is {tensor.dtype} or not contiguous, in a "
                f"model that computes in {self.model.compute_dtype}; convert the whole model"
            )
        self.kept.append(tensor)
        return tensor.data_ptr()

    def of_matrix(self, module: Linear | nn.Embedding | None) -> int | None:
        """The same of a matrix that many vectors may be multiplied with."""
        if module is None:
            return None
        if not self.narrow:
            return self.of(module.weight)
        self.kept.append(narrow := self.narrow[id(module.weight)])
        return narrow.data_ptr()

    def model_fields(self) -> _ModelFields:
        model, cache, config = self.model, self.cache, self.model.config
        attention, embedding = config.attention, config.embedding
        cos, sin = model.rope(cache.context, cache.keys)
        smear = model.smear_v1 if model.smear_v2 is None else model.smear_v2
        values, head = model.value_embed, model.head
        project = None if values is None else values.project
        passes = self._passes()
        ngrams = (_NgramFields * len(model.ngrams))(*map(self._ngram, model.ngrams))
        self.kept += [passes, ngrams]
        return _ModelFields(
            rows=cache.tokens.size(0),
            context=cache.context,
            vocab=config.vocab_size,
            dim=config.model_dim,
            embed_dim=model.embed.embedding_dim,
            heads=attention.num_heads,
            kv_heads=attention.num_kv_heads,
            head_dim=config.model_dim // attention.num_heads,
            rotary=cos.size(1),
            bos=config.bos_id,
            within_documents=attention.within_documents,
            smear=SMEARS[embedding.smear],
            smear_window=embedding.smear_window,
            smear_across=embedding.smear_across_documents,
            value_width=0 if values is None else values.table.embedding_dim,
            rank=0 if self.adapters is None else next(iter(self.adapters.down.values())).size(1),
            num_ngrams=len(ngrams),
            num_passes=len(passes),
            num_skips=model.looped_plan.num_encoder,
            narrow=bool(self.narrow),
            softcap=config.logit_softcap or 0.0,
            adapter_scale=0.0 if self.adapters is None else self.adapters.scale,
            embed=self.of(model.embed.weight),
            embed_up=self.of_matrix(model.embed_up),
            head_down=self.of_matrix(model.head_down),
            head=self.of_matrix(head or model.embed),
            smear_gate=self.of(None if smear is None else smear.gate),
            smear_strength=self.of(None if model.smear_v2 is None else model.smear_v2.strength),
            value_table=self.of(None if values is None else values.table.weight),
            value_project=self.of(None if project is None else project.weight),
            value_scale=self.of(None if values is None else values.scale),
            cos=self.of(cos),
            sin=self.of(sin),
            cap_positive=self.of(model.softcap_positive),
            cap_negative=self.of(model.softcap_negative),
            tokens=self.of(cache.tokens),
            before=self.of(self.before),
            on_head=self._adapter("head", 0),
            ngrams=ctypes.addressof(ngrams) if ngrams else None,
            passes=ctypes.addressof(passes),
        )

    def _ngram(self, table: Any) -> _NgramFields:
        return _NgramFields(
            order=table.order,
            buckets=table.buckets,
            width=table.table.embedding_dim,
            table=self.of(table.table.weight),
            project=self.of(None if table.project is None else table.project.weight),
            scale=self.of(table.scale),
        )

    def _passes(self) -> Any:
        """The blocks that run, in the order and with the skips and lanes of `GPT.hidden`."""
        model, plan = self.model, self.model.plan
        found, skips, in_lanes = [], [], False
        for slot, layer in enumerate(plan.layers):
            block, decoding = model.blocks[layer], slot >= plan.num_encoder
            assert isinstance(block, Block)
            skip = skips.pop() if decoding and skips else None
            lanes = decoding and block.form == "lanes"
            if in_lanes and not lanes:
                continue
            in_lanes |= lanes
            fields = self._pass(block, layer, slot, lanes)
            fields.skip_from = fields.skip_to = -1
            if skip is not None:
                index = slot - plan.num_encoder
                weights, gates = model.skip_weights, model.skip_gates
                assert weights is not None
                fields.skip_from = skip
                fields.skip_weight = self.of(weights[index])
                fields.skip_gate = self.of(None if gates is None else gates[index])
            if model.config.skips is not None and not decoding:
                fields.skip_to = slot
                skips.append(slot)
            found.append(fields)
        return (_PassFields * len(found))(*found)

    def _pass(self, block: Block, layer: int, slot: int, lanes: bool) -> _PassFields:
        model, attention, mlp = self.model, block.attention, block.mlp
        form = "serial" if block.form == "lanes" and not lanes else block.form
        values, value_scale = model.value_embed, None
        kept = slot % self.cache.keys.size(0)  # blocks may share one place, if nobody reads on
        if values is not None and layer in values.layers:
            value_scale = values.layer_scales[values.layers.index(layer)]
        gate, carry, route = attention.gate, model.lane_carry, model.lane_route
        targets: Sequence[Target] = ("query", "key", "value", "output", "mlp")
        return _PassFields(
            form=FORMS[form],
            exclusive=attention.exclusive,
            hidden=mlp.up.out_features,
            gate_window=0 if gate is None else gate.size(1),
            read_scale=block.read_scale,
            gate_scale=0.0 if gate is None else attention.gate_scale,
            slope=mlp.slope,
            query=self.of_matrix(attention.query),
            key=self.of_matrix(attention.key),
            value=self.of_matrix(attention.value),
            output=self.of_matrix(attention.output),
            gain=self.of(attention.gain),
            gate=self.of(gate),
            attention_scale=self.of(block.attention_scale),
            mlp_scale=self.of(block.mlp_scale),
            mix=self.of(block.residual_mix),
            up=self.of_matrix(mlp.up),
            mlp_gate=self.of_matrix(mlp.gate),
            down=self.of_matrix(mlp.down),
            carry=self.of(None if carry is None else carry[layer]),
            route=self.of(None if route is None else route[layer]),
            value_scale=self.of(value_scale),
            keys=self.of(self.cache.keys[kept]),
            values=self.of(self.cache.values[kept]),
            **{f"on_{target}": self._adapter(target, slot) for target in targets},
        )

    def _adapter(self, target: Target, slot: int) -> _AdapterFields:
        key = f"{target}_{slot}"
        if self.adapters is None or key not in self.adapters.down:
            return _AdapterFields()
        return _AdapterFields(
            down=self.of(self.adapters.down[key]), up=self.of(self.adapters.up[key])
        )
