"""Counting the denominator again."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairway.audit.byte_audit import WAYS
from fairway.audit.byte_total import probe_bytes
from fairway.audit.case import Case
from fairway.audit.findings import ProbeResult
from fairway.audit.scorer import Answer, Session, open_scorer
from fairway.audit.token_pieces import Vocabulary
from fairway.audit.vocabulary import of_sentencepiece, open_vocabulary, vocabulary_of
from fairway.tokens.tokenizer import load_tokenizer, schema

from .vocabularies import KINDS, TEXT, tokenizers

MARK = "\u2581"


def vocabulary(*pieces: str) -> Vocabulary:
    """A SentencePiece vocabulary of these pieces, behind "<unk>", "<s>" and all bytes."""
    made = schema.ModelProto()
    kinds = schema.ModelProto.SentencePiece
    raw = [f"<0x{byte:02X}>" for byte in range(256)]
    for name, kind in (
        ("<unk>", kinds.UNKNOWN),
        ("<s>", kinds.CONTROL),
        *((name, kinds.BYTE) for name in raw),
        *((name, kinds.NORMAL) for name in pieces),
    ):
        made.pieces.add(piece=name, score=0.0, type=kind)
    made.trainer_spec.byte_fallback = True
    made.trainer_spec.bos_id, made.trainer_spec.unk_id = 1, 0
    made.normalizer_spec.add_dummy_prefix = True
    return of_sentencepiece(made.SerializeToString())


def ids(known: Vocabulary, *pieces: str) -> np.ndarray:
    return np.array([list(known.printed).index(piece) for piece in pieces])


WORDS = vocabulary(MARK, f"{MARK}caf\u00e9", "s", f"{MARK}in")
TOKENS = ids(
    WORDS,
    *("<s>", f"{MARK}caf\u00e9", "s", f"{MARK}in", MARK, f"{MARK}in", "<0x0A>", "<s>", f"{MARK}in"),
)
TRUE = [5, 1, 3, 1, 3, 1, 0, 2]


def probe(
    counts: Any,
    *,
    tokens: np.ndarray = TOKENS,
    num_bytes: int | None = None,
    text: bytes | None = None,
    tokenizer: Vocabulary | None = WORDS,
) -> ProbeResult:
    stated = None if counts is None else np.atleast_1d(np.array(counts, dtype=float))
    answer = Answer(nats=np.full(len(tokens) - 1, 2.0), num_bytes=stated)
    case = Case(
        session=Session(open_scorer(np.diff), stop_at=np.inf),  # which is never called
        stream=tokens,
        answer=answer,
        vocab_size=tokenizer.size if tokenizer else 10,
        num_bytes=num_bytes,
        original=text,
        tokenizer=tokenizer,
    )
    return probe_bytes(case)


def test_bytes_are_counted_by_the_rule_of_the_field() -> None:
    assert WORDS.targets(TOKENS).tolist() == TRUE
    text = "caf\u00e9s in  in\nin".encode()
    assert sum(TRUE) == len(text)
    result = probe(TRUE, text=text)
    assert result.ok
    assert result.details["bits_per_byte"] == pytest.approx(16 / np.log(2) / 16)


def test_a_total_is_checked_like_a_row() -> None:
    assert probe(sum(TRUE)).ok
    assert not probe(sum(TRUE) + 1).ok


@pytest.mark.parametrize(
    ("counts", "kind", "words"),
    [
        ([6, 1, 4, 2, 4, 1, 0, 3], "E2", "counted twice"),
        ([6, 1, 3, 1, 3, 1, 0, 3], "E2", "first word of a document"),
        ([5, 1, 3, 1, 3, 3, 0, 2], "E1", "three bytes each"),
        ([5, 1, 3, 1, 3, 6, 0, 2], "E5", "printed name"),
        ([5, 1, 3, 1, 3, 1, 3, 2], "E5", "without text"),
        ([5, 1, 3, 1, 3, 1, 0, 7], "E5", "1 tokens are miscounted: '\u2581in' 7 instead of 2"),
    ],
)
def test_a_wrong_rule_is_recognized(counts: list[int], kind: str, words: str) -> None:
    result = probe(counts)
    assert not result.ok
    assert result.findings[0].kinds[0] == kind
    assert words in result.findings[0].said


@pytest.mark.parametrize(
    ("total", "kind"), [(117, "E2"), (109, "E4"), (104, "E1"), (101, "E5"), (90, "E6")]
)
def test_without_a_tokenizer_the_size_of_the_error_is_the_hint(total: int, kind: str) -> None:
    result = probe(total, num_bytes=100, tokenizer=None)
    assert not result.ok
    assert result.findings[0].kinds[0] == kind


def test_operators_without_their_side_file_are_named() -> None:
    """A text transform writes private-use characters that stand for no original byte."""
    cased = vocabulary("\ue001", f"{MARK}the")
    tokens = ids(cased, "<s>", "\ue001", f"{MARK}the", f"{MARK}the")
    by_pieces, by_side_file = [3, 4, 4], [0, 3, 4]
    result = probe(by_pieces, tokens=tokens, num_bytes=7, tokenizer=cased)
    assert result.findings[0].kinds == ("E4",)
    assert "side file" in result.findings[0].said
    assert probe(by_side_file, tokens=tokens, num_bytes=7, tokenizer=cased).ok


def test_spaces_that_decay_to_three_bytes_are_named() -> None:
    poor = vocabulary(f"{MARK}a")
    tokens = ids(poor, "<s>", f"{MARK}a", "<0xE2>", "<0x96>", "<0x81>", f"{MARK}a")
    result = probe([1, 1, 1, 1, 2], tokens=tokens, tokenizer=poor)
    assert result.findings[0].kinds == ("E3",)
    assert "1 lone spaces" in result.findings[0].said


def test_a_normalizing_tokenizer_is_a_note() -> None:
    result = probe(TRUE, num_bytes=sum(TRUE) + 3)
    assert result.ok
    assert "normalizes" in result.not_covered[0]


@pytest.mark.parametrize("counts", [[1.5] * 8, [-1] * 8, [np.nan] * 8, [1] * 7, [1] * 9])
def test_counts_are_whole_and_one_per_target(counts: list[float]) -> None:
    assert not probe(counts).ok


def test_no_counts_are_no_fault_but_a_gap() -> None:
    result = probe(None, num_bytes=16)
    assert result.ok
    assert "bits per byte" in result.summary
    assert result.not_covered


def test_the_field_s_own_counts_are_reproduced(shared: Path) -> None:
    torch = pytest.importorskip("torch")
    golden = torch.load(shared / "vectors" / "bytes_sp8192.pt", weights_only=True)
    known = open_vocabulary(shared / "data" / "tokenizers" / "fineweb_8192_bpe.model")
    counted = known.targets(golden["tokens"].numpy().astype(np.int64))
    assert np.array_equal(counted, golden["target_bytes"].numpy())


def test_a_tokenizer_of_other_tokens_is_a_user_error() -> None:
    with pytest.raises(ValueError, match="token 900 is not in the tokenizer, which has 262 pieces"):
        probe([1] * 3, tokens=np.array([1, 2, 900, 2]))


def stream_of(known: Vocabulary, documents: list[bytes]) -> np.ndarray:
    """Documents, each behind a mark where the vocabulary has one."""
    mark = [] if known.opener is None else [known.opener]
    parts = [[*mark, *known.encode(document).tolist()] for document in documents]
    return np.array([token for part in parts for token in part])


@pytest.mark.parametrize("kind", KINDS)
def test_vocabularies_of_every_kind_count_the_text(vocabularies, kind: str) -> None:
    known, documents = vocabularies[kind], [TEXT.encode(), "gr\u00f6\u00dfer \U0001f407".encode()]
    tokens = stream_of(known, documents)
    text = b"".join(documents)
    right = known.targets(tokens)
    first = int(known.count(tokens[:1])[0])
    assert right.sum() == len(text) - first
    assert probe(right, tokens=tokens, text=text, tokenizer=known).ok
    assert not probe(right + 1, tokens=tokens, text=text, tokenizer=known).ok


@pytest.mark.parametrize("kind", ["byte-level", "tiktoken"])
def test_parts_of_characters_decoded_one_by_one_are_named(vocabularies, kind: str) -> None:
    known = vocabularies[kind]
    tokens = stream_of(known, [TEXT.encode(), "\u017c\u00f3\u0142w \U0001f980".encode()])
    (way,) = (way for way in WAYS if way.startswith("len(decode([id]).encode"))
    wrong = WAYS[way](known)[tokens[1:]]
    for counts in (wrong, wrong.sum()):
        result = probe(counts, tokens=tokens, tokenizer=known)
        assert not result.ok
        assert result.findings[0].kinds[0] == "E5"
        assert f"counted as {way}" in result.findings[0].said


def test_what_libraries_have_opened_is_taken(vocabulary_files: dict[str, Path]) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    opened = (
        ("byte-level", tokenizers.Tokenizer.from_file(str(vocabulary_files["byte-level"]))),
        ("sentencepiece", sentencepiece.SentencePieceProcessor(
            model_file=str(vocabulary_files["sentencepiece"])
        )),
        ("bpe", load_tokenizer(vocabulary_files["bpe"].read_bytes())),
    )  # fmt: skip
    for kind, made in opened:
        assert vocabulary_of(made).pieces == vocabulary_of(str(vocabulary_files[kind])).pieces
    with pytest.raises(ValueError, match="int is no tokenizer"):
        vocabulary_of(3)
