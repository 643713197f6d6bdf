"""The model's own tokenizer behind the interface of the Hugging Face library: exact bytes back."""

import codecs
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from transformers import PreTrainedTokenizer

from fairway.tokens.tokenizer import PAD, load_tokenizer, piece_decoder

FILE = "tokenizer.fairway"


class FairwayTokenizer(PreTrainedTokenizer):
    """Text to ids and back, a BOS before it. A text that spells a special token stays text."""

    vocab_files_names: ClassVar = {"vocab_file": FILE}
    model_input_names: ClassVar = ["input_ids", "attention_mask"]

    def __init__(self, vocab_file: str, **others: Any) -> None:
        self.vocab_file = vocab_file
        self.inner = load_tokenizer(Path(vocab_file))
        size = self.inner.vocab_size
        self.names = [self._name(token) for token in range(size)]
        self.ids = {name: token for token, name in enumerate(self.names)}
        bos, pad = self.names[self.inner.bos_id], self.names[PAD]
        named = {"bos_token": bos, "eos_token": bos, "pad_token": pad, "split_special_tokens": True}
        super().__init__(**(named | others))

    def _name(self, token: int) -> str:
        """Of an id: its bytes as Latin-1, which no other id may share, so with its number."""
        return f"<{token}:{self.inner.decode([token]).decode('latin-1')}>"

    @property
    def vocab_size(self) -> int:
        return self.inner.vocab_size

    def get_vocab(self) -> dict[str, int]:
        return dict(self.ids)

    def _tokenize(self, text: str, **others: Any) -> list[str]:
        ids = self.inner.encode(text.encode("utf-8", "surrogateescape"))
        return [self.names[token] for token in ids.tolist()]

    def _convert_token_to_id(self, token: str) -> int:
        return self.ids[token]

    def _convert_id_to_token(self, index: int) -> str:
        return self.names[index]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return self.inner.decode(self.ids[token] for token in tokens).decode("utf-8", "replace")

    def stream_decoder(self, before: Sequence[int] = ()) -> Callable[[int | None], str]:
        """One id after another to the text that it adds; None for what was still held.

        before  ids that were read already: their capitals, and the character they may end in the
                middle of, go on

        `decode` of single ids cannot know what came before them: where capitals are operators of
        their own, or a character has several ids, it gives other text than they do together.
        """
        add = piece_decoder(self.inner, before)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        decoder.decode(self.inner.decode(before))

        def step(token: int | None) -> str:
            return decoder.decode(add(token), token is None)

        return step

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """Each text is a document of its own, opened by a BOS."""
        bos = [self.inner.bos_id]
        return bos + token_ids_0 + ([] if token_ids_1 is None else bos + token_ids_1)

    def save_vocabulary(
        self, save_directory: str, filename_prefix: str | None = None
    ) -> tuple[str]:
        target = Path(save_directory) / f"{filename_prefix or ''}{FILE}"
        if target.resolve() != Path(self.vocab_file).resolve():
            shutil.copyfile(self.vocab_file, target)
        return (str(target),)
