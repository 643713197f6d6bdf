"""Wrong counts are found id by id, and what they do to a score is what they do to one."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from fairway.audit import audit_bytes
from fairway.audit.byte_audit import WAYS
from fairway.audit.byte_table_file import read_byte_table
from fairway.audit.vocabulary import of_tokenizer
from fairway.cli import main
from fairway.tokens.tokenizer import ByteTokenizer

from .vocabularies import KINDS, TEXT

DOCUMENTS = [TEXT.encode(), "größer 🐇".encode()]


def decoded_one_by_one(vocabulary) -> np.ndarray:
    """As nanochat's table was made before it was mended in July 2026."""
    return np.array(
        [len(p.decode("utf-8", "replace").encode()) if p else 0 for p in vocabulary.pieces]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_right_table_is_right_and_moves_nothing(vocabularies, kind: str) -> None:
    vocabulary = vocabularies[kind]
    found = audit_bytes(vocabulary, DOCUMENTS, vocabulary.sizes)
    assert found.text
    assert found.text.exact
    assert found.text.counted
    assert found.text.joined_bytes == found.text.text_bytes == sum(map(len, DOCUMENTS))
    assert found.claimed
    if kind not in ("sentencepiece", "byte fallback"):  # whose first blank is not in the text
        assert found.claimed.is_right
    else:
        assert (found.claimed.wrong, found.claimed.counted) == (0, found.text.joined_bytes + 2)


def test_parts_of_characters_are_what_decoding_one_by_one_gets_wrong(vocabularies) -> None:
    vocabulary = vocabularies["byte-level"]
    table = decoded_one_by_one(vocabulary)
    found = audit_bytes(vocabulary, DOCUMENTS, table)
    partial = {
        i for i, p in enumerate(vocabulary.pieces) if p.decode("utf-8", "ignore").encode() != p
    }
    wrong = set(np.flatnonzero(table != vocabulary.sizes).tolist())
    assert wrong
    assert wrong <= partial
    assert found.partial == len(partial)
    assert found.claimed
    assert found.claimed.wrong == len(wrong)
    (same,) = (w for w in found.ways if w.way.startswith("len(decode([id]).encode"))
    assert (same.wrong, same.counted, same.moves) == (
        found.claimed.wrong, found.claimed.counted, found.claimed.moves
    )  # fmt: skip
    for token, _, size, said in found.claimed.examples:
        assert size == len(vocabulary.pieces[token]) != said == table[token]


def test_a_score_moves_by_the_share_that_was_said(vocabularies) -> None:
    """Whatever the model says of the text."""
    vocabulary = vocabularies["byte-level"]
    ids = np.concatenate([vocabulary.encode(document) for document in DOCUMENTS])
    nats = np.random.default_rng(0).exponential(2.0, len(ids)).sum()
    right = nats / math.log(2) / vocabulary.sizes[ids].sum()
    for way, count in WAYS.items():
        if "special" in way:
            continue  # which no document's own tokens are
        told = nats / math.log(2) / count(vocabulary)[ids].sum()
        (found,) = (w for w in audit_bytes(vocabulary, DOCUMENTS).ways if w.way == way)
        assert found.moves == pytest.approx(told / right - 1)


def test_marks_between_documents_cost_who_counts_their_names(vocabularies) -> None:
    found = audit_bytes(vocabularies["byte-level"], DOCUMENTS)
    (named,) = (w for w in found.ways if "special" in w.way)
    assert found.text
    assert found.text.marks == 2
    assert named.counted == found.text.joined_bytes + 2 * len("<|bos|>")


def test_a_text_that_is_changed_first_is_said_so() -> None:
    vocabulary = of_tokenizer(ByteTokenizer())
    assert audit_bytes(vocabulary, [b"\xff\xfe"]).text.exact  # type: ignore[union-attr]


def test_broken_utf8_does_not_come_back_from_a_vocabulary_of_text(vocabularies) -> None:
    found = audit_bytes(vocabularies["byte-level"], [b"ok", b"a\xffb"])
    assert found.text
    assert not found.text.exact
    assert "document 2, byte 1" in found.text.difference


@pytest.mark.parametrize(
    ("table", "said"),
    [([1, 2], "260 ids"), ([0.5] * 260, "whole"), ([[1] * 260], "shape"), ([1] * 261, "belong")],
)
def test_a_table_of_something_else_is_refused(table: list, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        audit_bytes(of_tokenizer(ByteTokenizer()), None, np.array(table))


def test_a_padded_table_is_taken_and_no_text_is_refused() -> None:
    vocabulary = of_tokenizer(ByteTokenizer())
    padded = np.concatenate((vocabulary.sizes, np.zeros(60, int)))
    assert audit_bytes(vocabulary, None, padded).claimed.is_right  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="no document"):
        audit_bytes(vocabulary, [])


def test_tables_of_every_kind_are_read_and_nothing_in_them_is_run(tmp_path: Path) -> None:
    counts = [0, 3, 1]
    np.save(tmp_path / "a.npy", np.array(counts))
    (tmp_path / "b.json").write_text(json.dumps(counts))
    (tmp_path / "c.json").write_text(json.dumps({"1": 3, "2": 1}))
    torch.save(torch.tensor(counts, dtype=torch.int32), tmp_path / "d.pt")
    for path in sorted(tmp_path.iterdir()):
        assert read_byte_table(path).tolist() == counts
    torch.save({"bytes": 1}, tmp_path / "e.pt")
    torch.save(print, tmp_path / "f.pt")
    np.save(tmp_path / "g.npy", np.array([print]), allow_pickle=True)
    (tmp_path / "h.json").write_text('{"a": 1}')
    (tmp_path / "i").write_bytes(b"nothing")
    for name in ("e.pt", "f.pt", "g.npy", "h.json", "i", "missing"):
        with pytest.raises(ValueError, match=name):
            read_byte_table(tmp_path / name)


def test_as_typed(vocabulary_files, vocabularies, tmp_path: Path, capsys) -> None:
    (tmp_path / "text.txt").write_bytes(DOCUMENTS[0])
    vocabulary, table = vocabularies["byte-level"], tmp_path / "token_bytes.pt"
    words = ["bytes", str(vocabulary_files["byte-level"]), str(tmp_path / "text.txt"), "--json"]
    assert main(words) == 0
    said, shown = capsys.readouterr()
    assert json.loads(said)["text"]["exact"] is True
    assert "the tokens give back every byte" in shown
    torch.save(torch.tensor(decoded_one_by_one(vocabulary)), table)
    assert main([*words, "--claimed", str(table)]) == 1
    said, shown = capsys.readouterr()
    assert json.loads(said)["claimed"]["wrong"] > 0
    assert "the table says 3" in shown
    torch.save(torch.tensor(vocabulary.sizes), table)
    assert main([*words, "--claimed", str(table)]) == 0
