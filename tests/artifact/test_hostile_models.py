"""A model file with true checksums and false content: one line, at once, whatever it asks for."""

import json
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch

from fairway.artifact.config_json import config_to_json
from fairway.artifact.container import FREE_WEIGHTS, pack
from fairway.artifact.loaded_model import load_model
from fairway.artifact.sections import Section, pack_frame, unpack_frame
from fairway.model.attention import AttentionConfig, GateConfig
from fairway.model.depth import Loop
from fairway.model.embedding import EmbeddingConfig, NgramTableConfig, ValueEmbeddingConfig
from fairway.model.gpt import GPT
from fairway.model.model_config import ModelConfig
from fairway.tokens.tokenizer import ByteTokenizer

CONFIG = ModelConfig(
    vocab_size=260,
    model_dim=16,
    num_layers=3,
    attention=AttentionConfig(num_heads=2, num_kv_heads=1, gate=GateConfig(window=4)),
    embedding=EmbeddingConfig(
        ngrams=(NgramTableConfig(buckets=8, dim=4),),
        smear="v2",
        value=ValueEmbeddingConfig(dim=4, layers=(1,)),
    ),
    loop=Loop(first=1, last=1),
)


def model_file(changed_weights: dict[str, torch.Tensor] | None = None) -> bytes:
    weights = {name: t.half() for name, t in GPT(CONFIG).shipped_state_dict().items()}
    settings = {"model": config_to_json(CONFIG)}
    return pack(settings, ByteTokenizer().to_bytes(), weights | (changed_weights or {}))


TRUE = model_file()


def with_header(change: dict[str, Any], data: bytes = TRUE) -> bytes:
    """The file with other parts of its header, checksums and all."""
    frame = unpack_frame(b"FWY1", data, "a model")
    return pack_frame(b"FWY1", {**frame.header, **change}, list(frame.sections.values()))


def with_setting(path: str, value: object) -> bytes:
    config = json.loads(json.dumps(unpack_frame(b"FWY1", TRUE, "a model").header["config"]))
    inner = config
    *steps, last = path.split(".")
    for step in steps:
        inner = inner[step]
    inner[last] = value
    return with_header({"config": config})


def refusal(path: Path, data: bytes) -> str:
    """How a file is refused: in one line, within seconds, without much memory."""
    path.write_bytes(data)
    tracemalloc.start()
    begin = time.process_time()
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        load_model(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.process_time() - begin < 10  # tracing takes its share
    assert peak < 200e6
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 1000
    return str(refused.value)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("model.num_layers", 10**6, "num_layers=1000000 must lie within"),
        ("model.num_layers", 510, "510 layers of"),
        ("model.num_layers", 10**400, "num_layers=1000"),
        ("model.num_layers", True, "must be int"),
        ("model.model_dim", 2**40, "model_dim="),
        ("model.model_dim", 2**16, "do not fit the model's config"),
        ("model.vocab_size", -1, "vocab_size=-1"),
        ("model.vocab_size", 2**40, "vocab_size="),
        ("model.train_context", 2**60, "train_context="),
        ("model.bos_id", 260, "bos_id=260"),
        ("model.extra_heads", -1, "extra_heads=-1"),
        ("model.logit_softcap", 1e-320, "logit_softcap="),
        ("model.attention.num_heads", 0, "num_heads=0"),
        ("model.attention.num_kv_heads", 0, "num_kv_heads=0"),
        ("model.attention.rope_dims", -2, "rope_dims=-2"),
        ("model.attention.rope_base", 0, "rope_base=0"),
        ("model.attention.rope_base", 10**400, "must be float"),
        ("model.attention.exclusive_layers", -1, "exclusive_layers=-1"),
        ("model.attention.gate.window", 17, "gate.window=17"),
        ("model.attention.gate.window", -1, "window=-1"),
        ("model.attention.gate.scale", 1e300, "scale="),
        ("model.mlp.ratio", -1.0, "ratio=-1"),
        ("model.mlp.ratio", 1e300, "ratio="),
        ("model.mlp.slope", 1e300, "slope="),
        ("model.embedding.dim", 0, "dim=0"),
        ("model.embedding.smear_window", 17, "smear_window=17"),
        ("model.embedding.ngrams", [{}] * 10**5, "lists 100,000 values"),
        ("model.embedding.ngrams", [{}] * 17, "17 n-gram tables"),
        ("model.embedding.ngrams", [{"dim": 2**50}], "dim="),
        ("model.embedding.value.layers", [1] * 10**6, "lists 1,000,000 values"),
        ("model.embedding.value.layers", [1, 1], "names a layer twice"),
        ("model.embedding.value.layers", list(range(10_000)), "value embedding in layers"),
        ("model.loop.extra_passes", 10**9, "extra_passes="),
        ("model.loop.extra_passes", 511, "more than 512 layers"),
        ("model.parallel", {"start": -1}, "start=-1"),
        ("model.skips", True, "must be"),
        ("model.init", {"type": "os:system"}, "must be"),
        ("model.x\ny", 1, "no field"),
        ("loops_active", "no", "'loops_active' is 'no'"),
        ("evaluate", [1], "'evaluate' is"),
    ],
)
def test_a_config_that_asks_too_much_is_refused(
    tmp_path: Path, path: str, value: object, words: str
) -> None:
    assert words in refusal(tmp_path / "model.fwy", with_setting(path, value))


