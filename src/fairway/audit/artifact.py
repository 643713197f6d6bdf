"""An artifact with its full evaluation, from the inside: its nats, its text and its file.

Coverage, determinism and bytes are asked by the very probes that any scorer is asked (`run.py`),
causality and normalization at far more places than calls from outside would reach, and six more
questions that only the inside can answer. How the predictor is probed is in `white_box.py`.
"""

import hashlib
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fairway.artifact.container import pack, unpack
from fairway.artifact.loaded_model import load_model
from fairway.audit.byte_total import probe_bytes
from fairway.audit.case import Case, Limits, Probe
from fairway.audit.causality import causality_result, stated_order
from fairway.audit.comparison import Comparison
from fairway.audit.findings import AuditReport, Finding, ProbeResult, found
from fairway.audit.model_scorer import ModelScorer, PackedModel
from fairway.audit.repeats import probe_coverage, probe_determinism
from fairway.audit.run import table_of_probes
from fairway.audit.scorer import Now, Session
from fairway.audit.stream import Edit
from fairway.audit.token_pieces import Vocabulary
from fairway.audit.vocabulary import of_tokenizer
from fairway.audit.white_box import (
    ObservedPredictor,
    compare_inside_chunk,
    fingerprint,
    probe_distributions,
)
from fairway.evaluate.config import plan_text
from fairway.evaluate.planner import estimate, measure_rates
from fairway.evaluate.predictor import Predictor
from fairway.runtime.files import read_file
from fairway.runtime.identity import unsealed
from fairway.runtime.limits import one_line
from fairway.runtime.progress import Progress, silent
from fairway.tokens.shards import DataFolder, TokenStream
from fairway.tokens.tokenizer import CaseTokenizer, SentencePieceTokenizer
from fairway.tokens.val_text import ValText

WALKS = 8  # of the audited text, beside the probes of single chunks
SHORT_DOCUMENT = 32  # tokens: so short a document may honestly stand in both splits
BLOCK_TOKENS = 1 << 20
MOST_RESULT = 1 << 26  # bytes
SHARES = (3.0, 2.25, 1.5, 1.0, 0.5, 0.25)  # of a chunk, from best to worst


def audit_artifact(
    model: Path,
    data: DataFolder,
    *,
    seconds: float = 60.0,
    cap_bytes: int | None = None,
    eval_seconds: float | None = None,
    seed: int = 0,
    progress: Progress = silent,
    probes: Sequence[Probe | str] = (),
    now: Now = time.perf_counter,
) -> AuditReport:
    """Audit the model file `model` and the text it is scored on.

    seconds       what it may take; the text walked is cut to fit, and what was not covered is said
    cap_bytes     None: as the run's result.json beside the model says, if there is one
    eval_seconds  the same
    probes        more of them, functions or plug-ins `package.module:name`

    ValueError where model and data cannot be read or do not belong together.
    """
    begin = now()
    packed, whole = PackedModel.open(model, data, seed), ValText.of(data)
    text = _excerpt(packed, whole, seconds, now)
    size, all_tokens = len(text.tokens), len(whole.tokens)
    progress(text=f"walking {size:,} of {all_tokens:,} tokens, {WALKS} times")
    gap = (f"tokens {size:,}-{all_tokens - 1:,}: what is walked is the beginning",)
    session = Session(ModelScorer(packed, text), math.inf, math.inf, now=now)
    results: dict[str, ProbeResult] = {}
    for result in itertools.chain(
        _scorer_probes(session, packed, text, probes, begin, seconds),
        _file_probes(packed, whole, cap_bytes, eval_seconds),
    ):
        if size < all_tokens and result.name in ("order", "causality"):
            result = replace(result, not_covered=(*gap, *result.not_covered))
        results[result.name] = result
        progress(text=f"{result.name}: {'ok' if result.ok else 'FAIL'}, {result.summary}")
    return AuditReport(
        str(model),
        results,
        notes=_notes(packed, text, whole),
        command=f"fairway audit {model} {data.path}",
        calls=session.calls,
        seconds=now() - begin,
    )


def _excerpt(packed: PackedModel, whole: ValText, seconds: float, now: Now) -> ValText:
    """The beginning of the text, as long as time allows; with a lesson in it where it does."""
    config, unit = packed.config, packed.config.learner.excerpt_tokens()
    sizes = [min(whole.num_targets, int(unit * share)) for share in SHARES]
    plans = plan_text(config, whole.first(sizes[0]))
    rates = measure_rates(packed.loaded.model, config, plans, repeats=1, now=now)
    for size in sizes:
        plans = plan_text(config, whole.first(size))
        if estimate(config, rates, plans).total_seconds * WALKS <= 0.5 * seconds:
            break
    return whole.first(size)


