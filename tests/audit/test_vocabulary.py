"""What tokens stand for is read out of vocabularies of every kind, and joins to the text."""

import json
import pickle
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.audit.vocabulary import of_tiktoken, of_tokenizer, open_vocabulary
from fairway.tokens.tokenizer import ByteTokenizer

from .vocabularies import KINDS, TEXT, tiktoken, tokenizers

TRICKY = ["", " ", "  two", "\t\n", "Ġ ▁ <0x41> <s>", "日本語", "\u0000", "🐇\ufffd"]


@pytest.mark.parametrize("kind", KINDS)
@given(text=st.sampled_from(TRICKY) | st.text(max_size=40) | st.just(TEXT))
def test_tokens_join_to_the_text_and_their_bytes_add_up(vocabularies, kind: str, text: str) -> None:
    if kind in ("sentencepiece", "plain"):  # the library drops some control characters, and marks
        text = "".join(c for c in text if unicodedata.category(c)[0] != "C" and c != "▁")
    if kind == "byte fallback":
        text = text.replace("▁", "").replace("<s>", "")
    vocabulary, document = vocabularies[kind], text.encode()
    ids = vocabulary.encode(document)
    assert vocabulary.join(ids) == document
    counts = vocabulary.count(ids)
    assert (len(counts), counts.sum()) == (len(ids), len(document))
    assert counts.min(initial=0) >= 0


def test_the_kind_is_seen_in_the_file(vocabularies) -> None:
    assert {kind: v.kind for kind, v in vocabularies.items()} == {
        "tiktoken": "tiktoken",
        "byte-level": "Hugging Face, byte-level",
        "byte fallback": "Hugging Face, byte fallback",
        "sentencepiece": "SentencePiece",
        "plain": "SentencePiece",
        "bpe": "fairway, bpe",
        "caseops": "fairway, caseops",
    }


def test_special_tokens_stand_for_no_text_and_one_opens_documents(vocabularies) -> None:
    vocabulary = vocabularies["byte-level"]
    assert vocabulary.printed[vocabulary.opener] == "<|bos|>"
    assert vocabulary.pieces[vocabulary.opener] == b""
    encoding = tiktoken.Encoding(
        "mine", pat_str=r"\s+|\S+", special_tokens={"<|endoftext|>": 300},
        mergeable_ranks={bytes([byte]): byte for byte in range(256)},
    )  # fmt: skip
    made = of_tiktoken(encoding)
    assert (made.size, made.opener, made.pieces[300], made.pieces[270]) == (301, 300, b"", b"")
    assert of_tokenizer(ByteTokenizer()).opener == 1


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (pickle.dumps({"a": 1}), "a pickle can run anything"),
        (b"", "neither"),
        (b"{", "no tokenizer.json"),
        (b'{"model": {"type": "BPE"}}', "no tokenizer.json"),
        (b"YQ== 0\n", "has no token"),
        (b"YQ== 0\nYg== 0\n", "the same rank"),
        (b"\x00\x01\x02", "neither"),
    ],
)
def test_what_is_no_vocabulary_is_refused_by_name(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(ValueError, match=f"file: .*{said}"):
        open_vocabulary(tmp_path / "file")


def test_a_vocabulary_that_loses_text_is_refused(tmp_path: Path) -> None:
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "?": 1}, unk_token="?"))
    made.save(str(tmp_path / "words.json"))
    with pytest.raises(ValueError, match="neither byte-level nor falls back"):
        open_vocabulary(tmp_path / "words.json")


def test_the_way_a_tiktoken_file_cuts_text_may_be_named(vocabulary_files: dict[str, Path]) -> None:
    whole, letters = (
        open_vocabulary(vocabulary_files["tiktoken"], p) for p in (r"(?s).+", r"(?s).")
    )
    assert len(whole.encode(TEXT.encode())) < len(letters.encode(TEXT.encode()))
    with pytest.raises(ValueError, match="tiktoken refuses it"):
        open_vocabulary(vocabulary_files["tiktoken"], "(")


def test_the_file_is_read_as_the_library_reads_it(
    vocabulary_files: dict[str, Path], tmp_path: Path
) -> None:
    described = json.loads(vocabulary_files["byte-level"].read_text())
    vocabulary, pieces = (
        open_vocabulary(vocabulary_files["byte-level"]),
        described["model"]["vocab"],
    )
    assert vocabulary.size == len(pieces)
    # With gaps between its ids, and an added token that the library gives another id.
    pieces["qqq"] = 5000
    described["added_tokens"].append(
        described["added_tokens"][0] | {"id": 4000, "content": "<pad>"}
    )
    (tmp_path / "gaps.json").write_text(json.dumps(described))
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "gaps.json"))
    found = open_vocabulary(tmp_path / "gaps.json")
    assert (found.size, found.pieces[5000], found.pieces[4500]) == (5001, b"qqq", b"")
    assert found.pieces[library.token_to_id("<pad>")] == b""
    pieces["qqq"] = 4_000_000_000
    (tmp_path / "gaps.json").write_text(json.dumps(described))
    with pytest.raises(ValueError, match="one of its ids is 4,000,000,000"):
        open_vocabulary(tmp_path / "gaps.json")
