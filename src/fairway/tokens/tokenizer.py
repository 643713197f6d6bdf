"""Documents of bytes to token ids and back.

Tokenizers that we train give back the exact bytes of any document. Those published by the field
normalise the text first (`lossless` is False), so what they decode to is what can be scored.
How many bytes an id is worth is in `byte_count.py`.
"""

import io
import json
import lzma
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import sentencepiece
from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2

from fairway.runtime.files import read_file
from fairway.runtime.limits import one_line
from fairway.runtime.strict_json import parse_json
from fairway.tokens.caseops import OPERATORS, CaseDecoder, decode_case, encode_case

schema: Any = sentencepiece_model_pb2  # protobuf makes its classes at run time
PAD, BOS, EOS, UNK = range(4)
BOUNDARY = "\u2581"  # what SentencePiece writes for a blank
MAGIC = b"FWYT1"
NUM_SPECIAL = 4
MOST_PIECES = 2**16 - 256 - NUM_SPECIAL  # ids are 16 bits wide
MOST_BYTES = 1 << 23  # of a tokenizer's file, or of its list of pieces; published ones have 0.4 MB
MOST_PIECE = 1024  # characters of a piece; the library's trainer makes 16 unless told otherwise
LZMA_MEMORY = 1 << 27  # bytes; to decompress what preset 9 made takes half of it
# Bytes that SentencePiece cannot carry through unchanged: what is no UTF-8, a literal boundary
# mark (it would come back as a blank), and the control characters it drops or splits at.
FOREIGN = re.compile("[\udc80-\udcff\u2581\0]")
FOREIGN_OR_BLANK = re.compile("[\udc80-\udcff\u2581\0 ]")


class Tokenizer(Protocol):
    vocab_size: int
    bos_id: int
    kind: str
    lossless: bool

    @property
    def transform(self) -> str | None:
        """What is done to text before it is cut into pieces, and undone after; None: nothing."""
        ...

    def encode(self, document: bytes) -> np.ndarray:
        """Ids (n,) uint16 of one document, without a BOS."""
        ...

    def decode(self, tokens: Iterable[int]) -> bytes:
        """The bytes that ids stand for; BOS and other control ids stand for none."""
        ...

    def to_bytes(self) -> bytes:
        """All that `load_tokenizer` needs, small: it is counted under the artifact's cap."""
        ...


class ByteTokenizer:
    """The field's byte260: four special ids, then the 256 byte values."""

    vocab_size, bos_id, kind, lossless = 256 + NUM_SPECIAL, BOS, "bytes", True
    transform = None

    def encode(self, document: bytes) -> np.ndarray:
        return np.frombuffer(document, np.uint8).astype(np.uint16) + NUM_SPECIAL

    def decode(self, tokens: Iterable[int]) -> bytes:
        return bytes(token - NUM_SPECIAL for token in map(int, tokens) if token >= NUM_SPECIAL)

    def to_bytes(self) -> bytes:
        return MAGIC + b"bytes"


class SentencePieceTokenizer:
    """A SentencePiece model of the field, as published: it normalises, so it is not lossless."""

    kind, lossless = "sentencepiece", False
    transform: str | None = None

    def __init__(self, model: bytes) -> None:
        self.model = model
        self.processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.vocab_size = self.processor.vocab_size()
        self.bos_id = self.processor.bos_id()
        if self.bos_id < 0:
            raise ValueError("this SentencePiece model has no BOS id, which opens each document")
        self.piece_bytes = [self._bytes_of(i) for i in range(self.vocab_size)]

    def _bytes_of(self, token: int) -> bytes:
        processor = self.processor
        if processor.is_byte(token):
            return bytes([int(processor.id_to_piece(token)[3:5], 16)])
        if processor.is_control(token) or processor.is_unknown(token) or processor.is_unused(token):
            return b""
        return processor.id_to_piece(token).replace(BOUNDARY, " ").encode()

    def encode(self, document: bytes) -> np.ndarray:
        return np.array(self.processor.encode(document.decode("utf-8", "replace")), np.uint16)

    def decode(self, tokens: Iterable[int]) -> bytes:
        return b"".join(self.piece_bytes[token] for token in map(int, tokens))

    def to_bytes(self) -> bytes:
        return self.model