@pytest.mark.parametrize(
    "lines",
    [
        [["more", "codes", [2**14, 2**14], 2**14, 6]],
        [["more", "codes", [FREE_WEIGHTS * 4], 1, 2]],
        [["more", "half", [2**28]]],
        [["more", "low_rank", [16, 16], 16, 6, 2**24, 2, 4, 64]],
        [["more", "low_rank", [2**20], 2**20, 6, 1, 2, 4, 1]],
        [["more", "codes", [16, 16], 16, 6]],
        [[f"{i}", "half", [0]] for i in range(20_000)],
        [["n" * 10**5, "half", [1]]],
        [["a\nb", "half", [1]]],
        [["more", "half", [1] * 10**5]],
        [["more", "codes", [1] * 1000, 7, 6]],
    ],
    ids=lambda lines: str(lines)[:40],
)
def test_weights_that_no_model_has_are_refused_before_they_are_decoded(
    tmp_path: Path, lines: list
) -> None:
    told = unpack_frame(b"FWY1", TRUE, "a model").header["tensors"]
    refusal(tmp_path / "model.fwy", with_header({"tensors": told + lines}))


def test_weights_beyond_what_their_bytes_may_hold_are_refused_on_both_ways(tmp_path: Path) -> None:
    zeros = {"more": torch.zeros(2 * FREE_WEIGHTS)}
    with pytest.raises(ValueError, match=r"524,288 weights in .* bytes, which may hold"):
        pack({}, b"", zeros)
    megabyte = Section("codes", "stored", bytes(1 << 20))
    lines = [["more", "codes", [2**14, 2**14], 2**14, 2]]
    data = pack_frame(b"FWY1", {"config": {}, "tensors": lines}, [megabyte])
    assert "268,451,840 weights in 1,048,576 bytes" in refusal(tmp_path / "model.fwy", data)
    lines = [["more", "float", [2 * FREE_WEIGHTS]]]
    empty = [Section(name, "stored", b"") for name in ("tokenizer", "codes", "scales", "half")]
    data = pack_frame(b"FWY1", {"config": {}, "tensors": lines}, empty)
    assert "which may hold" in refusal(tmp_path / "model.fwy", data)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_a_weight_that_is_no_number_is_named(tmp_path: Path, wrong: float) -> None:
    weight = torch.zeros(16)
    weight[3] = wrong
    data = model_file({"blocks.1.mlp_scale": weight})
    found = refusal(tmp_path / "model.fwy", data)
    assert "blocks.1.mlp_scale holds numbers that are not finite" in found


def test_a_file_larger_than_any_model_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "model.fwy").open("wb") as file:
        file.truncate(1 << 40)  # of nothing
    with pytest.raises(ValueError, match="has 1,099,511,627,776 bytes"):
        load_model(tmp_path / "model.fwy")


def test_the_file_that_all_these_were_made_from_is_read(tmp_path: Path) -> None:
    (tmp_path / "model.fwy").write_bytes(with_header({}))
    assert load_model(tmp_path / "model.fwy").model.config == CONFIG
