"""One small, true file of each kind that fairway reads, and what reading it comes to.

A reading goes as far as a user would: a model scores a text, a proof and a compressed file decode,
a tokenizer turns bytes into ids and back. It returns a digest of what came out.
"""

import hashlib
import io
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import sentencepiece
import torch
from foreign import foreign_samples
from kinds import Sample
from run_files import run_samples

from fairway.artifact.config_json import config_to_json
from fairway.artifact.container import pack
from fairway.artifact.loaded_model import LoadedModel, load_model
from fairway.evaluate.chunks import cut_chunk
from fairway.evaluate.config import EvaluateConfig, make_predictor, plan_evaluation
from fairway.evaluate.learners.mixture import Mixture
from fairway.evaluate.learners.sgd import Sgd
from fairway.model.attention import AttentionConfig, GateConfig
from fairway.model.depth import Loop
from fairway.model.embedding import EmbeddingConfig, NgramTableConfig, ValueEmbeddingConfig
from fairway.model.gpt import GPT
from fairway.model.mlp import MlpConfig
from fairway.model.model_config import ModelConfig, SkipConfig
from fairway.prepare import prepare_documents
from fairway.proof.compress import CompressConfig, code, decompress
from fairway.proof.prove import evaluation_of, prove
from fairway.proof.verify import verify
from fairway.quant.lowrank import LowRankConfig, fit_low_rank
from fairway.quant.quantized import QuantizedTensor
from fairway.quant.schemes import RoundRows
from fairway.runtime.tensor_file import read_tensors, write_tensors
from fairway.tokens.byte_count import byte_table
from fairway.tokens.shards import DataFolder
from fairway.tokens.tokenizer import ByteTokenizer, load_tokenizer, train_bpe
from fairway.tokens.val_text import ValText

TEXT = b"The cat sat on the mat, and the dog sat on the cat. " * 3
ODD = "caf\u00e9 \u2581 na\u00efve \ufb01\u2460 \u1112\u1161\u11ab\0".encode() + b"\xff\xfe end"
CONFIG = ModelConfig(
    vocab_size=260,
    model_dim=16,
    num_layers=3,
    attention=AttentionConfig(num_heads=2, num_kv_heads=1, gate=GateConfig(window=4)),
    mlp=MlpConfig(ratio=2.0),
    embedding=EmbeddingConfig(
        ngrams=(NgramTableConfig(buckets=64, dim=8),),
        smear="v2",
        smear_window=4,
        value=ValueEmbeddingConfig(dim=8, layers=(1,)),
    ),
    train_context=16,
    skips=SkipConfig(gated=True),
    loop=Loop(first=1, last=1, extra_passes=1),
)
EVALUATE = EvaluateConfig(
    stride=8,
    rows=4,
    ttt=Sgd(chunk_tokens=32, epochs=1, batch_sequences=2),
    mixture=Mixture(orders=(1, 2, 4)),
)


def make_samples(folder: Path) -> dict[str, Sample]:
    """One of each kind, under `folder`, by kind."""
    torch.manual_seed(0)
    found = [_model(folder / "model")]
    loaded = load_model(found[0].folder / found[0].name)
    found += [
        _proof(folder / "proof", loaded),
        _compressed(folder / "compressed", loaded),
        *_data(folder / "data"),
        _tokenizer(folder / "tokenizer"),
        _sentencepiece(folder / "sentencepiece"),
        _tensors(folder / "tensors"),
    ]
    (folder / "foreign").mkdir()
    found += foreign_samples(folder / "foreign", found[-2].data)
    found += run_samples(folder / "run", folder / "data")
    return {sample.kind: sample for sample in found}


def _model(folder: Path) -> Sample:
    folder.mkdir()
    (folder / "model.fwy").write_bytes(model_bytes())
    return Sample("model", folder, "model.fwy", read_model)


def model_bytes(made: ModelConfig = CONFIG, tokenizer: bytes | None = None) -> bytes:
    """tokenizer  None: that of bytes"""
    model = GPT(made)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    tensors: dict[str, QuantizedTensor | torch.Tensor] = {}
    for name, weight in model.shipped_state_dict().items():
        if name.endswith("mlp.up.weight"):
            codes, scale = RoundRows(4, 4.0).round_rows(weight)
            fitted = fit_low_rank(0.1 * weight, LowRankConfig(rank=2, group=8))
            tensors[name] = QuantizedTensor(
                codes=codes, scale=scale, bits=4, shape=tuple(weight.shape), low_rank=fitted
            )
        elif weight.ndim == 2 and "blocks" in name and "gate" not in name:
            codes, scale = RoundRows(6, 4.0).round_rows(weight)
            tensors[name] = QuantizedTensor(
                codes=codes, scale=scale, bits=6, shape=tuple(weight.shape)
            )
        else:
            tensors[name] = weight if weight.ndim < 2 else weight.half()
    config = {"model": config_to_json(made), "evaluate": config_to_json(EVALUATE)}
    pieces = ByteTokenizer().to_bytes() if tokenizer is None else tokenizer
    return pack(config, pieces, tensors, {"note": b"made to be damaged"})


