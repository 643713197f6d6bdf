"""The one forward pass: ids to logits, for training, scoring, test-time training and decoding.

Block, then model. Optional parts are modules that exist or do not. The sizes are in
`model_config.py`; a block attends with `attention.py` and transforms each position with `mlp.py`,
and what enters the first block is in `embedding.py`.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from fairway.model.adapters import Adapters, Target, add_delta
from fairway.model.attention import CausalSelfAttention, RopeTables, document_mask
from fairway.model.cache import Cache
from fairway.model.depth import DepthPlan, depth_plan
from fairway.model.embedding import NgramTable, SmearV1, SmearV2, ValueEmbedding
from fairway.model.linear import Linear
from fairway.model.mlp import MLP
from fairway.model.model_config import ModelConfig
from fairway.model.segments import Parts, Segments, neighbour_mask, places_in_parts
from fairway.runtime.device import send
from fairway.runtime.kernels import (
    linear,
    mix_norm,
    rms_norm,
    scaled_cast,
    softcapped_cross_entropy,
    widened,
)


class Lanes(NamedTuple):
    second: Tensor  # (B, T, D): what the MLP reads; attention reads the first lane
    carry: Tensor  # (2,): how much of itself each lane keeps
    route: Tensor  # (2, 2): [from attention, from the MLP][to lane]


class Block(nn.Module):
    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        dim = config.model_dim
        exclusive = layer >= config.num_layers - config.attention.exclusive_layers
        self.attention = CausalSelfAttention(dim, config.attention, exclusive=exclusive)
        self.mlp = MLP(dim, config.mlp)
        self.attention_scale = nn.Parameter(torch.ones(dim))
        self.mlp_scale = nn.Parameter(torch.ones(dim))
        self.residual_mix = None
        if config.residual_mix:
            self.residual_mix = nn.Parameter(torch.tensor([[1.0] * dim, [0.0] * dim]))
        # Late blocks refine rather than rewrite: they read a damped copy of the stream.
        self.read_scale = (layer + 1) ** -0.5 if config.layer_scale else 1.0
        parallel = config.parallel is not None and layer >= config.parallel.start
        self.form = config.parallel.form if config.parallel is not None and parallel else "serial"

    def read(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.read_scale)

    def run_mlp(self, x: Tensor, slot: int, adapters: Adapters | None) -> Tensor:
        """The MLP's output for what it reads, which `read` made of a stream."""
        return add_delta(self.mlp(x, self.mlp_scale), adapters, "mlp", slot, x, self.mlp_scale)

    def forward(
        self,
        x: Tensor,
        lanes: Lanes | None,
        first: Tensor,
        *,
        rope: tuple[Tensor, Tensor],
        start: int,
        mask: Tensor | None,
        value_embedding: Tensor | None,
        cache: Cache | None,
        slot: int,
        adapters: Adapters | None,
    ) -> tuple[Tensor, Tensor | None]:
        """One block over x (B, T, D) -> the streams (B, T - start, D) from `start` on.

        lanes  the MLP's own stream and how the two are joined, where there are two
        first  (B, T, D), the first block's input, which every block may mix in

        All others as `CausalSelfAttention.forward` takes them.
        """
        if self.residual_mix is None:
            mixed, read = x, self.read(x)
        else:
            mixed, read = mix_norm(x, first, self.residual_mix, self.read_scale)
        attn_out = self.attention(
            read,
            rope,
            start=start,
            mask=mask,
            value_embedding=value_embedding,
            output_scale=self.attention_scale,
            cache=cache,
            slot=slot,
            adapters=adapters,
        )
        x, mixed = x[:, start:], mixed[:, start:]
        if self.form == "shared":
            return mixed + attn_out + self.run_mlp(read[:, start:], slot, adapters), None
        if lanes is None:
            x, read = mix_norm(mixed, attn_out, scale=self.read_scale)
            return x + self.run_mlp(read, slot, adapters), None
        lane = lanes.second[:, start:]
        mlp_out = self.run_mlp(self.read(lane), slot, adapters)
        carry, route = lanes.carry.to(x.dtype), lanes.route.to(x.dtype)
        return (
            carry[0] * x + route[0, 0] * attn_out + route[1, 0] * mlp_out,
            carry[1] * lane + route[0, 1] * attn_out + route[1, 1] * mlp_out,
        )


