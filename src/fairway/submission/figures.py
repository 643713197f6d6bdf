"""Whether the score is what it says: figures, text, the model scored anew, audit and proof."""

import math
from collections.abc import Iterator, Mapping
from statistics import fmean

from fairway.artifact.loaded_model import load_model
from fairway.audit.artifact import audit_artifact
from fairway.evaluate.config import make_predictor, plan_text
from fairway.evaluate.timed import evaluate_in_time
from fairway.proof.verify import verify
from fairway.runtime.files import file_sha256
from fairway.runtime.limits import one_line
from fairway.submission.case import Answer, Case, Finding, Seed, close, of_seed, read_object
from fairway.submission.folder import (
    CERTIFICATE,
    PROOF,
    seed_name,
    settled_in,
)
from fairway.tokens.val_text import ValText


def judge_scores(case: Case) -> Iterator[Finding]:
    mend = "write the folder again from its runs: fairway submit"
    for seed in case.seeds:
        score, place = seed.result.score, f"score, seed {seed.number}"
        if score is None:
            yield Finding(place, "fail", "it has none", "finish the run")
            continue
        told = of_seed(case, seed)
        claims = {"val_bpb": score.bits_per_byte, "val_loss": score.nats / score.tokens}
        edited = [name for name, value in claims.items() if not close(told.get(name), value)]
        computed = score.nats / math.log(2) / score.bytes
        if edited or not close(score.bits_per_byte, computed):
            said = f"edited: {', '.join(edited) or 'bits per byte'} not as its nats and bytes give"
            yield Finding(place, "fail", said, mend)
            continue
        yield Finding(place, "pass", f"{score.bits_per_byte:.6f} bits per byte")
        yield from _text(case, seed)
    scores = [seed.result.score for seed in case.seeds if seed.result.score]
    means = {
        "val_bpb": fmean(s.bits_per_byte for s in scores),
        "val_loss": fmean(s.nats / s.tokens for s in scores),
    }
    wrong = [name for name, value in means.items() if not close(case.described.get(name), value)]
    if wrong:
        yield Finding("mean", "fail", f"edited: {', '.join(wrong)}", mend)
    else:
        yield Finding("mean", "pass", f"{means['val_bpb']:.6f} bits per byte")


def _text(case: Case, seed: Seed) -> Iterator[Finding]:
    """Whether all of the text was scored, and by the model: with the text at hand."""
    place, score = f"text, seed {seed.number}", seed.result.score
    assert score is not None
    tokens = seed.recipe.get("tokens")
    part = tokens.get("val_tokens") if isinstance(tokens, Mapping) else None
    if part is not None:
        said = f"cut: only the first {part:,} tokens were scored"
        yield Finding(place, "fail", said, "score all of it: --tokens.val-tokens None")
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
    place, score, evaluate = f"scored again, seed {seed.number}", seed.result.score, None
    config = settled_in(case.folder, seed.number).evaluate
    model = load_model(seed.model).model
    predictor = make_predictor(model, config, seed=seed.number)
    evaluate = seed.result.evaluate
    found = evaluate_in_time(
        predictor,
        plan_text(config, text),
        text,
        learned=evaluate.learned if evaluate else None,
        on_chunk=lambda chunk, nats: case.progress(text=place),
    )
    assert score is not None
    error = abs(found.score.nats - score.nats) / max(1, score.nats)
    said = f"{found.score.bits_per_byte:.6f} bits per byte, {score.bits_per_byte:.6f} claimed"
    if error > 1e-3:
        return Finding(place, "fail", f"edited: {said}", "hand in what the model scores")
    return Finding(place, "pass", said)


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


def judge_proofs(case: Case) -> Iterator[Finding]:
    for seed in case.seeds:
        place = f"proof, seed {seed.number}"
        path = case.folder / seed_name(PROOF, seed.number)
        if not path.is_file():
            yield Finding(place, "unknown", "there is none", "fairway prove MODEL DATA")
            continue
        certificate = read_object(case.folder / seed_name(CERTIFICATE, seed.number))
        proof = seed.result.proof
        if certificate.get("artifact_sha256") != file_sha256(seed.model):
            said = "it is of another model"
            yield Finding(place, "fail", said, "prove this one: fairway prove MODEL DATA")
            continue
        if proof is None or not proof.holds:
            yield Finding(place, "fail", "the run says that it does not hold", "prove it again")
            continue
        try:
            found = verify(path, load_model(seed.model), case.progress)
        except ValueError as error:
            broken = type(error).__name__ != "NotReproducible"
            answer: Answer = "fail" if broken else "unknown"
            mend = "prove it again, with --arithmetic settled to decode anywhere"
            yield Finding(place, answer, one_line(error, 200), mend)
        except RuntimeError as error:
            yield Finding(place, "unknown", one_line(error, 200), "decode it where it was made")
        else:
            yield Finding(place, "pass", f"decodes: {found.num_tokens:,} tokens")
