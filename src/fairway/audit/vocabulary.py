"""Anybody's vocabulary as what its tokens decode to: tiktoken, Hugging Face, SentencePiece, ours.

What a token stands for is read from the vocabulary's own bytes, never from decoded strings, for a
token may be a part of a character. That these bytes are the truth is shown by joining them again
(`byte_audit.py`).
"""

import base64
import binascii
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fairway.artifact.loaded_model import is_model_file, load_model
from fairway.audit.token_pieces import Vocabulary, of_bytes
from fairway.runtime.extras import extra
from fairway.runtime.files import read_file
from fairway.tokens.byte_count import byte_table
from fairway.tokens.tokenizer import (
    BOUNDARY,
    MAGIC,
    ByteTokenizer,
    CaseTokenizer,
    SentencePieceTokenizer,
    Tokenizer,
    load_tokenizer,
    schema,
)

MOST_BYTES = 1 << 27  # of a vocabulary's file; the largest published ones have some 30 MB
MOST_IDS = 1 << 20
# How the encodings of cl100k_base and later cut text before merging; a .tiktoken file has no word
# of it. It decides which tokens a text has, not what a token stands for.
PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|"
    r"\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)
OPENERS = ("<|bos|>", "<|endoftext|>", "<|begin_of_text|>", "<s>", "[BOS]", "<bos>")


def open_vocabulary(path: Path, pattern: str | None = None) -> Vocabulary:
    """The vocabulary in a file, by what is in it.

    pattern  how text is cut before merging, for a .tiktoken file; None: as cl100k_base does

    Raises ValueError naming the file and what is wrong with it. Nothing in it is run.
    """
    try:
        if is_model_file(path):
            return of_tokenizer(load_model(path).tokenizer)
        if not path.is_file():
            raise ValueError("there is no such file")
        data = read_file(path, MOST_BYTES)
        if data[:1] == b"{":
            return of_tokenizer_json(data)
        if data.startswith(MAGIC):
            return of_tokenizer(load_tokenizer(data))
        if _is_pickle(data):
            raise ValueError(
                "a pickle can run anything, so none is opened; of a pickled tiktoken.Encoding, "
                "tiktoken.load.dump_tiktoken_bpe(encoding._mergeable_ranks, 'ranks.tiktoken') "
                "writes what can be read here"
            )
        ranks = _tiktoken_ranks(data)
        return of_sentencepiece(data) if ranks is None else _of_ranks(ranks, pattern or PATTERN)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def vocabulary_of(tokenizer: Any) -> Vocabulary:
    """Of a file's path, or of what a library has opened: a `SentencePieceProcessor`, a
    `tiktoken.Encoding`, a `tokenizers.Tokenizer` or what wraps one, or a tokenizer of ours.

    Raises ValueError for what is none of them.
    """
    if isinstance(tokenizer, Vocabulary):
        return tokenizer
    if isinstance(tokenizer, str | Path):
        return open_vocabulary(Path(tokenizer))
    if isinstance(tokenizer, ByteTokenizer | SentencePieceTokenizer | CaseTokenizer):
        return of_tokenizer(tokenizer)
    if hasattr(tokenizer, "serialized_model_proto"):
        return of_sentencepiece(tokenizer.serialized_model_proto())
    if hasattr(tokenizer, "encode_ordinary"):
        return of_tiktoken(tokenizer)
    within = getattr(tokenizer, "backend_tokenizer", tokenizer)  # as transformers has it
    if hasattr(within, "to_str"):
        return of_tokenizer_json(within.to_str().encode())
    if hasattr(tokenizer, "id_to_piece"):
        return of_piece_table(tokenizer)
    raise ValueError(f"{type(tokenizer).__name__} is no tokenizer whose bytes are known")


def _is_pickle(data: bytes) -> bool:
    return data[:1] == b"\x80" and data[1:2] <= b"\x08" and data[-1:] == b"."