class BpeTokenizer(SentencePieceTokenizer):
    """Lossless byte-pair encoding: any bytes in, the same bytes out.

    pieces     the learned pieces in the order of their merges; everything else follows from them
    operators  pieces that are never a part of others; their ids come after those of bytes
    """

    kind, lossless = "bpe", True

    def __init__(self, pieces: list[str], operators: tuple[str, ...] = ()) -> None:
        self.pieces, self.operators = pieces, operators
        super().__init__(_model_of(pieces, operators))
        # Where no piece is a blank, the library would spell its mark in bytes, and never undo it.
        self.foreign = FOREIGN if BOUNDARY in pieces else FOREIGN_OR_BLANK
        self.byte_ids = np.arange(256, dtype=np.uint16) + NUM_SPECIAL

    def encode(self, document: bytes) -> np.ndarray:
        text = document.decode("utf-8", "surrogateescape")
        parts: list[np.ndarray] = []
        begin = 0
        for foreign in self.foreign.finditer(text):
            parts.append(self._ids(text[begin : foreign.start()]))
            raw = np.frombuffer(foreign.group().encode("utf-8", "surrogateescape"), np.uint8)
            parts.append(self.byte_ids[raw])
            begin = foreign.end()
        parts.append(self._ids(text[begin:]))
        return np.concatenate(parts)

    def _ids(self, text: str) -> np.ndarray:
        return np.array(self.processor.encode(text), np.uint16)

    def to_bytes(self) -> bytes:
        return MAGIC + b"bpe" + _packed(self.pieces)


class CaseTokenizer:
    """A tokenizer of text in CaseOps form (#1729): any text in, the same text out.

    inner  made for the transformed text, with a piece of its own for each operator
    """

    transform = "caseops"

    def __init__(self, inner: SentencePieceTokenizer) -> None:
        self.inner = inner
        self.vocab_size, self.bos_id = inner.vocab_size, inner.bos_id
        self.kind, self.lossless = inner.kind, inner.lossless
        known = inner.processor.piece_to_id([operator.decode() for operator in OPERATORS])
        self.operator_ids: tuple[int, ...] = tuple(known)  # title, all caps, next, escape
        if len({*known, UNK}) <= len(OPERATORS):
            raise ValueError("this tokenizer has no pieces for the operators of CaseOps")

    def encode(self, document: bytes) -> np.ndarray:
        return self.inner.encode(encode_case(document))

    def decode(self, tokens: Iterable[int]) -> bytes:
        parts = groupby(map(int, tokens), key=lambda token: bool(self.inner.piece_bytes[token]))
        # A control id ends a document, and what capitals were on their way with it.
        return b"".join(decode_case(self.inner.decode(part)) for text, part in parts if text)

    def to_bytes(self) -> bytes:
        """A published model says by its pieces what it is for."""
        if not isinstance(self.inner, BpeTokenizer):
            return self.inner.to_bytes()
        return MAGIC + b"cas" + _packed(self.inner.pieces)


def piece_decoder(
    tokenizer: Tokenizer, before: Iterable[int] = ()
) -> Callable[[int | None], bytes]:
    """One id after another to the bytes that it adds; None for the bytes that were still held.

    before  ids that were read already, whose capitals may go on
    """
    if not isinstance(tokenizer, CaseTokenizer):
        return lambda token: b"" if token is None else tokenizer.decode([token])
    decoder, inner = CaseDecoder(), tokenizer.inner

    def add(token: int | None) -> bytes:
        return decoder.finish() if token is None else decoder.push(inner.decode([token]))

    for token in before:
        add(token)
    return add


def _packed(pieces: list[str]) -> bytes:
    return lzma.compress(json.dumps(pieces, ensure_ascii=False).encode(), preset=9)