def read_model(folder: Path) -> str:
    """Load it and score a text as it says, learning on the way."""
    loaded = load_model(folder / "model.fwy")
    config = evaluation_of(loaded).resolved(loaded.model.config.train_context)
    ids = [loaded.tokenizer.bos_id, *loaded.tokenizer.encode(TEXT[:80]).tolist()]
    tokens = torch.tensor(ids)
    predictor, digest = make_predictor(loaded.model, config), hashlib.sha256()
    for plan in plan_evaluation(config, len(tokens), [0]):
        chunk = cut_chunk(plan, ValText(tokens, torch.ones(len(tokens) - 1, dtype=torch.long), ()))
        nats = predictor.score(chunk)
        if not nats.isfinite().all():
            raise AssertionError("a score that is no number")
        digest.update(nats.numpy().tobytes())
        predictor.learn(chunk)
    return digest.hexdigest()


def _proof(folder: Path, loaded: LoadedModel) -> Sample:
    folder.mkdir()
    ids = [loaded.tokenizer.bos_id, *loaded.tokenizer.encode(TEXT[:80]).tolist()]
    tokens = torch.tensor(ids)
    target_bytes = torch.from_numpy(byte_table(loaded.tokenizer).target_bytes(np.array(ids)))
    prove(loaded, ValText(tokens, target_bytes, (0,)), out=folder / "text.proof")
    return Sample("proof", folder, "text.proof", partial(_read_proof, loaded=loaded), unique=True)


def _read_proof(folder: Path, loaded: LoadedModel) -> str:
    return hashlib.sha256(b"".join(verify(folder / "text.proof", loaded).documents)).hexdigest()


def _compressed(folder: Path, loaded: LoadedModel) -> Sample:
    folder.mkdir()
    # Coded even where storing it is smaller: what is stored has nothing to read.
    (folder / "text.fwc").write_bytes(code(loaded, TEXT[:60], CompressConfig(segments=2)))
    read = partial(_read_compressed, loaded=loaded)
    return Sample("compressed", folder, "text.fwc", read, unique=True)


def _read_compressed(folder: Path, loaded: LoadedModel) -> str:
    return hashlib.sha256(decompress(loaded, (folder / "text.fwc").read_bytes())).hexdigest()


def _data(folder: Path) -> list[Sample]:
    val = [TEXT[:90], TEXT[30:99]]
    prepare_documents(folder, [TEXT] * 9, val, vocab_size=290, source="a cat")
    bare = folder.with_name("bare")
    shutil.copytree(folder, bare)
    (bare / "data.json").unlink()  # as the field's own folders are
    return [
        Sample("shard", folder, "val_000000.bin", _read_data),
        Sample("tokenizer of a data folder", folder, "tokenizer.model", _read_data),
        Sample("data.json", folder, "data.json", _read_data),
        Sample("shard without hashes", bare, "val_000000.bin", _read_data),
    ]


def _read_data(folder: Path) -> str:
    data = DataFolder(folder)
    digest = hashlib.sha256(data.val[:].tobytes())
    digest.update(data.byte_counts("val").tobytes())
    digest.update(data.tokenizer.to_bytes())
    return digest.hexdigest()


def _tokenizer(folder: Path) -> Sample:
    folder.mkdir()
    (folder / "own.model").write_bytes(train_bpe([TEXT * 4], 290).to_bytes())
    return Sample("our tokenizer", folder, "own.model", partial(_read_tokenizer, name="own.model"))


def _sentencepiece(folder: Path) -> Sample:
    """As it is published: with normalization, byte pieces, and a BOS."""
    folder.mkdir()
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([TEXT.decode()] * 9),
        model_writer=model,
        vocab_size=300,
        model_type="bpe",
        byte_fallback=True,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
    )
    (folder / "sp.model").write_bytes(model.getvalue())
    return Sample("SentencePiece", folder, "sp.model", partial(_read_tokenizer, name="sp.model"))


def _read_tokenizer(folder: Path, name: str) -> str:
    tokenizer = load_tokenizer(folder / name)
    digest = hashlib.sha256()
    for text in (TEXT, ODD):
        ids = tokenizer.encode(text)
        back = tokenizer.decode(ids.tolist())
        if tokenizer.lossless and back != text:
            raise AssertionError("other bytes came back")
        digest.update(ids.tobytes() + back)
        digest.update(byte_table(tokenizer).target_bytes(ids).tobytes())
    return digest.hexdigest()


def _tensors(folder: Path) -> Sample:
    folder.mkdir()
    tensors = {"weight": torch.randn(9, 7), "step": torch.arange(3), "half": torch.ones(5).half()}
    write_tensors(folder / "state.safetensors", tensors, {"step": 3, "seconds": 1.5})
    return Sample("tensor file", folder, "state.safetensors", _read_tensors, unique=True)


def _read_tensors(folder: Path) -> str:
    found = read_tensors(folder / "state.safetensors", "a checkpoint of training")
    digest = hashlib.sha256(repr(sorted(found.facts.items())).encode())
    for name, tensor in sorted(found.tensors.items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()
