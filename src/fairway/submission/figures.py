"""Whether the score is what it says: figures, text, the model scored anew, and audit."""

import math
from collections.abc import Iterator, Mapping
from statistics import fmean
from typing import Any

from fairway.artifact.loaded_model import load_model
from fairway.audit.artifact import audit_artifact
from fairway.evaluate.clocked import Chunks
from fairway.evaluate.config import make_predictor, make_settled_predictor, plan_text
from fairway.evaluate.timed import evaluate_in_time
from fairway.proof.certificate import CODER_BITS
from fairway.proof.prove import walk_of
from fairway.proof.settled_stream import encode_settled
from fairway.result import ProofResult, ScoreResult
from fairway.runtime.files import file_sha256
from fairway.runtime.setup import LOG
from fairway.submission.case import Answer, Case, Finding, Seed, close, of_seed
from fairway.submission.folder import figures_of_all, figures_of_seed, seed_name, settled_in
from fairway.submission.settled import Settled
from fairway.tokens.val_text import ValText

# Of nats in native arithmetic: on the same kind of device with other kernels, processors and
# threads; and on another kind, where nothing is said between the two.
SAME_DEVICE, OTHER_DEVICE = 1e-4, 1e-3


def judge_scores(case: Case) -> Iterator[Finding]:
    mend = "write the folder again from its runs: fairway submit"
    for seed in case.seeds:
        score, place = seed.result.score, f"score, seed {seed.number}"
        if score is None or seed.result.artifact is None:
            yield Finding(place, "fail", "it has none", "finish the run")
            continue
        figures = figures_of_seed(seed.result, case.folder / seed_name(LOG, seed.number))
        edited = _edited(figures, of_seed(case, seed))
        if edited:
            yield Finding(place, "fail", f"edited: {', '.join(edited)} not as in its run", mend)
        elif not _adds_up(score, seed.result.proof):
            of = "nats" if score.code_bytes is None else "code"
            yield Finding(place, "fail", f"edited: not what its {of} and bytes give", mend)
        else:
            yield Finding(place, "pass", f"{score.bits_per_byte:.6f} bits per byte")
            yield from _text(case, seed)
    results = [one.result for one in case.seeds if one.result.score and one.result.artifact]
    edited = _edited(figures_of_all(results, case.code_bytes), case.described) if results else []
    if edited:
        yield Finding("mean", "fail", f"edited: {', '.join(edited)} not as the seeds give", mend)
    elif results:
        mean = fmean(one.score.bits_per_byte for one in results if one.score)
        yield Finding("mean", "pass", f"{mean:.6f} bits per byte")


def _edited(figures: Mapping[str, Any], told: Mapping[str, Any]) -> list[str]:
    """Names of what is told otherwise than it is."""
    return [
        name
        for name, value in figures.items()
        if not (
            close(told.get(name), value) if isinstance(value, float) else told.get(name) == value
        )
    ]


def _adds_up(score: ScoreResult, proof: ProofResult | None) -> bool:
    """Whether the figures of a score are those of one another. A code is as long as the nats ask
    for, but for its end and the ties; how many bytes of it are ties, only a proof says."""
    bits = score.nats / math.log(2)
    if score.code_bytes is None:
        return close(score.bits_per_byte, bits / score.bytes)
    ties = None if proof is None or proof.settled is None else proof.settled.tie_bytes
    more = 8 * (score.code_bytes - (ties or 0)) - bits
    near = more >= -CODER_BITS and (ties is None or more <= CODER_BITS)
    return near and close(score.bits_per_byte, 8 * score.code_bytes / score.bytes)


