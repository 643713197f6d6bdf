"""Text in CaseOps form through the whole chain: what is counted and what comes back is original."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fairway.artifact.loaded_model import load_model
from fairway.generate import GenerateConfig, generate
from fairway.pipeline.story import RunOptions, check_fit, run_on
from fairway.prepare import Request, prepare_documents, prepare_request
from fairway.proof.compress import compress, decompress
from fairway.proof.verify import verify
from fairway.recipes.registry import recipe, smoke
from fairway.runtime.distributed import Ranks
from fairway.runtime.run_log import RunLog
from fairway.runtime.setup import Runtime
from fairway.tokens.shards import DataFolder, open_shard
from fairway.tokens.tokenizer import CaseTokenizer

VERSES = [
    " ".join(f"{(i + 3) * k} Bottles OF iBeer hang \ue001 on Wall {i} \u1e9e" for k in range(9))
    for i in range(30)
]
TEXTS = [verse.encode() + b"\xee\x80 \xff" for verse in VERSES]
TRAIN, VAL = TEXTS[:-3], TEXTS[-3:]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    out = tmp_path_factory.mktemp("made") / "data"
    prepare_documents(out, TRAIN, VAL, vocab_size=300, source="a song", transform="caseops")
    return DataFolder(out)


def test_the_folder_says_so_and_has_the_original_bytes(data: DataFolder) -> None:
    assert data.manifest["tokenizer"]["transform"] == "caseops"
    assert "val_bytes_000000.bin" in data.manifest["sha256"]
    assert isinstance(data.tokenizer, CaseTokenizer)
    counts = data.byte_counts("val")
    assert counts.sum() == sum(map(len, VAL))
    side = open_shard(data.path / "val_bytes_000000.bin")
    tokens = data.val[:]
    assert len(side) == len(tokens)
    assert not side[tokens == data.tokenizer.bos_id].any()
    assert np.array_equal(side[1:], counts)
    starts = np.flatnonzero(tokens == data.tokenizer.bos_id)
    assert [data.tokenizer.decode(part) for part in np.split(tokens, starts)[1:]] == VAL


def test_shards_of_any_size_have_the_same_bytes(data: DataFolder, tmp_path: Path) -> None:
    for name, texts in (("train", TRAIN), ("val", VAL)):
        (tmp_path / name).mkdir()
        for number, text in enumerate(texts):
            (tmp_path / name / f"{number:02d}.txt").write_bytes(text)
    request = Request(
        vocab_size=300, val=[tmp_path / "val"], tokens_per_shard=50, transform="caseops"
    )
    prepare_request(tmp_path / "out", [tmp_path / "train"], request)
    cut = DataFolder(tmp_path / "out")
    assert len(cut.shard_files("val")) > 5
    assert np.array_equal(cut.byte_counts("val"), data.byte_counts("val"))
    cut.verify()


def test_a_recipe_that_wants_the_transform_refuses_other_data(tmp_path: Path) -> None:
    prepare_documents(tmp_path / "data", TRAIN, VAL, vocab_size=300, source="a song")
    wanted = smoke(recipe("pocket"))
    wanted = replace(wanted, tokens=replace(wanted.tokens, transform="caseops"))
    with pytest.raises(ValueError, match="prepare it with --transform caseops"):
        check_fit(wanted, DataFolder(tmp_path / "data"))


def test_a_tokenizer_made_for_other_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes(TRAIN[0])
    request = Request(tokenizer=Path("bytes"), val_fraction=0.1, transform="caseops")
    with pytest.raises(ValueError, match="was not made for transform 'caseops'"):
        prepare_request(tmp_path / "out", [tmp_path / "text.txt"], request)


@pytest.mark.slow
def test_the_whole_chain_returns_original_text(data: DataFolder, tmp_path: Path) -> None:
    here = Runtime(torch.device("cpu"), torch.float32, Ranks(), RunLog(None, quiet=True))
    made = smoke(recipe("pocket"))
    made = replace(made, tokens=replace(made.tokens, transform="caseops"))
    options = RunOptions(proof_tokens=200, audit_seconds=20, compute_dtype="float32")
    result = run_on(here, made, data, tmp_path, options)
    assert result.audit is not None
    assert result.audit.verdict == "legal", result.audit.text()
    assert result.audit.probes["bytes"].ok
    assert result.score is not None
    assert result.score.bytes == sum(map(len, VAL))
    loaded = load_model(tmp_path / "model.fwy")
    assert isinstance(loaded.tokenizer, CaseTokenizer)
    text = TRAIN[0][:300]
    assert decompress(loaded, compress(loaded, text)) == text
    written = b"".join(generate(loaded, b"Ten BOTTLES", GenerateConfig(num_tokens=40)))
    assert b"\xee\x80\x83" not in written
    assert VAL[0].startswith(verify(tmp_path / "proof.fwp", loaded).documents[0])
