"""A model file as one object that people can work with: what `fairway.load` returns."""

import codecs
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fairway.api.text_score import TextScore
from fairway.artifact.loaded_model import LoadedModel, load_model
from fairway.audit.model_scorer import walk
from fairway.evaluate.config import EvaluateConfig, make_predictor, plan_text
from fairway.fetch.model_file import HUB, hub_model
from fairway.generate import GenerateConfig
from fairway.generate import generate as write_bytes
from fairway.proof.compress import CompressConfig
from fairway.proof.compress import compress as compress_bytes
from fairway.proof.compress import decompress as decompress_bytes
from fairway.proof.prove import evaluation_of
from fairway.tokens.tokenizer import Tokenizer
from fairway.tokens.val_text import ValText

Text = str | bytes
Data = bytes | bytearray | memoryview


def load(source: str | Path | Data, device: torch.device | str = "cpu") -> "Model":
    """The model in a file, in the bytes of one, or at `hf://OWNER/NAME[@REVISION][/FILE]`.

    Raises ValueError naming the file and what is wrong with it. Nothing in a file is ever run.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.fwy"
            file.write_bytes(source)
            return Model(replace(load_model(file, device), path=None))
    if str(source).startswith(HUB):
        source = hub_model(str(source))
    return Model(load_model(Path(source), device))


class Model:
    """A packed model in use.

    loaded  the parts of the file: the network, its tokenizer, how it is evaluated
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded

    def __repr__(self) -> str:
        where = self.loaded.path or "bytes"
        return (
            f"<fairway model: {self.num_params:,} parameters, {self.vocab_size:,} pieces, "
            f"context {self.context:,}, from {where}>"
        )

    @property
    def tokenizer(self) -> Tokenizer:
        return self.loaded.tokenizer

    @property
    def num_params(self) -> int:
        return sum(parameter.numel() for parameter in self.loaded.model.parameters())

    @property
    def vocab_size(self) -> int:
        """Number of logits for each position, V."""
        return self.loaded.model.config.vocab_size

    @property
    def bos_id(self) -> int:
        """The id that opens every document."""
        return self.loaded.model.config.bos_id

    @property
    def context(self) -> int:
        """Tokens that a row had in training."""
        return self.loaded.model.config.train_context

    @property
    def sha256(self) -> str:
        """Of the file."""
        return self.loaded.sha256

    @property
    def evaluation(self) -> EvaluateConfig:
        """How the file says that the model is to be scored; `dataclasses.replace` changes it."""
        return evaluation_of(self.loaded)

    def encode(self, text: Text, *, bos: bool = True) -> NDArray[np.int64]:
        """Ids (n,) int64 of one document.

        text  a str stands for its UTF-8; any bytes are accepted
        bos   begin with the id that opens every document, as the model was trained
        """
        ids = self.tokenizer.encode(_bytes(text)).astype(np.int64)
        return np.concatenate(([self.bos_id], ids)) if bos else ids

    def decode(self, ids: ArrayLike | Tensor) -> bytes:
        """The bytes that ids (n,) stand for; BOS and other control ids stand for none.

        Bytes, because an id may stand for a part of a character.
        """
        tokens = self._ids(ids)
        if tokens.ndim != 1:
            raise ValueError(f"ids of shape {tuple(tokens.shape)}; decode one row (n,) at a time")
        beyond = tokens[tokens >= self.tokenizer.vocab_size]
        if len(beyond):
            raise ValueError(f"id {int(beyond[0])} is a spare one, which stands for no bytes")
        return self.tokenizer.decode(tokens.tolist())

    @torch.inference_mode()
    def logits(self, ids: ArrayLike | Tensor) -> Tensor:
        """Logits (n, V) or (rows, n, V) float32 of the token after each of ids (n,) or (rows, n).

        Rows are independent of each other. They are read as they are: begin each with `bos_id`, as
        `encode` does, unless it is the middle of a text. All n are read at once, so memory grows
        with n; beyond `context` the model sees more than it was trained on.
        """
        tokens = self._ids(ids)
        if tokens.ndim not in (1, 2) or not tokens.numel():
            raise ValueError(f"ids of shape {tuple(tokens.shape)}; give (n,) or (rows, n), n >= 1")
        rows = tokens if tokens.ndim == 2 else tokens[None]
        found = self.loaded.model(rows.to(self.loaded.model.embed.weight.device)).float()
        return found if tokens.ndim == 2 else found[0]

    def score(
        self,
        text: Text | Iterable[Text],
        *,
        learn: bool = True,
        evaluate: EvaluateConfig | None = None,
        seed: int = 0,
    ) -> TextScore:
        """What the text costs under the model, scored as its file says.

        text      one document, or several
        learn     learn from what was already scored, where the file says so; False: frozen, over
                  the same windows
        evaluate  another evaluation than the file's, for example `replace(model.evaluation, ...)`
        seed      decides the initial weights of adapters; without adapters nothing is random

        Raises ValueError where there is no byte to score.
        """
        documents = [text] if isinstance(text, str | bytes | bytearray) else list(text)
        read = ValText.of_documents(map(_bytes, documents), self.tokenizer)
        if not int(read.target_bytes.sum()):
            raise ValueError("there is no byte to score in this text")
        config = (evaluate or self.evaluation).resolved(self.context)
        if not learn:
            config = config.frozen()
        predictor = make_predictor(self.loaded.model, config, seed=seed)
        nats = walk(predictor, plan_text(config, read), read)
        return TextScore(
            tokens=read.tokens[1:].numpy(),
            token_bits=(nats / np.log(2)).numpy(),
            token_bytes=read.target_bytes.numpy(),
            learned=config.learns,
        )

    def generate(
        self, prompt: Text = "", config: GenerateConfig | None = None, **settings: Any
    ) -> Iterator[str]:
        """What the model adds to the prompt, in pieces as they come: `"".join(...)` is all of it.

        config    how the tokens are drawn
        settings  the same by name: num_tokens, temperature, top_k, top_p, min_p,
                  repetition_penalty, stop, seed, context

        Bytes that are no UTF-8 come as U+FFFD; `fairway.generate.generate` yields the bytes.
        """
        config = replace(config or GenerateConfig(), **settings)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")

        def pieces() -> Iterator[str]:
            for data in write_bytes(self.loaded, _bytes(prompt), config):
                if piece := decoder.decode(data):
                    yield piece
            if piece := decoder.decode(b"", final=True):
                yield piece

        return pieces()

    def compress(self, data: Data, config: CompressConfig | None = None) -> bytes:
        """Any bytes in fewer bytes; see `fairway compress`.

        Raises ValueError where the model's tokenizer cannot give back all bytes.
        """
        return compress_bytes(self.loaded, bytes(memoryview(data)), config)

    def decompress(self, data: Data) -> bytes:
        """Inverse of `compress`. Raises ValueError, and never returns wrong bytes."""
        return decompress_bytes(self.loaded, bytes(memoryview(data)))

    def _ids(self, ids: ArrayLike | Tensor) -> Tensor:
        """Any integers as int64; ValueError where one is no id of this model."""
        given = ids if isinstance(ids, Tensor) else torch.from_numpy(_integers(ids))
        if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
            raise ValueError(f"ids of type {given.dtype}; token ids are integers")
        tokens = given.to("cpu", torch.int64)
        wrong = tokens[(tokens < 0) | (tokens >= self.vocab_size)]
        if len(wrong):
            raise ValueError(
                f"{int(wrong[0])} is no id of this model; they go from 0 to {self.vocab_size - 1}"
            )
        return tokens


def _integers(ids: ArrayLike) -> NDArray[np.int64]:
    found = np.asarray(ids)
    if found.size == 0:
        return found.astype(np.int64)
    if found.dtype.kind not in "iu":
        raise ValueError(f"ids of type {found.dtype}; token ids are integers")
    if found.dtype == np.uint64 and found.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{found.max()} is no id of this model")
    return found.astype(np.int64)


def _bytes(text: Text) -> bytes:
    if isinstance(text, bytes | bytearray):
        return bytes(text)
    if not isinstance(text, str):
        raise ValueError(f"a text is str or bytes, and not {type(text).__name__}")
    return text.encode("utf-8", "surrogateescape")