def _tiktoken_ranks(data: bytes) -> dict[bytes, int] | None:
    """Of a .tiktoken file: lines of base64 and a rank; None for what is no such file."""
    ranks: dict[bytes, int] = {}
    for line in data.splitlines():
        try:
            spelled, rank = line.split()
            ranks[base64.b64decode(spelled, validate=True)] = int(rank)
        except (ValueError, binascii.Error):
            return None
    if not ranks or b"" in ranks or min(ranks.values()) < 0 or max(ranks.values()) >= MOST_IDS:
        return None
    if len(set(ranks.values())) < len(ranks):
        raise ValueError("two of its tokens have the same rank")
    return ranks


def _of_ranks(ranks: dict[bytes, int], pattern: str) -> Vocabulary:
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing:
        raise ValueError(f"byte {missing[0]:#04x} has no token, so it cannot spell every text")
    with extra("bytes", "a tiktoken vocabulary"):
        import tiktoken
    try:
        encoding = tiktoken.Encoding(
            "ranks", pat_str=pattern, mergeable_ranks=ranks, special_tokens={}
        )
    except Exception as error:  # whatever Rust says of a pattern
        raise ValueError(f"tiktoken refuses it: {error}") from error
    return of_tiktoken(encoding)


def of_tiktoken(encoding: Any) -> Vocabulary:
    """Of a `tiktoken.Encoding`."""
    special = {encoding.encode_single_token(name): name for name in encoding.special_tokens_set}
    pieces, printed = [b""] * encoding.n_vocab, [""] * encoding.n_vocab
    for token in range(encoding.n_vocab):
        if token in special:
            printed[token] = special[token]
            continue
        try:
            pieces[token] = encoding.decode_single_token_bytes(token)
        except KeyError:
            continue  # ids are not without gaps
        printed[token] = pieces[token].decode("utf-8", "replace")
    return of_bytes(
        "tiktoken",
        pieces,
        printed,
        encode=lambda document: np.array(
            encoding.encode_ordinary(document.decode("utf-8", "replace")), dtype=np.int64
        ),
        opener=_opener(special),
    )


def _opener(named: Mapping[int, str]) -> int | None:
    """The first of `OPENERS` among ids with names."""
    tokens = {name: token for token, name in named.items()}
    return next((tokens[name] for name in OPENERS if name in tokens), None)


def of_tokenizer_json(data: bytes) -> Vocabulary:
    """Of a Hugging Face `tokenizer.json` that can spell any text: byte-level, or byte fallback."""
    with extra("bytes", "a tokenizer.json"):
        import tokenizers
    try:
        described = json.loads(data)
        tokenizer = tokenizers.Tokenizer.from_str(data.decode())
    except Exception as error:  # the library raises bare ones
        raise ValueError(f"no tokenizer.json: {error}") from error
    kinds = set(_kinds(described.get("pre_tokenizer"))) | set(_kinds(described.get("decoder")))
    model = described.get("model") or {}
    if "ByteLevel" in kinds:
        kind, spell = "Hugging Face, byte-level", _from_byte_level
    elif model.get("byte_fallback"):
        kind, spell = "Hugging Face, byte fallback", _from_fallback
    else:
        raise ValueError(
            f"a {model.get('type', 'model')} that is neither byte-level nor falls back to bytes: "
            "what its tokens decode to is not the text, and no count of theirs can be right"
        )
    added = tokenizer.get_added_tokens_decoder()  # whose ids are not always those of the file
    spelled = {token: name for name, token in tokenizer.get_vocab().items()}
    size = 1 + max(spelled, default=-1)
    if size > MOST_IDS:
        raise ValueError(f"one of its ids is {size - 1:,}; {MOST_IDS:,} ids are the most")
    printed = [spelled.get(token, "") for token in range(size)]
    pieces = [
        (b"" if added[token].special else printed[token].encode())
        if token in added
        else spell(printed[token])
        for token in range(size)
    ]
    alone = [tokenizer.decode([token]) if pieces[token] else "" for token in range(size)]

    def encode(document: bytes) -> np.ndarray:
        text = document.decode("utf-8", "replace")
        return np.array(tokenizer.encode(text, add_special_tokens=False).ids, dtype=np.int64)

    letter = encode(b"a")  # which may come with a blank that is in no text
    prefixed = (
        spell is _from_fallback
        and tokenizer.decode(letter.tolist()) == "a"
        and b"".join(pieces[token] for token in letter) == b" a"
    )
    return of_bytes(
        kind,
        pieces,
        printed,
        alone=alone,
        encode=encode,
        opener=_opener({token: printed[token] for token in added}),
        first_blank=not prefixed,
    )


