"""Small vocabularies of every kind that people have, made where they are needed."""

import base64
import io
from pathlib import Path

import pytest
import sentencepiece

from fairway.audit.vocabulary import open_vocabulary
from fairway.tokens.tokenizer import train_tokenizer

tiktoken = pytest.importorskip("tiktoken", reason="needs the extra bytes")
tokenizers = pytest.importorskip("tokenizers", reason="needs the extra bytes")

TEXT = "The hare\u2019s größer HARE said: “日本語” \u2013 12 🐇🐇! " * 12
KINDS = ("tiktoken", "byte-level", "byte fallback", "sentencepiece", "plain", "bpe", "caseops")


def byte_level(path: Path, size: int = 400) -> Path:
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=alphabet, special_tokens=["<|bos|>"], show_progress=False
    )
    made.train_from_iterator([TEXT], trainer)
    made.save(str(path))
    return path


def sentencepiece_file(path: Path, dummy_prefix: bool) -> Path:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([TEXT] * 3), model_writer=model, vocab_size=330, model_type="bpe",
        byte_fallback=True, character_coverage=0.98, normalization_rule_name="identity",
        add_dummy_prefix=dummy_prefix, remove_extra_whitespaces=False, minloglevel=2,
        hard_vocab_limit=False,
    )  # fmt: skip
    path.write_bytes(model.getvalue())
    return path


def byte_fallback(path: Path) -> Path:
    """As Llama's: blanks are marks, one more at the beginning, and bytes for what is unknown."""
    vocabulary = {"<unk>": 0, "<s>": 1} | {f"<0x{byte:02X}>": 2 + byte for byte in range(256)}
    merges = [("▁", "t"), ("▁t", "h"), ("▁th", "e"), ("ö", "ß")]
    for piece in ["▁", *"abcdehrst\u2019öß", *("".join(m) for m in merges)]:
        vocabulary.setdefault(piece, len(vocabulary))
    made = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True
        )
    )
    parts = tokenizers.normalizers, tokenizers.decoders
    made.normalizer = parts[0].Sequence([parts[0].Prepend("▁"), parts[0].Replace(" ", "▁")])
    made.decoder = parts[1].Sequence(
        [
            parts[1].Replace("▁", " "),
            parts[1].ByteFallback(),
            parts[1].Fuse(),
            parts[1].Strip(" ", 1),
        ]
    )
    made.add_special_tokens(["<s>"])
    made.save(str(path))
    return path


def tiktoken_file(path: Path, source: Path) -> Path:
    """The merges of a byte-level vocabulary, as ranks."""
    pieces = [piece for piece in open_vocabulary(source).pieces if piece]
    lines = (base64.b64encode(piece) + b" %d" % rank for rank, piece in enumerate(pieces))
    path.write_bytes(b"\n".join(lines))
    return path


def make_files(folder: Path) -> dict[str, Path]:
    """By kind, a file of each."""
    found = {
        "byte-level": byte_level(folder / "tokenizer.json"),
        "byte fallback": byte_fallback(folder / "llama.json"),
        "sentencepiece": sentencepiece_file(folder / "dummy.model", True),
        "plain": sentencepiece_file(folder / "plain.model", False),
    }
    found["tiktoken"] = tiktoken_file(folder / "ranks.tiktoken", found["byte-level"])
    for transform in (None, "caseops"):
        name = transform or "bpe"
        found[name] = folder / f"{name}.tokenizer"
        found[name].write_bytes(train_tokenizer([TEXT.encode()], 320, transform).to_bytes())
    return found