def _model_of(pieces: list[str], operators: tuple[str, ...] = ()) -> bytes:
    """The SentencePiece model that has exactly these pieces, merged in this order."""
    model = schema.ModelProto()
    kinds = schema.ModelProto.SentencePiece
    model.trainer_spec.model_type = schema.TrainerSpec.BPE
    model.trainer_spec.byte_fallback = True
    model.trainer_spec.pad_id, model.trainer_spec.bos_id = PAD, BOS
    model.trainer_spec.eos_id, model.trainer_spec.unk_id = EOS, UNK
    model.trainer_spec.vocab_size = NUM_SPECIAL + 256 + len(operators) + len(pieces)
    normalizer = model.normalizer_spec
    normalizer.name, normalizer.precompiled_charsmap = "identity", b""
    normalizer.add_dummy_prefix = normalizer.remove_extra_whitespaces = False
    normalizer.escape_whitespaces = True
    special = (("<pad>", kinds.CONTROL), ("<s>", kinds.CONTROL), ("</s>", kinds.CONTROL))
    for piece, kind in (*special, ("<unk>", kinds.UNKNOWN)):
        model.pieces.add(piece=piece, score=0.0, type=kind)
    for byte in range(256):
        model.pieces.add(piece=f"<0x{byte:02X}>", score=0.0, type=kinds.BYTE)
    for operator in operators:
        model.pieces.add(piece=operator, score=0.0, type=kinds.USER_DEFINED)
    for rank, piece in enumerate(pieces):
        model.pieces.add(piece=piece, score=-float(rank), type=kinds.NORMAL)
    return model.SerializeToString()


def train_bpe(
    documents: Iterable[bytes],
    vocab_size: int,
    *,
    num_threads: int = 2,
    max_bytes: int = 40_000_000,
    operators: tuple[str, ...] = (),
) -> BpeTokenizer:
    """Learn `vocab_size` ids (special and byte ids included) from at most `max_bytes` of text.

    operators  characters that are pieces of their own and never a part of others

    Raises ValueError when the text is too small for that many pieces.
    """
    if vocab_size <= NUM_SPECIAL + 256 + len(operators):
        raise ValueError(
            f"vocab_size={vocab_size}: {NUM_SPECIAL} special and 256 byte ids come first; "
            "ask for more, or use the byte tokenizer"
        )
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_sentences(documents, max_bytes),
            model_writer=model,
            vocab_size=vocab_size,
            model_type="bpe",
            byte_fallback=True,
            character_coverage=0.999,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            split_digits=True,
            pad_id=PAD,
            bos_id=BOS,
            eos_id=EOS,
            unk_id=UNK,
            user_defined_symbols=list(operators),
            hard_vocab_limit=False,
            max_sentence_length=1 << 20,
            num_threads=num_threads,
            minloglevel=2,
        )
    except RuntimeError as error:
        needed = re.search(r"smaller than required_chars\. \d+ vs (\d+)", str(error))
        said = f"its characters alone need --vocab-size {needed[1]}" if needed else error
        raise ValueError(f"no tokenizer could be learned from this text: {said}") from error
    learned = schema.ModelProto.FromString(model.getvalue())
    normal = schema.ModelProto.SentencePiece.NORMAL
    pieces = [piece.piece for piece in learned.pieces if piece.type == normal]
    tokenizer = BpeTokenizer(pieces, operators)
    if tokenizer.vocab_size < vocab_size:
        raise ValueError(
            f"no tokenizer of {vocab_size} pieces from this text: it has only enough for "
            f"{tokenizer.vocab_size}; ask for as many, or give more text"
        )
    return tokenizer


def train_tokenizer(
    documents: Iterable[bytes], vocab_size: int, transform: str | None = None
) -> Tokenizer:
    """`train_bpe` on documents as a transform leaves them: "caseops", or None for as they are."""
    require_transform(transform)
    if transform is None:
        return train_bpe(documents, vocab_size)
    operators = tuple(operator.decode() for operator in OPERATORS)
    return CaseTokenizer(train_bpe(map(encode_case, documents), vocab_size, operators=operators))


