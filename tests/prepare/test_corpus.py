import json
import lzma
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fairway.prepare import prepare, read_documents
from fairway.tokens.shards import DataFolder

DOCUMENTS = [f"document {i}: " + "the quick brown fox jumps. " * (5 + i % 7) for i in range(60)]


def write(folder: Path, kind: str) -> Path:
    file = folder / f"text{kind}"
    joined = "\0".join(DOCUMENTS).encode()
    lines = "\n".join(json.dumps({"text": text}) for text in DOCUMENTS).encode()
    if kind == ".parquet":
        pq.write_table(pa.table({"text": DOCUMENTS}), file)
    else:
        raw = lines if ".jsonl" in kind else joined
        file.write_bytes(lzma.compress(raw) if kind.endswith(".xz") else raw)
    return file


@pytest.mark.parametrize("kind", [".txt", ".txt.xz", ".jsonl", ".jsonl.xz", ".parquet"])
def test_every_kind_of_source_gives_the_same_documents(tmp_path: Path, kind: str) -> None:
    assert [d.decode() for d in read_documents([write(tmp_path, kind)])] == DOCUMENTS


def test_a_folder_holds_the_exact_text(tmp_path: Path) -> None:
    source = write(tmp_path, ".txt")
    answer = prepare(tmp_path / "data", [source], vocab_size=300, val_fraction=0.2)
    data = DataFolder(tmp_path / "data")
    data.verify()
    texts = []
    for split in ("train", "val"):
        tokens = getattr(data, split)[:]
        assert tokens[0] == data.tokenizer.bos_id
        assert answer[split]["tokens"] == len(tokens)
        assert data.byte_counts(split).sum() == answer[split]["bytes"]
        texts.append(data.tokenizer.decode(tokens))
    assert sum(map(len, texts)) == sum(map(len, DOCUMENTS))
    assert answer["train"]["documents"] + answer["val"]["documents"] == len(DOCUMENTS)


@pytest.mark.parametrize("kind", [".txt", ".txt.xz"])
def test_of_a_text_that_is_one_document_the_end_is_held_out(tmp_path: Path, kind: str) -> None:
    whole = "\n".join(DOCUMENTS).encode()
    source = tmp_path / f"novel{kind}"
    source.write_bytes(lzma.compress(whole) if kind.endswith(".xz") else whole)
    answer = prepare(tmp_path / "data", [source], vocab_size=300, val_fraction=0.2)
    data = DataFolder(tmp_path / "data")
    train, val = (data.tokenizer.decode(getattr(data, split)[:]) for split in ("train", "val"))
    assert train + val == whole
    assert train.endswith(b"\n")
    assert 0.2 <= len(val) / len(whole) < 0.25
    assert answer["train"]["documents"] == answer["val"]["documents"] == 1


def test_no_validation_document_is_trained_on(tmp_path: Path) -> None:
    source = write(tmp_path, ".txt")
    val = tmp_path / "val.txt"
    val.write_text("\0".join(DOCUMENTS[:7]))
    answer = prepare(tmp_path / "data", [source], vocab_size=300, val=[val])
    assert answer["train"]["dropped_because_in_val"] == 7
    assert answer["train"]["documents"] == len(DOCUMENTS) - 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab_size": 300}, "--val"),
        ({"val_fraction": 0.1}, "--vocab-size"),
        ({"vocab_size": 90_000, "val_fraction": 0.1}, "no tokenizer of 90000"),
        ({"vocab_size": 300, "val_fraction": 1e-9}, "no val document"),
    ],
)
def test_what_the_user_can_mend_is_said_and_nothing_is_left(
    tmp_path: Path, options: dict, message: str
) -> None:
    source = write(tmp_path, ".txt")
    with pytest.raises(ValueError, match=message):
        prepare(tmp_path / "data", [source], **options)
    assert [file.name for file in tmp_path.iterdir()] == [source.name]


def test_unreadable_sources_are_named(tmp_path: Path) -> None:
    (tmp_path / "bad.txt.xz").write_bytes(b"not xz")
    (tmp_path / "bad.jsonl").write_text('{"text": 3}')
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    for file in sorted(tmp_path.iterdir()):
        with pytest.raises(ValueError, match="bad"):
            list(read_documents([file]))
    with pytest.raises(ValueError, match="no such source"):
        list(read_documents([tmp_path / "none.txt"]))
