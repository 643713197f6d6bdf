"""Turn a score into the code it claims to be the length of, and decode that code again.

    score in batches ──> claim
    the same predictor, token by token ──> bitstream ──> file ──> `verify` ──> the text again

The certificate says yes only if the text came back and the bitstream is as long as claimed.
"""

import hashlib
import time
from pathlib import Path

import torch
from torch import Tensor

from fairway.artifact.config_json import config_from_json
from fairway.artifact.served import Served
from fairway.evaluate.bpb import Score
from fairway.evaluate.predictor import read_chunks, score_stream
from fairway.evaluate.ttt import EvaluateConfig, make_predictor
from fairway.proof.certificate import Certificate
from fairway.proof.checkpoints import CannotRetrace
from fairway.proof.codec import Encoded, Progress, WalkConfig, encode_stream
from fairway.proof.extent import extent_of
from fairway.proof.proof_file import ProofFile
from fairway.proof.settled import circumstances, settled
from fairway.proof.verify import Verification, documents_of, verify
from fairway.runtime.files import atomic_write
from fairway.text import text_sha256

CHECK_EVERY = 2048  # tokens; a checkpoint costs four bytes


def prove(
    served: Served,
    tokens: Tensor,
    target_bytes: Tensor,
    *,
    out: Path,
    evaluate: EvaluateConfig | None = None,
    num_targets: int | None = None,
    num_documents: int | None = None,
    seed: int = 0,
    threads: int = 1,
    progress: Progress | None = None,
) -> Certificate:
    """Write a proof of the first tokens (or documents, or all) to `out`, and decode it again.

    served         the model, loaded from its artifact
    tokens         (n,) int64, the whole text that is evaluated, from its first BOS on
    target_bytes   (n - 1,) int64, bytes of original text that tokens[1:] stand for
    evaluate       how to predict; None: as the artifact says
    num_targets    how many tokens to prove, rounded to nothing: exactly these
    num_documents  how many documents to prove; at most one of the two
    threads        more than one helps wide models only, and the decoder must use as many
    """
    config = evaluate or served_config(served)
    bos_id = served.model.config.bos_id
    extent = extent_of(
        config, tokens, bos_id, num_targets=num_targets, num_documents=num_documents
    )
    plans, stop = extent.plans(config), extent.num_tokens
    tokens, target_bytes = tokens[:stop], target_bytes[: stop - 1]
    walk = WalkConfig(
        rows=config.rows, pad_to=served.model.config.train_context, every=CHECK_EVERY
    )
    with settled(threads):
        chunks = read_chunks(plans, tokens, target_bytes)
        claim = score_stream(make_predictor(served.model, config, seed=seed), chunks)
        started = time.perf_counter()
        encoded = encode_stream(
            lambda: make_predictor(served.model, config, seed=seed),
            plans,
            tokens,
            walk,
            given=extent.given(bos_id),
            progress=progress,
        )
        encode_seconds = time.perf_counter() - started
    file = ProofFile(
        artifact_sha256=served.sha256,
        text_sha256=text_sha256(documents_of(tokens, served.tokenizer)),
        evaluate=config,
        seed=seed,
        extent=extent,
        walk=walk,
        threads=threads,
        circumstances=circumstances(),
        checkpoints=encoded.checkpoints,
        symbols=encoded.data,
    )
    atomic_write(Path(out), file.to_bytes())
    started = time.perf_counter()
    try:
        decoded = verify(out, served, progress)
    except CannotRetrace:
        decoded = None
    seconds = (encode_seconds, time.perf_counter() - started)
    return _certificate(file, Path(out), claim, encoded, tokens, decoded, seconds)