def _scorer_probes(
    session: Session,
    packed: PackedModel,
    text: ValText,
    more: Sequence[Probe | str],
    begin: float,
    seconds: float,
) -> Iterator[ProbeResult]:
    """What is asked of the predictor, and of `session`, in which it is a scorer like any other."""
    scorer, model, tokens = session.scorer, packed.loaded.model, text.tokens
    assert isinstance(scorer, ModelScorer)
    before = fingerprint(model.state_dict())
    order = scorer.order()
    observed = ObservedPredictor(
        packed.new_predictor(),
        len(tokens),
        model.state_dict,
        told=None if order is None else order.told,
    )
    first = scorer.answer(scorer.walk(observed, tokens))
    session.calls += 1
    yield observed.order_result()
    yield observed.weights_result(fingerprint(model.state_dict()) == before)

    ours = _probes(session, packed, observed.predictor, begin, seconds)
    num_bytes, tokenizer = _counted_by(packed.data, tokens.numpy())
    case = Case(
        session=session,
        stream=tokens.numpy(),
        answer=first,
        vocab_size=packed.loaded.tokenizer.vocab_size,
        num_bytes=num_bytes,
        tokenizer=tokenizer,
        limits=Limits(repeats=2, probe_tokens=len(tokens)),
        seed=packed.seed,
        tolerance=0.0,  # ours repeat themselves to the last bit
        probes=table_of_probes(ours, more),
    )
    if order is not None:
        case.ordered = case.rearranged(order)
    for name in case.probes:
        yield case.result(name)


def _probes(
    session: Session, packed: PackedModel, held: Predictor, begin: float, seconds: float
) -> dict[str, Probe]:
    """By name, in the order in which they are asked.

    held  has learned what it will, so its state stands still whatever a chunk holds
    """
    assert isinstance(session.scorer, ModelScorer)
    last = session.scorer.plans[-1]

    def in_time(share: float) -> Callable[[], bool]:
        return lambda: session.now() < begin + share * seconds

    def causality(case: Case) -> ProbeResult:
        walks = _compare_walks(case)
        session.stop_at = begin + seconds  # what was walked so far was cut to fit; the rest is not
        args = (case.tokens, case.vocab_size, in_time(0.75), case.seed)
        inside = compare_inside_chunk(held, last, *args)
        result = causality_result([walks, inside], normalized=True)
        return replace(result, details={**result.details, "order": stated_order(case)})

    def normalization(case: Case) -> ProbeResult:
        rows, context = packed.config.rows, packed.loaded.model.config.train_context
        tokens = torch.from_numpy(case.stream)
        return probe_distributions(held, last, tokens, rows, context, in_time(0.85))

    return {
        "determinism": _determinism,
        "causality": causality,
        "normalization": normalization,
        "coverage": probe_coverage,
        "bytes": probe_bytes,
    }


def _determinism(case: Case) -> ProbeResult:
    """As of any scorer; where no fresh process answers, nobody knows what one would say."""
    result = probe_determinism(case)
    if not (result.ok and result.not_covered):
        return result
    broken = f"no answer from {'; '.join(result.not_covered)}"
    return replace(result, ok=False, details={**result.details, "broken": broken})