class GPT(nn.Module):
    """A causal language model of the lineage from #1 to #1855.

    compute_dtype  type of the activations; weights stay float32, or are float64 with them
    loops_active   whether the looped blocks repeat; training switches it on part of the way
    parts          how training attends to one long row; None: as the config says
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype = torch.float32
        self.loops_active = True
        self.parts: Parts | None = None
        dim, attention = config.model_dim, config.attention
        embed_dim = config.embedding.dim or dim
        self.embed = nn.Embedding(config.vocab_size, embed_dim)
        narrow = embed_dim != dim
        self.embed_up = Linear(embed_dim, dim) if narrow else None
        self.head_down = Linear(dim, embed_dim) if narrow else None
        self.ngrams = nn.ModuleList(NgramTable(n, embed_dim) for n in config.embedding.ngrams)
        smear = config.embedding.smear
        if smear == "v2" and config.embedding.smear_window > embed_dim:
            raise ValueError(f"smear_window={config.embedding.smear_window} of width {embed_dim}")
        self.smear_v1 = SmearV1(embed_dim) if smear == "v1" else None
        self.smear_v2 = SmearV2(config.embedding.smear_window) if smear == "v2" else None
        self.kv_dim = attention.num_kv_heads * (dim // attention.num_heads)
        value = config.embedding.value
        self.value_embed = ValueEmbedding(value, config.vocab_size, self.kv_dim) if value else None

        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.num_layers))
        self.looped_plan = depth_plan(config.num_layers, config.loop)
        self.single_plan = depth_plan(config.num_layers, None)
        self.skip_weights = self.skip_gates = None
        if config.skips is not None:
            self.skip_weights = nn.Parameter(torch.ones(self.looped_plan.num_skips, dim))
            if config.skips.gated:
                self.skip_gates = nn.Parameter(torch.zeros(self.looped_plan.num_skips, dim))
        self.lane_carry = self.lane_route = None
        if config.parallel is not None and config.parallel.form == "lanes":
            self.lane_carry = nn.Parameter(torch.full((config.num_layers, 2), 1.1))
            self.lane_route = nn.Parameter(torch.ones(config.num_layers, 2, 2))
        # Buffers, not parameters: no optimizer may find them (`ModelConfig.asymmetric_softcap`).
        self.softcap_positive: Tensor | None
        self.softcap_negative: Tensor | None
        for sign in ("positive", "negative"):
            begins = torch.tensor(config.logit_softcap) if config.asymmetric_softcap else None
            self.register_buffer(f"softcap_{sign}", begins)
        self.final_norm = nn.Identity()  # a place to look: its output is what the head reads
        self.head = None if config.tied else Linear(embed_dim, config.vocab_size)
        self.extra_heads = nn.ModuleList(
            Linear(embed_dim, config.vocab_size) for _ in range(config.extra_heads)
        )
        self.rope = RopeTables(attention, dim // attention.num_heads, config.train_context)
        self._initialize()

    @torch.no_grad()
    def _initialize(self) -> None:
        config = self.config
        nn.init.normal_(self.embed.weight, std=config.embedding.init_std if config.tied else 1.0)
        for name, module in self.named_modules():
            if not isinstance(module, Linear):
                continue
            # Blocks start as the identity, heads as the uniform distribution.
            if name.endswith(("attention.output", "mlp.down", "head")) or name.startswith(
                "extra_heads."
            ):
                nn.init.zeros_(module.weight)
            elif config.init == "orthogonal":
                # What is added to the stream beside the blocks' outputs is damped by their number.
                damped = (2 * config.num_layers) ** -0.5 if name.endswith(".project") else 1.0
                nn.init.orthogonal_(module.weight, gain=damped)
        for table, settings in zip(self.ngrams, config.embedding.ngrams, strict=True):
            # A zero table under a zero projection would never receive a gradient.
            assert isinstance(table, NgramTable)
            if settings.starts_at_zero == "projection" and table.project is not None:
                nn.init.zeros_(table.project.weight)
                nn.init.normal_(table.table.weight, std=config.embedding.init_std)

    @property
    def plan(self) -> DepthPlan:
        return self.looped_plan if self.loops_active else self.single_plan

    def new_cache(self, rows: int, context: int, num_slots: int | None = None) -> Cache:
        """An empty cache for `rows` sequences of at most `context` tokens decoded in step.

        num_slots  None: one for each block that runs
        """
        attention = self.config.attention
        return Cache(
            num_slots=num_slots or len(self.plan.layers),
            rows=rows,
            context=context,
            num_kv_heads=attention.num_kv_heads,
            head_dim=self.config.model_dim // attention.num_heads,
            dtype=self.compute_dtype,
            device=self.embed.weight.device,
        )

    def adapter_dims(self) -> dict[Target, tuple[int, int]]:
        """Input and output width of each projection that an adapter can sit on."""
        dim, kv_dim = self.config.model_dim, self.kv_dim
        return {
            "query": (dim, dim),
            "key": (dim, kv_dim),
            "value": (dim, kv_dim),
            "output": (dim, dim),
            "mlp": (dim, dim),
            "head": (self.embed.embedding_dim, self.config.vocab_size),
        }

    def hidden(
        self,
        tokens: Tensor,
        *,
        start: int = 0,
        cache: Cache | None = None,
        adapters: Adapters | None = None,
        segments: Segments | None = None,
    ) -> Tensor:
        """What the head reads: (B, T - start, E) for token ids (B, T).

        start     first position whose output is wanted; the last block computes only those
        cache     keys and values of the tokens before these, extended by this call
        adapters  low-rank additions to the projections, one set per row
        segments  parts of the only row that attention keeps apart -> (S, L, E), their padding
                  included; the model's own rule about documents does not apply then
        """
        new = tokens.size(1)
        seen = tokens if cache is None else cache.remember(tokens)
        x = self._embed(seen, new, cache)  # (B, T, D)
        values = {} if self.value_embed is None else self.value_embed(tokens, x.dtype)
        if segments is not None:
            x = segments.take(x)
            values = {layer: segments.take(value) for layer, value in values.items()}
        rope = self.rope(x.size(1) if cache is None else cache.context, x)
        within = self.config.attention.within_documents and segments is None
        opens = seen == self.config.bos_id
        if self.parts is not None and self.training:
            places = places_in_parts(opens[0], self.parts.longest)
            cos, sin = self.rope(self.parts.block, x)
            rope, mask = (cos[places], sin[places]), neighbour_mask(places, self.parts.block)
        else:
            mask = document_mask(opens, new) if within else None

        plan, first, lane = self.plan, x, None
        skips: list[Tensor] = []
        for slot, layer in enumerate(plan.layers):
            block, decoding = self.blocks[layer], slot >= plan.num_encoder
            skip = skips.pop() if decoding and skips else None
            lanes = None
            if decoding and block.form == "lanes":
                lane = x if lane is None else lane  # without the skip, which joins the first lane
                assert self.lane_carry is not None
                assert self.lane_route is not None
                lanes = Lanes(lane, self.lane_carry[layer], self.lane_route[layer])
            elif lane is not None:
                continue  # once the lanes have begun nothing reads a single stream (#1855)
            if skip is not None:
                x = self._join_skip(x, skip, slot - plan.num_encoder)
            cut = start if slot == len(plan.layers) - 1 else 0
            x, lane = block(
                x,
                lanes,
                first,
                rope=rope,
                start=cut,
                mask=mask if mask is None else mask[:, cut:],
                value_embedding=values.get(layer),
                cache=cache,
                slot=slot,
                adapters=adapters,
            )
            if self.config.skips is not None and not decoding:
                skips.append(x)
        if lane is not None:
            x = 0.5 * (x + lane)
        if cache is not None:
            cache.advance(new)
        x = rms_norm(x)
        if self.head_down is not None:
            x = self.head_down(x)
        return self.final_norm(x)

    def forward(
        self,
        tokens: Tensor,
        *,
        start: int = 0,
        cache: Cache | None = None,
        adapters: Adapters | None = None,
    ) -> Tensor:
        """Next-token logits (B, T - start, V), float32 or wider, for token ids (B, T); see
        `hidden`."""
        x = self.hidden(tokens, start=start, cache=cache, adapters=adapters)
        logits = widened(add_delta(self._project(x), adapters, "head", 0, x))
        cap: float | Tensor | None = self.config.logit_softcap
        if self.softcap_positive is not None and self.softcap_negative is not None:
            cap = torch.where(logits > 0, self.softcap_positive, self.softcap_negative)
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def loss(
        self, tokens: Tensor, targets: Tensor, adapters: Adapters | None = None, start: int = 0
    ) -> Tensor:
        """Mean cross entropy in nats of targets (B, T), from position `start` on.

        With extra heads, head n predicts the token n + 1 further on (#390), weighted beside it.
        """
        x = self.hidden(tokens, start=start, adapters=adapters)
        cap = self.config.logit_softcap
        logits = add_delta(self._project(x), adapters, "head", 0, x)
        targets = targets[:, start:]
        loss = softcapped_cross_entropy(logits.flatten(0, 1), targets.flatten(), cap)
        if not self.training:
            return loss
        for ahead, head in enumerate(self.extra_heads, start=1):
            logits = head(x[:, :-ahead]).flatten(0, 1)
            further = softcapped_cross_entropy(logits, targets[:, ahead:].flatten(), cap)
            loss = loss + self.config.extra_heads_weight * further / len(self.extra_heads)
        return loss

    def packed_nats(self, tokens: Tensor, targets: Tensor, segments: Segments) -> Tensor:
        """Sum of the nats of one row's targets (T,) that lie in `segments`, as `loss` counts them.

        tokens  (T,)
        """
        # Where they are is known on the host: a mask would be waited for.
        rows, columns = (send(i, tokens.device) for i in segments.own.nonzero(as_tuple=True))
        x = self.hidden(tokens[None], segments=segments)[rows, columns]
        targets = targets[send(segments.places[segments.own], tokens.device)]
        cap = self.config.logit_softcap
        return softcapped_cross_entropy(self._project(x), targets, cap) * len(targets)

    def shipped_state_dict(self) -> dict[str, Tensor]:
        """The weights that go into the artifact: all but the extra heads, as float32."""
        return {
            name: tensor.detach().float()
            for name, tensor in self.state_dict().items()
            if not name.startswith("extra_heads.")
        }

    def _project(self, x: Tensor) -> Tensor:
        weight = self.embed.weight if self.head is None else self.head.weight
        return linear(x, scaled_cast(weight, None, x))

    def _embed(self, seen: Tensor, new: int, cache: Cache | None) -> Tensor:
        tokens = seen[:, seen.size(1) - new :]
        before = None if cache is None else cache.embedding
        x = self.embed(tokens).to(self.compute_dtype)
        for table in self.ngrams:
            x = x + table(seen, new, x.dtype)
        raw = x[:, -1:]
        if self.smear_v2 is not None:
            across = self.config.embedding.smear_across_documents
            x = self.smear_v2(x, before, (tokens != self.config.bos_id) | across)
        x = rms_norm(x)
        if self.smear_v1 is not None:
            raw = x[:, -1:]
            x = self.smear_v1(x, before)
        if cache is not None:
            cache.embedding = raw.detach()
        return x if self.embed_up is None else self.embed_up(x)

    def _join_skip(self, x: Tensor, skip: Tensor, index: int) -> Tensor:
        assert self.skip_weights is not None
        skip = self.skip_weights[index].to(x.dtype) * skip
        if self.skip_gates is None:
            return x + skip
        return torch.lerp(skip, x, torch.sigmoid(self.skip_gates[index].to(x.dtype)))