def require_transform(transform: str | None) -> None:
    """ValueError for the name of no text transform."""
    if transform not in (None, CaseTokenizer.transform):
        raise ValueError(f"no text transform {transform!r}; there is {CaseTokenizer.transform!r}")


def _sentences(documents: Iterable[bytes], max_bytes: int) -> Iterator[str]:
    """Documents in parts the trainer accepts; what it cannot carry is left out of training."""
    left = max_bytes
    for document in documents:
        text = FOREIGN.sub("", document.decode("utf-8", "surrogateescape"))
        for begin in range(0, len(text), 4096):
            yield text[begin : begin + 4096]
        left -= len(document)
        if left <= 0:
            return


def load_tokenizer(data: bytes | Path) -> Tokenizer:
    """A tokenizer from `to_bytes()`, from a file of it, or from a SentencePiece `.model` file."""
    if isinstance(data, Path):
        if not data.is_file():
            raise ValueError(f"no tokenizer at {data}")
        data = read_file(data, MOST_BYTES)
    if len(data) > MOST_BYTES:
        raise ValueError(f"a tokenizer of {len(data):,} bytes; it may have {MOST_BYTES:,}")
    if data == ByteTokenizer().to_bytes():
        return ByteTokenizer()
    if data.startswith(MAGIC):
        return _our_bpe(data)
    try:
        _check_published(data)
        published = SentencePieceTokenizer(data)
        has_operators = UNK not in published.processor.piece_to_id([o.decode() for o in OPERATORS])
        return CaseTokenizer(published) if has_operators else published
    except (RuntimeError, IndexError, ValueError, DecodeError) as error:
        raise ValueError(
            f"neither our tokenizer nor a SentencePiece model: {one_line(error)}"
        ) from error


def _check_published(data: bytes) -> None:
    """What the library that reads SentencePiece models takes on trust.

    Raises ValueError, or DecodeError for what is no such model.
    """
    model = schema.ModelProto.FromString(data)
    if not 1 <= len(model.pieces) <= 1 << 16:
        raise ValueError(f"it has {len(model.pieces):,} pieces; ids are 16 bits wide")
    longest = max(len(piece.piece) for piece in model.pieces)
    if longest > MOST_PIECE:
        raise ValueError(f"it has a piece of {longest:,} characters; {MOST_PIECE} are the most")


def _our_bpe(data: bytes) -> BpeTokenizer | CaseTokenizer:
    """Raises ValueError for anything but what the tokenizers' `to_bytes` wrote."""
    try:
        kind = data[len(MAGIC) : len(MAGIC) + 3]
        if kind not in (b"bpe", b"cas"):
            raise ValueError(f"kind {kind!r} is not known")
        stream = lzma.LZMADecompressor(memlimit=LZMA_MEMORY)
        text = stream.decompress(data[len(MAGIC) + 3 :], MOST_BYTES)
        if not stream.eof or stream.unused_data:
            raise ValueError("its list of pieces is cut off, too long, or followed by something")
        listed = parse_json(text)
        if not isinstance(listed, list):
            raise ValueError("its pieces are no list")
        pieces = [piece for piece in listed if isinstance(piece, str) and piece]
        if len(pieces) < len(listed):
            raise ValueError("its pieces are no list of texts")
        if len(pieces) > MOST_PIECES or len(set(pieces)) < len(pieces):
            raise ValueError(f"its {len(pieces):,} pieces repeat, or are over {MOST_PIECES:,}")
        if max(map(len, pieces), default=0) > MOST_PIECE:
            raise ValueError(f"it has a piece longer than {MOST_PIECE} characters")
        if kind == b"bpe":
            return BpeTokenizer(pieces)
        operators = tuple(operator.decode() for operator in OPERATORS)
        if set(operators) & set("".join(pieces)):
            raise ValueError("its pieces hold operators")
        return CaseTokenizer(BpeTokenizer(pieces, operators))
    except (ValueError, RuntimeError, IndexError, lzma.LZMAError) as error:
        raise ValueError(f"this tokenizer is damaged: {one_line(error)}; make it again") from error