def _compare_walks(case: Case) -> Comparison:
    """Whole walks, learning and all, over the text with its second half or two thirds replaced."""
    comparison, n = case.in_order, len(case.tokens)
    comparison.try_edit(Edit(n // 3, n, "uniform", case.seed))
    if case.order is not None:
        comparison.try_edit(Edit(n // 2, n, "uniform", case.seed))
    elif case.seen.on_edited is not None:
        comparison.compare(Edit(n // 2, n, "uniform"), case.seen.edited, case.seen.on_edited)
    return comparison


def _counted_by(data: DataFolder, tokens: np.ndarray) -> tuple[int | None, Vocabulary | None]:
    """The bytes that decoding gives, or, where decoding loses some, a vocabulary to count by."""
    tokenizer = data.tokenizer
    cut = tokenizer.inner if isinstance(tokenizer, CaseTokenizer) else tokenizer
    if isinstance(cut, SentencePieceTokenizer) and not cut.lossless:
        return None, of_tokenizer(cut)
    marks = np.flatnonzero(tokens == tokenizer.bos_id)
    words = [part[part != tokenizer.bos_id] for part in np.split(tokens, marks)]
    first = 0 if tokens[0] == tokenizer.bos_id else len(tokenizer.decode([tokens[0]]))
    return sum(len(tokenizer.decode(part.tolist())) for part in words) - first, None


def _file_probes(
    packed: PackedModel, whole: ValText, cap_bytes: int | None, eval_seconds: float | None
) -> Iterator[ProbeResult]:
    yield _documents(packed.data, whole)
    yield _separation(packed.data)
    yield _budget(packed.path, cap_bytes, eval_seconds)
    yield _rebuild(packed.path)


def _documents(data: DataFolder, whole: ValText) -> ProbeResult:
    """As many documents as the folder says, each behind its BOS."""
    number, findings = len(whole.document_starts), []
    recorded = data.manifest.get("val", {}).get("documents")
    if recorded is not None and recorded != number:
        said = f"data.json records {recorded:,} documents, the shards hold {number:,}"
        findings.append(Finding.of("the record is of something else", said))
    if not whole.document_starts or whole.document_starts[0]:
        said = "the validation text does not begin with a BOS"
        findings.append(Finding.of("a token is never scored", said))
    summary = f"{number:,} validation documents, {len(whole.tokens):,} tokens"
    return found("documents", summary, findings)


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
    findings = []
    if long:
        symptom = "training documents are validation documents"
        said = (
            f"{len(long):,} {symptom}, the longest of {max(long):,} tokens: prepare the text "
            "again, which drops them"
        )
        findings.append(Finding.of(symptom, said))
    short = len(shared) - len(long)
    both = f"; {short} of at most {SHORT_DOCUMENT} tokens stand in both" if short else ""
    summary = f"{len(val):,} validation documents looked for among {total:,} of training{both}"
    return found("separation", summary, findings, shared=len(long), shared_short=short)


def _key(document: np.ndarray) -> bytes:
    return hashlib.sha256(document.tobytes()).digest()


def _split(stream: TokenStream | np.ndarray, bos_id: int) -> Iterator[np.ndarray]:
    """Documents (n,) uint16 without their BOS; memory does not grow with the corpus."""
    held = np.zeros(0, np.uint16)
    for begin in range(0, len(stream), BLOCK_TOKENS):
        block = np.concatenate([held, stream[begin : begin + BLOCK_TOKENS]])
        *whole, held = np.split(block, np.flatnonzero(block == bos_id))
        yield from (part[part != bos_id] for part in whole if len(part) > 1)
    if len(held) > 1:
        yield held[held != bos_id]


def _budget(model: Path, cap_bytes: int | None, eval_seconds: float | None) -> ProbeResult:
    """The file's size, with the code that the run counted, and the clocks that it wrote down."""
    result_file = model.parent / "result.json"
    result = _recorded(result_file)
    artifact = result.get("artifact", {})
    cap, code = cap_bytes or artifact.get("cap_bytes"), artifact.get("bytes_code", 0)
    size, known, findings, missing = model.stat().st_size + code, [], [], []
    over: list[str] = []
    if cap is None:
        missing.append("the cap: name it with --cap-bytes")
    else:
        known.append(f"{size:,} of {cap:,} bytes")
        if size > cap:
            over.append("bytes")
            whose = f"the file has, with {code:,} of code," if code else "the file has"
            findings.append(Finding(f"over bytes: {whose} {size:,}, {size - cap:,} over the cap"))
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    if artifact.get("sha256", digest) != digest:
        said = f"{result_file} describes another file than {model}"
        findings.append(Finding.of("the record is of something else", said))
    for key, budget in (("train", None), ("evaluate", eval_seconds)):
        clock = result.get(key, {})
        allowed, spent = budget or clock.get("budget_seconds"), clock.get("seconds")
        if allowed is None or spent is None:
            missing.append(f"the clock of {key}: no {result_file.name} records it")
            continue
        known.append(f"{key} {spent:.1f} of {allowed:.0f} s")
        if spent > 1.01 * allowed:
            over.append("time")
            findings.append(Finding(f"over time: {key} took {spent:.1f} s of {allowed:.0f} s"))
    if len(over) < len(findings):  # the record is wrong, too: that is no matter of budgets
        over = []
    details = {"over": sorted(set(over))} if over else {}
    return found("budget", "; ".join(known) or "nothing known", findings, missing, **details)


def _recorded(result: Path) -> dict[str, Any]:
    """What a run wrote down; nothing where no file is, ValueError where it is damaged."""
    if not result.is_file():
        return {}
    try:
        return dict(unsealed(read_file(result, MOST_RESULT)))
    except ValueError as error:
        raise ValueError(f"{result}: {one_line(error)}") from error


def _rebuild(model: Path) -> ProbeResult:
    """The file, packed again from its parts, and the model, built twice from the file."""
    data = model.read_bytes()
    parts = unpack(data)
    said = []
    if pack(parts.config, parts.tokenizer, parts.tensors, parts.extras) != data:
        said.append("packing the parts of the file again gives another file")
    one, other = load_model(model).model, load_model(model).model
    context = min(64, one.config.train_context)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(one.config.vocab_size, (2, context), generator=generator)
    with torch.inference_mode():
        if not torch.equal(one(tokens), other(tokens)):
            said.append("two models built from the file predict differently")
    summary = f"{len(data):,} bytes come out of their {len(parts.tensors)} tensors again"
    symptom = "the result depends on more than the tokens"
    return found("rebuild", summary, [Finding.of(symptom, text) for text in said])


def _notes(packed: PackedModel, text: ValText, whole: ValText) -> tuple[str, ...]:
    notes = []
    if not packed.loaded.tokenizer.lossless:
        notes.append("the tokenizer normalises: the bytes counted are those of the decoded text")
    if packed.config.learner.rates_follow_length and text.num_targets < whole.num_targets:
        notes.append("learning rates follow the length of the text that is walked, here a part")
    return tuple(notes)
