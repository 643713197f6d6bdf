"""Proofs and compressed files with true checksums that ask for too much, or say what cannot be."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import brotli
import numpy as np
import pytest

from fairway.artifact.loaded_model import LoadedModel
from fairway.artifact.sections import Refused, Section, pack_frame, unpack_frame
from fairway.coding.codecs import shuffle
from fairway.evaluate.config import EvaluateConfig
from fairway.evaluate.learners.mixture import Mixture
from fairway.evaluate.learners.sgd import Sgd
from fairway.proof.compress import CompressConfig, code, decompress
from fairway.proof.decoder_limits import MOST_EVERY, MOST_TOKENS, check_coding, check_evaluation
from fairway.proof.proof_file import ProofFile
from fairway.proof.prove import evaluation_of, prove

from .conftest import corpus, loaded

LEARNING = EvaluateConfig(
    context=16, stride=8, ttt=Sgd(chunk_tokens=16, epochs=1), mixture=Mixture(orders=(1, 2))
)
TEXT = b"to be or not to be"
Change = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return loaded(LEARNING)


@pytest.fixture(scope="module")
def proof(model: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path: Path = tmp_path_factory.mktemp("proof") / "text.proof"
    prove(model, corpus([TEXT]), out=path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def packed(model: LoadedModel) -> bytes:
    return code(model, TEXT, CompressConfig(segments=2))


def changed(data: bytes, path: str, value: object) -> bytes:
    """The file with one field of its header set, and true checksums."""
    frame = unpack_frame(data[:4], data, "a file")
    inner = frame.header
    *steps, last = path.split(".")
    for step in steps:
        inner = inner[step]
    inner[last] = value
    return pack_frame(data[:4], frame.header, list(frame.sections.values()))


def with_section(data: bytes, name: str, codec: str, content: bytes) -> bytes:
    frame = unpack_frame(data[:4], data, "a file")
    sections = {**frame.sections, name: Section(name, codec, content)}
    return pack_frame(data[:4], frame.header, list(sections.values()))


def refused_at_once(read: Callable[[], object]) -> None:
    begin = time.process_time()
    with pytest.raises(Refused) as refused:
        read()
    assert time.process_time() - begin < 2
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("num_tokens", 2**30),
        ("num_tokens", MOST_TOKENS),
        ("num_tokens", 10**6),
        ("num_chunks", 2**62),
        ("first_token", 2**40),
        ("threads", 10**6),
        ("threads", 0),
        ("seed", -1),
        ("seed", 2**64),
        ("walk.rows", 10**9),
        ("walk.every", 2**40),
        ("walk.pad_to", 2**40),
        ("text_sha256", "x"),
        ("circumstances", {"torch": "\x1b[2J"}),
        ("circumstances", {str(i): "" for i in range(1000)}),
        ("evaluate.documents", True),
        ("evaluate.context", 2**40),
        ("evaluate.rows", 10**9),
        ("evaluate.ttt.epochs", 10**9),
        ("evaluate.ttt.chunk_tokens", 2**40),
        ("evaluate.ttt.lr", 1e300),
        ("evaluate.ttt.weight_decay", 1e300),
        ("evaluate.ttt.frozen_blocks", -1),
        ("evaluate.ttt.type", []),
        ("evaluate.mixture.orders", list(range(100))),
        ("evaluate.mixture.orders", [1] * 10_000),
        ("evaluate.mixture.orders", [10**9]),
        ("evaluate.mixture.fade", 1e300),
    ],
)
def test_a_proof_that_asks_too_much_is_refused(proof: bytes, path: str, value: object) -> None:
    data = changed(proof, path, value)
    refused_at_once(lambda: ProofFile.from_bytes(data))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("num_tokens", 2**30),
        ("num_tokens", -1),
        ("segments", 10**9),
        ("segments", 0),
        ("threads", 10**6),
        ("every", 2**40),
        ("every", 0),
        ("text", "x"),
        ("made", {"torch": "\n"}),
    ],
)
def test_a_compressed_file_that_asks_too_much_is_refused(
    model: LoadedModel, packed: bytes, path: str, value: object
) -> None:
    data = changed(packed, path, value)
    refused_at_once(lambda: decompress(model, data))


@pytest.mark.parametrize("where", [[0, 10**6], [0, 0, 0], list(range(10**5))])
def test_documents_that_are_not_there_are_refused(proof: bytes, where: list[int]) -> None:
    raw = shuffle(np.diff(np.array(where, "<u4")).tobytes(), 4)
    data = with_section(proof, "starts", "brotli", brotli.compress(raw, quality=1))
    refused_at_once(lambda: ProofFile.from_bytes(data))
    documents = changed(data, "evaluate.documents", True)
    refused_at_once(lambda: ProofFile.from_bytes(documents))


@pytest.mark.parametrize("content", [b"", b"123", bytes(1 << 22)], ids=len)
def test_checkpoints_that_fit_no_text_are_refused(proof: bytes, content: bytes) -> None:
    data = with_section(proof, "checkpoints", "stored", content)
    if content == b"":  # a short text may have been cut before its only one: decoding finds out
        assert ProofFile.from_bytes(data).checkpoints == ()
        return
    refused_at_once(lambda: ProofFile.from_bytes(data))


def test_a_models_evaluation_has_the_same_limits(model: LoadedModel) -> None:
    assert evaluation_of(model) == LEARNING
    hostile = {**model.evaluate, "rows": 10**9}
    with pytest.raises(ValueError, match=r"EvaluateConfig.rows=1000000000 must lie within 1 and"):
        evaluation_of(replace(model, evaluate=hostile))
    check_evaluation(LEARNING)


def test_a_short_file_asks_for_no_more_than_it_could_hold(proof: bytes) -> None:
    """64 KB of checkpoints speak for 2**26 tokens, for which memory would be taken at once."""
    data = with_section(proof, "checkpoints", "stored", bytes(1 << 16))
    for path, value in (("walk.every", MOST_EVERY), ("num_tokens", MOST_TOKENS)):
        data = changed(data, path, value)
    refused_at_once(lambda: ProofFile.from_bytes(data))
    numbers = {"every": MOST_EVERY, "rows": 1, "threads": 1, "checkpoints": None}
    with pytest.raises(ValueError, match="67,108,864 tokens in a file of 65,536 bytes"):
        check_coding(num_tokens=MOST_TOKENS, windows=1, file_bytes=1 << 16, **numbers)
    with pytest.raises(ValueError, match="1,000,000 windows in a file of 65,536 bytes"):
        check_coding(num_tokens=1 << 20, windows=10**6, file_bytes=1 << 16, **numbers)
    # The field's whole validation text, and a minute of silence.
    check_coding(num_tokens=62 * 10**6, windows=10**6, file_bytes=18 * 10**6, **numbers)
    check_coding(num_tokens=1 << 20, windows=1 << 14, file_bytes=2000, **numbers)


@pytest.mark.parametrize("every", [1, 7, MOST_EVERY])
@pytest.mark.parametrize("rows", [1, 32])
@pytest.mark.parametrize("coded", [1, 6, 7, 8, 5000, 100_000])
def test_true_numbers_of_checkpoints_pass(every: int, rows: int, coded: int) -> None:
    """As `Checkpoints` counts them, with all rows in step or one at a time."""
    for step in (1, rows):
        noted, due, done = 1, every, 0
        while done < coded:
            done = min(done + step, coded)
            if done >= due:
                noted, due = noted + 1, done + every
        check_coding(
            num_tokens=coded + 1, every=every, rows=rows, threads=1, windows=1, checkpoints=noted
        )


def test_what_could_not_be_read_back_is_not_written(model: LoadedModel) -> None:
    with pytest.raises(ValueError, match="threads: it must be 1 to 256"):
        code(model, TEXT, CompressConfig(threads=1000))
