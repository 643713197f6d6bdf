import pytest

from fairway.text import builtin_documents, split_documents


def test_every_python_carries_two_megabytes_of_prose() -> None:
    documents = builtin_documents()
    assert 1_500_000 < sum(map(len, documents)) < 4_000_000
    assert len(set(documents)) == len(documents)
    assert all(document.strip() for document in documents)


def test_a_split_shares_out_every_document_once() -> None:
    documents = [bytes([65 + i]) * (10 + i) for i in range(20)]
    train, val = split_documents(documents, val_fraction=0.2, seed=3)
    assert sorted(train + val) == sorted(documents)
    assert (train, val) == split_documents(documents, val_fraction=0.2, seed=3)
    assert 0.15 < sum(map(len, val)) / sum(map(len, documents)) < 0.35


def test_one_document_cannot_be_split() -> None:
    with pytest.raises(ValueError, match="--val"):
        split_documents([b"alone"])
