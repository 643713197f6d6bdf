"""An artifact with its full evaluation, from the inside: its prices, its text and its file.

The five questions that any scorer is asked (`run.py`) are asked of the predictor here, at far more
places than calls from outside would reach, and six more that only the inside can answer. How the
predictor is probed is in `white_box.py`.
"""

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairway.artifact.container import pack, unpack
from fairway.artifact.loaded_model import LoadedModel, load_model
from fairway.audit.byte_total import probe_bytes
from fairway.audit.findings import AuditReport, Finding, ProbeResult
from fairway.audit.scorer import Answer
from fairway.audit.white_box import (
    Watched,
    changed_after,
    fingerprint,
    probe_chunk_causality,
    probe_distributions,
    walk,
)
from fairway.evaluate.config import EvaluateConfig, make_predictor, plan_text
from fairway.evaluate.planner import estimate, measure_rates
from fairway.evaluate.predictor import Predictor
from fairway.proof.prove import evaluation_of, validation_text
from fairway.runtime.distributed import environment_alone
from fairway.runtime.plugins import plugin_arguments
from fairway.tokens.shards import DataFolder
from fairway.tokens.tokenizer import SentencePieceTokenizer
from fairway.tokens.val_text import ValText

WALKS = 6  # of the audited text, beside the probes of single chunks
SHORT_DOCUMENT = 32  # tokens: so short a document may honestly stand in both splits
BLOCK_TOKENS = 1 << 20
SHARES = (3.0, 2.25, 1.5, 1.0, 0.5, 0.25)  # of a chunk, from best to worst


def audit_artifact(
    model: Path,
    data: DataFolder,
    *,
    seconds: float = 60.0,
    cap_bytes: int | None = None,
    eval_seconds: float | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda line: None,
) -> AuditReport:
    """Audit the model file `model` and the text it is scored on.

    seconds       what it may take; the text walked is cut to fit, and what was not covered is said
    cap_bytes     None: as the run's result.json beside the model says, if there is one
    eval_seconds  the same

    ValueError where model and data cannot be read or do not belong together.
    """
    begin = time.perf_counter()
    loaded = load_model(model)
    validation_text(loaded, data)  # refuses another tokenizer's folder
    config = evaluation_of(loaded).resolved(loaded.model.config.train_context)
    whole = ValText.of(data)
    text, gap = _excerpt(loaded, config, whole, seconds)
    progress(f"walking {len(text.tokens):,} of {len(whole.tokens):,} tokens, {WALKS} times")

    def in_time(share: float) -> Callable[[], bool]:
        return lambda: time.perf_counter() - begin < share * seconds

    probes: dict[str, ProbeResult] = {}

    def note(*results: ProbeResult) -> None:
        for result in results:
            probes[result.name] = result
            progress(f"{result.name}: {'ok' if result.ok else 'FAIL'}, {result.summary}")

    note(*_predictor_probes(loaded, config, text, gap, seed, in_time))
    note(_fresh_process(model, data, text, probes.pop("determinism"), seed))
    note(_bytes(data, text))
    note(_documents(data, whole))
    note(_separation(data))
    note(_budget(model, cap_bytes, eval_seconds))
    note(_rebuild(model))
    return AuditReport(
        str(model),
        probes,
        notes=_notes(loaded, config, text, whole),
        command=f"fairway audit {model} {data.path}",
        calls=WALKS,
        seconds=time.perf_counter() - begin,
    )


def _excerpt(
    loaded: LoadedModel, config: EvaluateConfig, whole: ValText, seconds: float
) -> tuple[ValText, tuple[str, ...]]:
    """The beginning of the text, as long as time allows; with a lesson in it where it does."""
    unit = config.learner.excerpt_tokens()
    sizes = [min(len(whole.tokens), int(unit * share) + 1) for share in SHARES]
    plans = plan_text(config, whole.first(sizes[0] - 1))
    rates = measure_rates(loaded.model, config, plans, repeats=1)
    size = sizes[-1]
    for size in sizes:
        plans = plan_text(config, whole.first(size - 1))
        if estimate(config, rates, plans).total_seconds * WALKS <= 0.5 * seconds:
            break
    text = whole.first(size - 1)
    if size == len(whole.tokens):
        return text, ()
    return text, (f"tokens {size:,}-{len(whole.tokens) - 1:,}: what is walked is the beginning",)


