"""The text that is scored, as one value: ids, the bytes each stands for, where documents start."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

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
    scope            in words, which part it is of what was asked for; "": all of it
    """

    tokens: Tensor
    target_bytes: Tensor
    document_starts: tuple[int, ...]
    scope: str = ""

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

    def leading(self, documents: int, why: str = "") -> "ValText":
        """Its first documents, with the BOS that ends the last of them; `scope` says so, and why.

        >>> text = ValText(torch.tensor([1, 5, 1, 6, 1]), torch.tensor([2, 0, 3, 0]), (0, 2, 4))
        >>> text.leading(1, "as a test wants it").scope
        'the first 1 of 3 documents, 40.0% of the bytes: as a test wants it'
        """
        number = len(self.document_starts)
        if documents >= number:
            return self
        part = self.first(self.document_starts[documents])
        share = int(part.target_bytes.sum()) / max(1, int(self.target_bytes.sum()))
        scope = f"the first {documents:,} of {number:,} documents, {share:.1%} of the bytes: {why}"
        return replace(part, scope=scope)

    def only(self, documents: Sequence[int]) -> "ValText":
        """A text of these documents alone, ascending, each with the BOS that ends it.

        >>> text = ValText(torch.tensor([1, 5, 1, 1, 6]), torch.tensor([2, 0, 0, 3]), (0, 2, 3))
        >>> part = text.only([0, 2])
        >>> part.tokens.tolist(), part.target_bytes.tolist(), part.document_starts
        ([1, 5, 1, 6], [2, 0, 3], (0, 2))
        """
        edges = [*self.document_starts, len(self.tokens) - 1]
        parts = [(edges[document], edges[document + 1]) for document in documents]
        end = torch.tensor([parts[-1][1]])  # the last target: a BOS, or the text's own last token
        places = torch.cat([*(torch.arange(first, last) for first, last in parts), end])
        sizes = [last - first for first, last in parts]
        starts = tuple(accumulate(sizes[:-1], initial=0))
        return ValText(self.tokens[places], self.target_bytes[places[1:] - 1], starts)
