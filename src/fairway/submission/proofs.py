"""Whether a proof is of this model, this evaluation and this text, and whether it decodes here."""

import hashlib
from collections.abc import Iterator

from fairway.artifact.loaded_model import load_model
from fairway.proof.certificate import Certificate
from fairway.proof.decoder_limits import MOST_FILE
from fairway.proof.proof_file import ProofFile
from fairway.proof.reproducible import NotReproducible
from fairway.proof.verify import Verification, documents_of, verify
from fairway.result import ProofResult, ScoreResult
from fairway.runs.description import MOST_DESCRIPTION
from fairway.runtime.files import file_sha256, read_file
from fairway.runtime.limits import one_line
from fairway.submission.case import Case, Finding, Seed
from fairway.submission.folder import CERTIFICATE, PROOF, seed_name, settled_in
from fairway.tokens.val_text import ValText

AGAIN = "prove it again: fairway prove MODEL DATA"


def judge_proofs(case: Case) -> Iterator[Finding]:
    text = None if case.data is None else ValText.of(case.data)
    for seed in case.seeds:
        place = f"proof, seed {seed.number}"
        path = case.folder / seed_name(PROOF, seed.number)
        if not path.is_file():
            yield Finding(place, "unknown", "there is none", "fairway prove MODEL DATA")
            continue
        try:
            proof = ProofFile.from_bytes(read_file(path, MOST_FILE))
            beside = case.folder / seed_name(CERTIFICATE, seed.number)
            certificate = Certificate.from_json(read_file(beside, MOST_DESCRIPTION).decode())
        except ValueError as error:
            yield Finding(place, "fail", one_line(error, 200), AGAIN)
            continue
        wrong = _not_of_this_run(case, seed, proof, certificate)
        yield Finding(place, "fail", wrong, AGAIN) if wrong else _decoded(case, seed, proof, text)


def _not_of_this_run(
    case: Case, seed: Seed, proof: ProofFile, certificate: Certificate
) -> str | None:
    """What ties a proof to its run and is not so, in words."""
    result, score = seed.result.proof, seed.result.score
    sha256 = file_sha256(seed.model)
    if {proof.artifact_sha256, certificate.artifact_sha256} != {sha256}:
        return "it is of another model"
    num_tokens, coded_bytes = proof.prefix.num_tokens - 1, len(proof.symbols) + proof.tie_bytes
    same = {
        "text": certificate.text_sha256 == proof.text_sha256,
        "bits": certificate.bitstream_sha256 == hashlib.sha256(proof.symbols).hexdigest(),
        "bytes": certificate.coded_bytes == coded_bytes,
        "tokens": certificate.num_tokens == num_tokens,
    }
    odd = [name for name, agrees in same.items() if not agrees]
    if odd:
        return f"its certificate is of another proof: other {', '.join(odd)}"
    if result is None or score is None:
        return "the run knows of none"
    if (result.tokens, result.coded_bytes) != (num_tokens, coded_bytes):
        return (
            f"it has {num_tokens:,} tokens in {coded_bytes:,} bytes, and the run's own has "
            f"{result.tokens:,} in {result.coded_bytes:,}"
        )
    settled, held = settled_in(case.folder, seed.number), seed.result.evaluate
    if (proof.evaluate, proof.seed) != (settled.evaluate, seed.number):
        return "it is of another evaluation than the one that was scored"
    if held is not None and proof.learned != held.learned:
        return "it learned from other chunks than the score"
    if not (result.holds and certificate.holds):
        return f"it does not hold: {certificate.verdict}"
    return _not_the_score(result, score)


def _not_the_score(proof: ProofResult, score: ScoreResult) -> str | None:
    """In settled arithmetic a score is the length of its proof's code."""
    if proof.settled is None:
        return None
    if score.code_bytes is not None and proof.coded_bytes != score.code_bytes:
        return f"its code has {proof.coded_bytes:,} bytes, and the score says {score.code_bytes:,}"
    if proof.tokens != score.tokens:
        return f"it is of {proof.tokens:,} of the {score.tokens:,} tokens that were scored"
    return None


def _decoded(case: Case, seed: Seed, proof: ProofFile, text: ValText | None) -> Finding:
    """As far as `case.seconds` allow, to the first checkpoint at least."""
    place, score = f"proof, seed {seed.number}", seed.result.score
    path, loaded = case.folder / seed_name(PROOF, seed.number), load_model(seed.model)
    anywhere = proof.settled is not None
    try:
        found = verify(path, loaded, case.progress, any_batch=anywhere, seconds=case.seconds)
    except NotReproducible as error:
        mend = "prove it again, with --arithmetic settled to decode anywhere"
        answer = "fail" if anywhere else "unknown"
        return Finding(place, answer, one_line(error, 200), mend)
    except ValueError as error:
        return Finding(place, "fail", one_line(error, 200), AGAIN)
    except RuntimeError as error:
        return Finding(place, "unknown", one_line(error, 200), "decode it where it was made")
    assert score is not None
    if text is not None and not _is_part_of(
        found, documents_of(text.tokens.long(), loaded.tokenizer)
    ):
        return Finding(place, "fail", "it is of another text", "prove the validation text")
    if anywhere and found.whole and found.text_bytes < score.bytes:
        said = f"the score divides by {score.bytes:,} bytes, and {found.text_bytes:,} came back"
        return Finding(place, "fail", said, "count the bytes of the text")
    of = "" if found.whole else f" of {proof.prefix.num_tokens - 1:,}"
    said = f"decodes: {found.num_tokens:,}{of} tokens"
    if anywhere:
        said += f"; {found.coded_bytes:,} bytes of code, as the score says"
    return Finding(place, "pass", said)


def _is_part_of(found: Verification, documents: tuple[bytes, ...]) -> bool:
    """Whether all that was decoded are documents of a text, or the beginnings of some."""
    known = set(documents)
    begun = [document for document in found.documents if document not in known]
    return all(any(whole.startswith(part) for whole in documents) for part in begun)
