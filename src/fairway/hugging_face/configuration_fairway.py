"""What a model is made of, as the Hugging Face library keeps it: `config.json`."""

from typing import Any

from transformers import PretrainedConfig


class FairwayConfig(PretrainedConfig):
    """
    model         the model's own config, as JSON
    loops_active  whether its looped blocks repeat
    """

    model_type = "fairway"

    def __init__(
        self, model: dict[str, Any] | None = None, loops_active: bool = True, **others: Any
    ) -> None:
        self.model, self.loops_active = dict(model or {}), loops_active
        if self.model:  # under the names that other tools look for
            attention = self.model["attention"]
            self.vocab_size = self.model["vocab_size"]
            self.hidden_size = self.model["model_dim"]
            self.num_hidden_layers = self.model["num_layers"]
            self.num_attention_heads = attention["num_heads"]
            self.num_key_value_heads = attention["num_kv_heads"]
            self.max_position_embeddings = self.model["train_context"]
            bos_id = self.model["bos_id"]  # ends a document too: the next one begins
            others = {"bos_token_id": bos_id, "eos_token_id": bos_id} | others
        super().__init__(**others)
