"""The text that is scored, as one value: ids, the bytes each stands for, where documents start."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fairway.tokens.byte_count import byte_table
from fairway.tokens.shards import DataFolder
from fairway.tokens.tokenizer import Tokenizer


@dataclass(frozen=True, eq=False)
class ValText:
    """A stream of token ids that is to be scored.

    tokens           (n,) int64; the first one is given, all others are targets
    target_bytes     (n - 1,) int64: bytes of the original text that tokens[1:] stand for
    document_starts  positions of each document's BOS, ascending
    """

    tokens: Tensor
    target_bytes: Tensor
    document_starts: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.target_bytes) != max(0, len(self.tokens) - 1):
            raise ValueError(
                f"{len(self.target_bytes)} byte counts for {len(self.tokens)} tokens; every token "
                f"but the first is a target and needs one"
            )

    @classmethod
    def of(cls, data: DataFolder, num_tokens: int | None = None) -> "ValText":
        """The validation text of a data folder: all of it, or its first `num_tokens` tokens."""
        tokens = data.val[:num_tokens].astype(np.int64)
        starts = np.flatnonzero(tokens == data.tokenizer.bos_id).tolist()
        counts = torch.from_numpy(data.byte_counts("val"))[: max(0, len(tokens) - 1)]
        return cls(torch.from_numpy(tokens), counts, tuple(starts))

    @classmethod
    def of_documents(cls, documents: Iterable[bytes], tokenizer: Tokenizer) -> "ValText":
        """Documents that lie in no data folder, each opened by a BOS, in the order given."""
        ids = [
            np.concatenate(([tokenizer.bos_id], tokenizer.encode(document)))
            for document in documents
        ]
        tokens = np.concatenate([np.zeros(0, np.int64), *ids]).astype(np.int64)
        starts = np.flatnonzero(tokens == tokenizer.bos_id).tolist()
        counts = torch.from_numpy(byte_table(tokenizer).target_bytes(tokens))
        return cls(torch.from_numpy(tokens), counts, tuple(starts))

    @property
    def num_targets(self) -> int:
        return len(self.target_bytes)

    def first(self, num_targets: int) -> "ValText":
        """Its beginning, of at most `num_targets` targets."""
        size = num_targets + 1
        starts = tuple(start for start in self.document_starts if start < size)
        return ValText(self.tokens[:size], self.target_bytes[: size - 1], starts)
