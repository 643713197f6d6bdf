"""What a model is made of: sizes, and the optional parts with their settings."""

from dataclasses import dataclass, field
from typing import Literal

from fairway.model.attention import AttentionConfig
from fairway.model.depth import MOST_LAYERS, Loop
from fairway.model.embedding import EmbeddingConfig
from fairway.model.mlp import MlpConfig
from fairway.runtime.limits import require_within


@dataclass(frozen=True, kw_only=True)
class SkipConfig:
    """Outputs of the first half, added to the mirrored layers of the second (U-Net)."""

    gated: bool = False  # sigmoid gates between skip and stream (#1089, #1394)


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """Attention and MLP side by side from layer `start` on.

    shared  both read the block's input (GPT-J; #1412, #1493)
    lanes   each has its own stream, with learned routing between them, where these layers run in
            the second half (#1529, #1855)
    """

    start: int  # number of the first such layer, counted from 0
    form: Literal["shared", "lanes"] = "shared"  # what the two read: see above


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    vocab_size: int  # number of token ids; must equal tokens.vocab_size
    model_dim: int  # width of the residual stream, in channels
    num_layers: int  # number of blocks; one that runs several times counts once
    attention: AttentionConfig
    mlp: MlpConfig = field(default_factory=MlpConfig)
    embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
    train_context: int = 1024  # tokens; for longer inputs rotary angles are stretched
    skips: SkipConfig | None = None
    loop: Loop | None = None
    parallel: ParallelConfig | None = None
    residual_mix: bool = True  # each block reads a learned mix of the stream and the first input
    layer_scale: bool = False  # layer n reads its input damped by 1/sqrt(n + 1) (#315)
    logit_softcap: float | None = 30.0  # logits x become c * tanh(x / c); None: as they are
    # scoring caps positive and other logits by a number each, that begins as `logit_softcap`
    # (#1923); the loss of training knows only that, so nothing ever moves the two
    asymmetric_softcap: bool = False
    tied: bool = True  # head and embedding are one matrix
    init: Literal["orthogonal", "uniform"] = "orthogonal"  # how matrices of the blocks start
    bos_id: int = 1  # token id that begins every document
    # number of tokens beyond the next that training predicts, too (#390); never shipped
    extra_heads: int = 0
    extra_heads_weight: float = 0.2  # weight of their loss, beside 1 for the next token

    def __post_init__(self) -> None:
        if self.logit_softcap is not None and self.logit_softcap <= 0:
            raise ValueError(f"logit_softcap={self.logit_softcap}; use None for no cap")
        if self.asymmetric_softcap and self.logit_softcap is None:
            raise ValueError(
                "asymmetric_softcap begins as logit_softcap, which is None; give a number"
            )
        require_within(
            self,
            vocab_size=(2, 1 << 20),
            model_dim=(1, 1 << 16),
            num_layers=(1, MOST_LAYERS),
            train_context=(1, 1 << 24),
            logit_softcap=(1e-3, 1e6),
            bos_id=(0, self.vocab_size - 1),
            extra_heads=(0, 64),
            extra_heads_weight=(-1e3, 1e3),
        )
        self._check_widths()
        self._check_layers()

    def _check_widths(self) -> None:
        head_dim = self.model_dim // self.attention.num_heads
        if head_dim % 2:
            raise ValueError(f"head width {head_dim} is odd; rotary channels come in pairs")
        if (self.attention.rope_dims or 0) > head_dim:
            raise ValueError(f"rope_dims={self.attention.rope_dims} exceeds head width {head_dim}")
        if int(self.mlp.ratio * self.model_dim) < 1:
            raise ValueError(f"mlp.ratio={self.mlp.ratio} of width {self.model_dim} is nothing")

    def _check_layers(self) -> None:
        if self.attention.exclusive_layers > self.num_layers:
            raise ValueError(
                f"exclusive_layers={self.attention.exclusive_layers} of {self.num_layers} layers"
            )
        if self.loop is not None and self.loop.last >= self.num_layers:
            raise ValueError(f"loop ends at layer {self.loop.last} of {self.num_layers}")
        if self.loop is not None:
            once = self.loop.last + 1 - self.loop.first
            if self.num_layers + once * self.loop.extra_passes > MOST_LAYERS:
                raise ValueError(f"more than {MOST_LAYERS} layers run, looped ones counted")
        if self.parallel is not None:
            require_within(self.parallel, start=(0, MOST_LAYERS))
        value = self.embedding.value
        if value is not None and not all(0 <= n < self.num_layers for n in value.layers):
            raise ValueError(f"value embedding in layers {value.layers!s:.80} of {self.num_layers}")
