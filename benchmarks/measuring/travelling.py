"""The proofs that `travel.py` sends round: every way to learn on every kind of text, encoded once.

They lie in a folder, each with what is known of it beside it, and what lies there is not encoded
again.
"""

import argparse
import json
import random
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from fairway.artifact.loaded_model import LoadedModel
from fairway.evaluate.config import EvaluateConfig
from fairway.evaluate.learners.documents import DocumentAdapters
from fairway.evaluate.learners.mixture import Mixture
from fairway.evaluate.learners.sgd import Sgd
from fairway.proof.prove import evaluation_of, prove, validation_text
from fairway.tokens.shards import DataFolder
from fairway.tokens.val_text import ValText
from measuring.decoding import texts_sha256
from measuring.rows import Value, show

IN_LESSONS = frozenset({"SGD", "Muon"})  # learn from chunks of the text, whatever documents it has


@dataclass(frozen=True)
class Proof:
    way: str
    text: str
    path: Path
    expected: str  # sha256 of the text, see `texts_sha256`


def ways(
    own: EvaluateConfig, tokens: int, documents: int, lessons: int
) -> dict[str, EvaluateConfig]:
    """How a text is scored, documents apart so that there are rows to stand in step."""
    chunk = max(4, tokens // lessons // 4 * 4)
    base = replace(
        own,
        arithmetic="settled",
        precision="float32",
        # Adapters learn after each stride of a document but its last one.
        stride=max(1, min(own.stride, chunk // 2, tokens // documents // 3)),
        rows=32,
        documents=True,
        ttt=None,
        mixture=None,
        tilt=None,
    )
    chunk -= chunk % base.stride
    steps = Sgd(chunk_tokens=chunk, epochs=1, lr=0.005, batch_sequences=4)
    muon = replace(steps, chunk_tokens=4 * chunk, lr=0.002, optimizer="muon")  # takes its time
    adapters = DocumentAdapters()
    adapters = replace(adapters, adapters=replace(adapters.adapters, rank=8))
    return {
        "frozen": base,
        "SGD": replace(base, ttt=steps),
        "Muon": replace(base, ttt=muon),
        "adapters": replace(base, rows=min(32, documents), ttt=adapters),
        "mixture": replace(base, mixture=Mixture()),
    }


def texts(loaded: LoadedModel, data: DataFolder, book: Path | None) -> dict[str, bytes]:
    """The run's own text, a chapter, what is no text at all, and what is too easy."""
    own = loaded.tokenizer.decode(validation_text(loaded, data).tokens[:100_000].tolist())
    found = {
        "own": own,
        "junk": random.Random(0).randbytes(100_000),
        "one letter": b"a" * 300_000,
    }
    return found if book is None else found | {"book": book.read_bytes()}


def first_tokens(loaded: LoadedModel, data: bytes, tokens: int, documents: int) -> ValText:
    """About so many tokens of a text, as equally long documents."""
    each = max(1, tokens // documents)
    ids = loaded.tokenizer.encode(data).tolist()[: each * documents]
    parts = [loaded.tokenizer.decode(ids[i : i + each]) for i in range(0, len(ids), each)]
    return ValText.of_documents(parts, loaded.tokenizer)


def encoded(
    loaded: LoadedModel, data: DataFolder, args: argparse.Namespace, folder: Path
) -> list[Proof]:
    """Every way on every text. Told of each: what the ties took, and how far the guard's sample
    came apart, where that was asked for."""
    own = evaluation_of(loaded).resolved(loaded.model.config.train_context)
    proofs = []
    for name, content in texts(loaded, data, args.book).items():
        if args.texts is not None and name not in args.texts:
            continue
        for way, config in ways(own, args.tokens, args.documents, args.lessons).items():
            path, known = folder / f"{way}, {name}.fwp", folder / f"{way}, {name}.json"
            if not known.is_file():
                a_lesson = args.documents_a_lesson if way in IN_LESSONS else None
                documents = args.documents if a_lesson is None else args.lessons * a_lesson
                text = first_tokens(loaded, content, args.tokens, documents)
                facts = _encoded(loaded, text, config, path, guard=args.guard)
                known.write_text(json.dumps(facts))
            facts = json.loads(known.read_text())
            show(f"encoded: {way}, {name}", **{k: v for k, v in facts.items() if k != "sha256"})
            proofs.append(Proof(way, name, path, facts["sha256"]))
    return proofs


def _encoded(
    loaded: LoadedModel, text: ValText, config: EvaluateConfig, path: Path, *, guard: bool
) -> dict[str, Value]:
    """Write a proof; returns what is to be known of it."""
    certificate = prove(loaded, text, out=path, evaluate=config, guard=guard, decode_seconds=0.0)
    if not certificate.holds:
        raise SystemExit(f"{path.stem}: {certificate.verdict}")
    settled = certificate.settled
    assert settled is not None
    ids = text.tokens.long()
    starts = [*text.document_starts, len(ids)]
    documents = [loaded.tokenizer.decode(ids[a + 1 : b].tolist()) for a, b in pairwise(starts)]
    deviations = {
        "logit_deviation": settled.deviation,
        "gradient_deviation": settled.gradient_deviation,
        "state_deviation": settled.state_deviation,
    }
    return {
        "tokens": certificate.num_tokens,
        "coded_bytes": certificate.coded_bytes,
        "ties": settled.ties,
        "tie_bytes": settled.tie_bytes,
        **{name: value for name, value in deviations.items() if value is not None},
        "sha256": texts_sha256(documents),
    }
