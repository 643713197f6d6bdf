"""The forward pass behind the interface of the Hugging Face library: `generate()`, cache, loss."""

from dataclasses import fields
from typing import Any

from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from fairway.artifact.config_json import config_from_json
from fairway.hugging_face.configuration_fairway import FairwayConfig
from fairway.model.cache import Cache
from fairway.model.gpt import GPT
from fairway.model.model_config import ModelConfig

# The library calls it `cache` since 5.20, and called it `past_key_values` before.
CACHE = (
    "cache" if "cache" in {f.name for f in fields(CausalLMOutputWithPast)} else "past_key_values"
)


class FairwayForCausalLM(PreTrainedModel, GenerationMixin):
    """A causal language model; rows begin with BOS and are equally long.

    The cache holds as many tokens as a row had in training. Where a text outgrows it, the reading
    starts afresh from the newest half.
    """

    config_class = FairwayConfig
    main_input_name = "input_ids"
    _is_stateful = True  # its cache cannot be rolled back, which assisted generation would need

    def __init__(self, config: FairwayConfig) -> None:
        super().__init__(config)
        self.model = GPT(config_from_json(ModelConfig, config.model))
        self.model.loops_active = config.loops_active
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: the model initialized itself, and files hold every weight."""

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    def get_input_embeddings(self) -> nn.Module:
        return self.model.embed

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        return_dict: bool | None = None,
        **others: Any,
    ) -> CausalLMOutputWithPast | tuple:
        """Logits (B, T, V) float32 for ids (B, T).

        cache   what an earlier call with use_cache=True gave; also under its older name
        labels  (B, T): the loss is the mean nats of labels[:, 1:]; -100 is left out

        Raises ValueError for rows of unequal lengths: read them one at a time.
        """
        if attention_mask is not None and not bool(attention_mask.all()):
            raise ValueError(
                "attention_mask leaves tokens out; this model reads rows of equal lengths, so give "
                "texts of different lengths one at a time"
            )
        cache = _cache_among(others)
        if use_cache and cache is None:
            rows, context = input_ids.size(0), self.model.config.train_context
            cache = self.model.new_cache(rows, max(context, input_ids.size(1)))
        logits = self.model(input_ids, cache=cache)
        loss = None
        if labels is not None:
            loss = nn.functional.cross_entropy(
                logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100
            )
        if return_dict is False:
            return tuple(part for part in (loss, logits, cache) if part is not None)
        kept: dict[str, Any] = {CACHE: cache}
        return CausalLMOutputWithPast(loss=loss, logits=logits, **kept)

    def prepare_inputs_for_generation(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        use_cache: bool | None = None,
        **others: Any,
    ) -> dict[str, Any]:
        """The tokens that the cache has not seen; the newest half of all where it is full."""
        cache = _cache_among(others)
        if cache is None:
            new = input_ids[:, -self.model.config.train_context :]
        elif cache.length == cache.context:
            cache.clear()
            new = input_ids[:, -(cache.context // 2) :]
        else:
            new = input_ids[:, -1:]
        return {
            "input_ids": new,
            "attention_mask": attention_mask,
            "use_cache": use_cache,
            CACHE: cache,
        }

    def _reorder_cache(self, cache: Cache, beam_idx: Tensor) -> Cache:
        """Rows as beam search chose them."""
        cache.keys, cache.values = cache.keys[:, beam_idx], cache.values[:, beam_idx]
        cache.tokens = cache.tokens[beam_idx]
        if cache.embedding is not None:
            cache.embedding = cache.embedding[beam_idx]
        return cache


def _cache_among(arguments: dict[str, Any]) -> Cache | None:
    given = [arguments.get(name) for name in ("cache", "past_key_values")]
    return next((cache for cache in given if isinstance(cache, Cache)), None)