def _kinds(part: Any) -> list[str]:
    """Types of a part of tokenizer.json, and of the parts it is made of."""
    if not isinstance(part, dict):
        return []
    inner = [*(part.get("pretokenizers") or ()), *(part.get("decoders") or ())]
    return [part.get("type", ""), *(kind for each in inner for kind in _kinds(each))]


def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2's: a printable character for each byte."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    moved = {chr(256 + place): byte for place, byte in enumerate(others)}
    return {chr(byte): byte for byte in plain} | moved


ALPHABET = _byte_level_alphabet()


def _from_byte_level(printed: str) -> bytes:
    if all(character in ALPHABET for character in printed):
        return bytes(ALPHABET[character] for character in printed)
    return printed.encode()


def _from_fallback(printed: str) -> bytes:
    if len(printed) == 6 and printed.startswith("<0x") and printed.endswith(">"):
        try:
            return bytes([int(printed[3:5], 16)])
        except ValueError:
            pass
    return _from_marked(printed)


def _from_marked(printed: str) -> bytes:
    return printed.replace(BOUNDARY, " ").encode()


def of_sentencepiece(data: bytes) -> Vocabulary:
    """Of a SentencePiece `.model` file."""
    import sentencepiece
    from google.protobuf.message import DecodeError

    try:
        settings = schema.ModelProto.FromString(data)
        if not settings.pieces:
            raise ValueError("it has no pieces")
        processor: Any = sentencepiece.SentencePieceProcessor(model_proto=data)
    except (RuntimeError, DecodeError, ValueError) as error:
        raise ValueError(
            "neither a .tiktoken file, a tokenizer.json, a SentencePiece model nor a model or "
            f"tokenizer of ours ({str(error)[:80]})"
        ) from error
    spec = settings.normalizer_spec  # by either of these, decoding drops a document's first blank
    drops = spec.add_dummy_prefix or spec.remove_extra_whitespaces
    return of_piece_table(processor, first_blank=not drops)


def of_piece_table(table: Any, *, first_blank: bool = False) -> Vocabulary:
    """Of a `SentencePieceProcessor`, or of what tells of its pieces as one does and cuts no text.

    first_blank  a blank that opens a document is in the text, and not put there by the library
    """
    size = table.vocab_size()
    printed = [table.id_to_piece(token) for token in range(size)]
    silent = (table.is_control, table.is_unknown, table.is_unused)
    pieces = [
        b""
        if any(is_silent(token) for is_silent in silent)
        else (_from_fallback if table.is_byte(token) else _from_marked)(printed[token])
        for token in range(size)
    ]
    cuts = hasattr(table, "encode")
    bos_id = table.bos_id() if cuts else -1
    return of_bytes(
        "SentencePiece",
        pieces,
        printed,
        alone=[table.decode([token]) if piece else "" for token, piece in enumerate(pieces)]
        if cuts
        else None,
        encode=lambda document: np.array(
            table.encode(document.decode("utf-8", "replace")), dtype=np.int64
        ),
        opener=bos_id if bos_id >= 0 else None,
        first_blank=first_blank,
    )


def of_tokenizer(tokenizer: Tokenizer) -> Vocabulary:
    """Of a tokenizer of ours."""
    if isinstance(tokenizer, SentencePieceTokenizer) and not tokenizer.lossless:
        return of_sentencepiece(tokenizer.model)
    pieces = [tokenizer.decode([token]) for token in range(tokenizer.vocab_size)]
    return Vocabulary(
        kind=f"fairway, {tokenizer.transform or tokenizer.kind}",
        pieces=pieces,
        printed=[piece.decode("utf-8", "replace") for piece in pieces],
        alone=[piece.decode("utf-8", "replace") for piece in pieces],
        encode=lambda document: tokenizer.encode(document).astype(np.int64),
        targets=byte_table(tokenizer).target_bytes,
        join=tokenizer.decode,
        opener=tokenizer.bos_id,
    )