def _text(case: Case, seed: Seed) -> Iterator[Finding]:
    """Whether all of the text was scored, and by the model: with the text at hand."""
    place, score = f"text, seed {seed.number}", seed.result.score
    assert score is not None
    tokens = seed.recipe.get("tokens")
    part = tokens.get("val_tokens") if isinstance(tokens, Mapping) else None
    if part is not None or score.scope is not None:
        cut = score.scope if part is None else f"the first {part:,} tokens"
        mend = "score all of it, without --tokens.val-tokens and --fit"
        yield Finding(place, "fail", f"cut: only {cut} were scored", mend)
        return
    if case.data is None:
        yield Finding(place, "unknown", "the text is not here", "name it: fairway check DIR DATA")
        return
    here = {f.name: file_sha256(f) for f in case.data.shard_files("val")}
    there = {name: sha for name, sha in seed.result.data.items() if name in here}
    text = ValText.of(case.data)
    if here != there:
        yield Finding(place, "unknown", "another validation text than was scored", "name its own")
    elif (score.tokens, score.bytes) != (text.num_targets, int(text.target_bytes.sum())):
        said = f"cut: {score.tokens:,} of {text.num_targets:,} tokens were scored"
        yield Finding(place, "fail", said, "score all of it")
    else:
        yield Finding(place, "pass", f"all {text.num_targets:,} tokens of it")
        yield _scored_again(case, seed, text)


def _scored_again(case: Case, seed: Seed, text: ValText) -> Finding:
    settled, held = settled_in(case.folder, seed.number), seed.result.evaluate
    again = _coded_again if settled.evaluate.settled else _nats_again
    return again(case, seed, settled, text, None if held is None else held.learned)


def _coded_again(
    case: Case, seed: Seed, settled: Settled, text: ValText, learned: Chunks | None
) -> Finding:
    """Settled arithmetic gives the same code everywhere, to the byte."""
    place, score = f"scored again, seed {seed.number}", seed.result.score
    assert score is not None
    model = load_model(seed.model).model
    found = encode_settled(
        make_settled_predictor(model, settled.evaluate, seed=seed.number),
        plan_text(settled.evaluate, text),
        text,
        walk_of(model),
        learned=learned,
        progress=case.progress,
    )
    claimed = score.code_bytes  # none where several ranks scored
    told = "none" if claimed is None else f"{claimed:,}"
    said = f"{found.num_bytes:,} bytes of code, {told} claimed"
    if claimed in (None, found.num_bytes) and close(found.claim.nats, score.nats):
        return Finding(place, "pass", said)
    return Finding(place, "fail", f"edited: {said}", "hand in what the model scores")


def _nats_again(
    case: Case, seed: Seed, settled: Settled, text: ValText, learned: Chunks | None
) -> Finding:
    place, score = f"scored again, seed {seed.number}", seed.result.score
    assert score is not None
    model = load_model(seed.model).model
    found = evaluate_in_time(
        make_predictor(model, settled.evaluate, seed=seed.number),
        plan_text(settled.evaluate, text),
        text,
        learned=learned,
        on_chunk=lambda chunk, nats: case.progress(text=place),
    ).score
    error = abs(found.nats - score.nats) / max(1.0, score.nats)
    said = f"{found.bits_per_byte:.6f} bits per byte, {score.bits_per_byte:.6f} claimed"
    if error <= SAME_DEVICE:
        return Finding(place, "pass", said)
    if settled.device != model.embed.weight.device.type and error <= OTHER_DEVICE:
        mend = f"check it on a {settled.device}, where it was scored"
        return Finding(place, "unknown", f"{said}, on another kind of device", mend)
    return Finding(place, "fail", f"edited: {said}", "hand in what the model scores")


def judge_audits(case: Case) -> Iterator[Finding]:
    for seed in case.seeds:
        report, place = seed.result.audit, f"audit, seed {seed.number}"
        if report is not None and report.exit_status == 1:
            failed = [name for name, one in report.probes.items() if not one.ok]
            said = f"{report.verdict}: leaky evaluator ({', '.join(failed)})"
            yield Finding(place, "fail", said, "make the evaluation legal, and run it again")
        elif report is None:
            yield Finding(place, "unknown", "it was not audited", "fairway audit MODEL DATA")
        else:
            yield Finding(place, "pass", report.verdict)
    if case.data is not None and case.seconds:
        first = case.seeds[0]
        report = audit_artifact(
            first.model, case.data, seconds=case.seconds, seed=first.number, progress=case.progress
        )
        place = f"audited again, seed {first.number}"
        if report.exit_status == 1:
            yield Finding(place, "fail", f"{report.verdict}: leaky evaluator", "make it legal")
        else:
            answer: Answer = "unknown" if report.exit_status else "pass"
            yield Finding(place, answer, report.verdict)