def _predictor_probes(
    loaded: LoadedModel,
    config: EvaluateConfig,
    text: ValText,
    gap: tuple[str, ...],
    seed: int,
    in_time: Callable[[float], Callable[[], bool]],
) -> Iterator[ProbeResult]:
    model, bos_id = loaded.model, loaded.model.config.bos_id
    tokens, plans = text.tokens, plan_text(config, text)
    vocab_size = loaded.tokenizer.vocab_size

    def new() -> Predictor:
        return make_predictor(model, config, seed=seed)

    def prices(stream: Tensor) -> Tensor:
        return walk(new(), plans, stream, text.target_bytes)

    before = fingerprint(model.state_dict())
    watched = Watched(new(), len(tokens), model.state_dict)
    nats = walk(watched, plans, tokens, text.target_bytes)
    yield replace(watched.order_result(), not_covered=(*gap, *watched.order_result().not_covered))
    yield watched.weights_result(fingerprint(model.state_dict()) == before)
    bad = int((~torch.isfinite(nats) | (nats < 0)).sum())
    yield ProbeResult(
        "coverage",
        not bad,
        f"{len(nats):,} prices for {len(tokens) - 1:,} targets, {float(nats.mean()):.4f} nats each",
        (Finding(f"{bad:,} prices are missing or negative", ("E6",)),) if bad else (),
    )
    again = prices(tokens)
    equal = torch.equal(nats, again)
    yield ProbeResult(
        "determinism",
        equal,
        "two walks gave equal prices",
        () if equal else (Finding("two walks over the same text gave different prices", ("C-e",)),),
        details={"nats_per_token": float(nats.mean())},
    )

    # It has learned what it will, so its state stands still whatever the chunk holds.
    last = plans[-1]
    findings, edits = probe_chunk_causality(
        watched.predictor, last, tokens, vocab_size, bos_id, in_time(0.75), seed
    )
    cuts = sorted({len(tokens) // 3, 2 * len(tokens) // 3})
    for cut in cuts:
        edited = prices(changed_after(tokens, cut, vocab_size, bos_id, seed))
        moved = (edited[: cut - 1] != nats[: cut - 1]).nonzero()[:, 0]
        if len(moved):
            place = int(moved[0]) + 1
            difference = float((edited - nats)[moved[0]].abs())
            findings.append(
                Finding(
                    f"replacing tokens from {cut} on changed the price of token {place} by "
                    f"{difference:.3g} nats: something learned from text it had not priced",
                    ("A1", "A10"),
                )
            )
    yield ProbeResult(
        "causality",
        not findings,
        f"{edits + len(cuts)} suffixes replaced; every earlier price stayed, to the last bit",
        tuple(findings),
        gap,
        {"edits": edits + len(cuts)},
    )
    yield probe_distributions(
        watched.predictor, last, tokens, config.rows, model.config.train_context, in_time(0.85)
    )


def _fresh_process(
    model: Path, data: DataFolder, text: ValText, within: ProbeResult, seed: int
) -> ProbeResult:
    """The same text by the command that anybody would use, in a process that knows nothing."""
    size = len(text.tokens)
    command = [sys.executable, "-m", "fairway", "score", str(model), str(data.path)]
    command += ["--tokens", str(size), "--seed", str(seed), "--json", *plugin_arguments()]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment_alone()
    )
    if done.returncode:
        problem = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        finding = Finding(f"`{' '.join(command[1:])}` failed: {problem}")
        return replace(within, ok=False, findings=(*within.findings, finding))
    there = json.loads(done.stdout.splitlines()[-1])["nats_per_token"]
    here = within.details["nats_per_token"]
    if abs(there - here) <= 1e-12 * max(1.0, here):
        return replace(within, summary="two walks and one in a fresh process gave equal prices")
    said = f"a fresh process gave {there!r} nats per token, this one {here!r}"
    return replace(within, ok=False, findings=(*within.findings, Finding(said, ("C-e",))))


def _bytes(data: DataFolder, text: ValText) -> ProbeResult:
    """Counts against the text that decoding gives, and against a second count of the pieces."""
    tokens, tokenizer = text.tokens.numpy(), data.tokenizer
    nats = np.zeros(len(tokens) - 1)
    answer = Answer(nats=nats, num_bytes=text.target_bytes.numpy().astype(np.float64))
    if isinstance(tokenizer, SentencePieceTokenizer) and not tokenizer.lossless:
        return probe_bytes(answer, tokens, num_bytes=None, text=None, tokenizer=tokenizer.processor)
    original = _decoded_bytes(data, tokens)
    return probe_bytes(answer, tokens, num_bytes=original, text=None, tokenizer=None)


def _decoded_bytes(data: DataFolder, tokens: np.ndarray) -> int:
    """Bytes of all documents but their BOS, decoded one by one."""
    cuts = np.flatnonzero(tokens == data.tokenizer.bos_id)
    parts = np.split(tokens, cuts)
    words = [part[part != data.tokenizer.bos_id] for part in parts]
    first = 0 if tokens[0] == data.tokenizer.bos_id else len(data.tokenizer.decode([tokens[0]]))
    return sum(len(data.tokenizer.decode(part.tolist())) for part in words) - first


def _documents(data: DataFolder, whole: ValText) -> ProbeResult:
    """As many documents as the folder says, each behind its BOS."""
    found, findings = len(whole.document_starts), []
    told = data.manifest.get("val", {}).get("documents")
    if told is not None and told != found:
        findings.append(
            Finding(f"data.json tells of {told:,} documents, the shards hold {found:,}", ("E9",))
        )
    if not whole.document_starts or whole.document_starts[0]:
        findings.append(Finding("the validation text does not begin with a BOS", ("E6",)))
    summary = f"{found:,} validation documents, {len(whole.tokens):,} tokens"
    return ProbeResult("documents", not findings, summary, tuple(findings))


def _separation(data: DataFolder) -> ProbeResult:
    """No validation document among the training documents, by hash of its tokens."""
    bos_id = data.tokenizer.bos_id
    val = {_key(document): len(document) for document in _split(data.val, bos_id)}
    lengths, shared, total = set(val.values()), [], 0
    for document in _split(data.train, bos_id):
        total += 1
        if len(document) in lengths and _key(document) in val:
            shared.append(len(document))
    long = [length for length in shared if length > SHORT_DOCUMENT]
    findings = ()
    if long:
        said = (
            f"{len(long):,} training documents are validation documents, the longest of "
            f"{max(long):,} tokens: prepare the text again, which drops them"
        )
        findings = (Finding(said, ("A2", "D2")),)
    short = len(shared) - len(long)
    told = f"; {short} of at most {SHORT_DOCUMENT} tokens stand in both" if short else ""
    return ProbeResult(
        "separation",
        not findings,
        f"{len(val):,} validation documents looked for among {total:,} of training{told}",
        findings,
        details={"shared": len(long), "shared_short": short},
    )


def _key(document: np.ndarray) -> bytes:
    return hashlib.sha256(document.tobytes()).digest()


def _split(stream: Any, bos_id: int) -> Iterator[np.ndarray]:
    """Documents (n,) uint16 without their BOS; memory does not grow with the corpus."""
    held = np.zeros(0, np.uint16)
    for begin in range(0, len(stream), BLOCK_TOKENS):
        block = np.concatenate([held, stream[begin : begin + BLOCK_TOKENS]])
        *whole, held = np.split(block, np.flatnonzero(block == bos_id))
        yield from (part[part != bos_id] for part in whole if len(part) > 1)
    if len(held) > 1:
        yield held[held != bos_id]


def _budget(model: Path, cap_bytes: int | None, eval_seconds: float | None) -> ProbeResult:
    """The file's size, and the clocks that the run wrote down."""
    result_file = model.parent / "result.json"
    result = json.loads(result_file.read_text()) if result_file.is_file() else {}
    artifact = result.get("artifact", {})
    cap = cap_bytes or artifact.get("cap_bytes")
    size, told, findings, missing = model.stat().st_size, [], [], []
    if cap is None:
        missing.append("the cap: name it with --cap-bytes")
    else:
        told.append(f"{size:,} of {cap:,} bytes")
        if size > cap:
            findings.append(Finding(f"the file has {size:,} bytes, {size - cap:,} over the cap"))
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    if artifact.get("sha256", digest) != digest:
        findings.append(Finding(f"{result_file} describes another file than {model}", ("E9",)))
    for key, budget in (("train", None), ("evaluate", eval_seconds)):
        clock = result.get(key, {})
        allowed, spent = budget or clock.get("budget_seconds"), clock.get("seconds")
        if allowed is None or spent is None:
            missing.append(f"the clock of {key}: no {result_file.name} tells it")
            continue
        told.append(f"{key} {spent:.1f} of {allowed:.0f} s")
        if spent > 1.01 * allowed:
            findings.append(Finding(f"{key} took {spent:.1f} s of {allowed:.0f} s"))
    return ProbeResult(
        "budget", not findings, "; ".join(told) or "nothing known", tuple(findings), tuple(missing)
    )


def _rebuild(model: Path) -> ProbeResult:
    """The file, packed again from its parts, and the model, built twice from the file."""
    data = model.read_bytes()
    parts = unpack(data)
    findings = []
    if pack(parts.config, parts.tokenizer, parts.tensors, parts.extras) != data:
        findings.append(Finding("packing the parts of the file again gives another file", ("C-e",)))
    one, other = load_model(model).model, load_model(model).model
    context = min(64, one.config.train_context)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(one.config.vocab_size, (2, context), generator=generator)
    with torch.inference_mode():
        if not torch.equal(one(tokens), other(tokens)):
            findings.append(Finding("two models built from the file predict differently", ("C-e",)))
    return ProbeResult(
        "rebuild",
        not findings,
        f"{len(data):,} bytes come out of their {len(parts.tensors)} tensors again",
        tuple(findings),
    )


def _notes(
    loaded: LoadedModel, config: EvaluateConfig, text: ValText, whole: ValText
) -> tuple[str, ...]:
    notes = []
    if not loaded.tokenizer.lossless:
        notes.append("the tokenizer normalises: the bytes counted are those of the decoded text")
    if config.learner.rates_follow_length and len(text.tokens) < len(whole.tokens):
        notes.append("learning rates follow the length of the text that is walked, here a part")
    return tuple(notes)
