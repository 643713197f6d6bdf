"""Commands about one number: score a text, prove the score, verify a proof."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from fairway.cli.answer import (
    Answer,
    No,
    model_file,
    open_decoder,
    open_model,
    require_places,
    shown,
    with_settings,
)
from fairway.cli.signatures import SettledBy
from fairway.cli.words import (
    Count,
    Data,
    File,
    MaybeCount,
    MaybeFile,
    MaybeSeconds,
    Model,
    Name,
    Settings,
)

if TYPE_CHECKING:
    from fairway.artifact.loaded_model import LoadedModel
    from fairway.evaluate.config import EvaluateConfig
    from fairway.evaluate.timed import Evaluation
    from fairway.model.gpt import GPT
    from fairway.proof.certificate import Certificate
    from fairway.proof.verify import Verification
    from fairway.result import ScoreResult
    from fairway.runtime.setup import Runtime
    from fairway.tokens.val_text import ValText


NEEDS_BUDGET = "--fit takes the documents that fit --budget-seconds; give both"


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """What is scored, and in which time.

    Attributes:
        budget_seconds: seconds for the whole evaluation: lessons are skipped to score all in time;
            otherwise there is no limit
        fit: score the first documents that fit --budget-seconds, and say so
        checkpoint: file to go on from if it is there, kept while scoring
        tokens: number of tokens to read, from the start of the text; otherwise all of it
        out: JSON file to write the answer to as well, for `fairway prove --score`
        seed: decides the initial weights of adapters; without adapters nothing is random
    """

    budget_seconds: MaybeSeconds = None
    fit: bool = False
    checkpoint: MaybeFile = None
    tokens: MaybeCount = None
    out: MaybeFile = None
    seed: Count = 0

    def __post_init__(self) -> None:
        if self.tokens is not None and self.tokens < 2:
            raise ValueError(
                f"--tokens {self.tokens}: the first token is never scored, so two are the least"
            )
        if self.budget_seconds is not None and self.budget_seconds <= 0:
            raise ValueError(f"--budget-seconds {self.budget_seconds:g}: no text fits no time")
        if self.fit and self.budget_seconds is None:
            raise ValueError(NEEDS_BUDGET)


ALL_OF_IT = ScoreOptions()


@dataclass(frozen=True)
class Present:
    """So that --set names evaluation settings as it does for `fairway run`."""

    evaluate: "EvaluateConfig"


def present_evaluation(asked: Mapping[str, Any], further: Sequence[str]) -> "EvaluateConfig":
    """The model's own after each --set; without a model, what an evaluation is by itself."""
    from fairway.artifact.loaded_model import read_settings
    from fairway.evaluate.config import EvaluateConfig
    from fairway.proof.prove import named_evaluation

    found = EvaluateConfig()
    if asked["model"] is not None:
        path = model_file(Path(asked["model"]))
        found = named_evaluation(read_settings(path).get("evaluate") or {}, path)
    return with_settings(Present(found), asked["set"]).evaluate


def score(
    model: Model,
    texts: Annotated[tuple[Path, ...], Positional, arg(metavar="DATA|FILE")],
    evaluate: Annotated[Any, SettledBy(present_evaluation)],
    options: Annotated[ScoreOptions, arg(name="")] = ALL_OF_IT,
    set: Settings = (),
) -> Answer:
    """score a model on a data folder's validation text, or on any text: MODEL DATA|FILE...

    Scores the text as the model file says, unless a setting is overridden: every field of its
    evaluation is an option, such as --evaluate.stride 16; --help-all lists them.

    Args:
        model: the model file, or hf://OWNER/NAME
        texts: a data folder, whose validation text is scored, or any files: plain text, JSON lines
            or Parquet, packed or not
        set: an evaluation setting as JSON, for what no single value can say, such as
            evaluate.ttt=null
    """
    from fairway.proof.scored import told
    from fairway.runtime.files import atomic_write

    require_places(options.out)
    loaded = open_model(model)
    text = _text_to_score(loaded, texts, options.tokens)
    scored = _score(loaded, text, evaluate, options)
    if scored is None:
        return {}
    found, score, text = scored
    coded = f", the length of a code of {score.code_bytes:,} bytes" if score.code_bytes else ""
    print(f"{score.bits_per_byte:.5f} bits per byte{coded}", file=sys.stderr)
    if found.over_time:
        print("over time; --fit scores the first documents that fit", file=sys.stderr)
    answer = {
        "bits_per_byte": score.bits_per_byte,
        "nats_per_token": found.score.nats_per_token,
        "tokens": score.tokens,
        "bytes": score.bytes,
        "code_bytes": score.code_bytes,
        "seconds": found.seconds,
        "note": found.note,
        "over_time": found.over_time,
    } | told(found, loaded, text, evaluate, options.seed)
    if options.out is not None:
        atomic_write(options.out, json.dumps(answer, indent=1).encode())
    return answer


def _text_to_score(
    loaded: "LoadedModel", sources: Sequence[Path], num_tokens: int | None
) -> "ValText":
    """The validation text of a data folder, or the documents of any files."""
    from fairway.prepare import read_documents
    from fairway.proof.prove import validation_text
    from fairway.tokens.shards import DataFolder, is_data_folder
    from fairway.tokens.val_text import ValText

    if not sources:
        raise ValueError("name what to score: fairway score MODEL DATA, or any files")
    if is_data_folder(sources[0]):
        if len(sources) > 1:
            raise ValueError(f"{sources[0]} is a data folder; score it without {sources[1]}")
        text = validation_text(loaded, DataFolder(sources[0]))
    else:
        text = ValText.of_documents(read_documents(sources), loaded.tokenizer)
        if not int(text.target_bytes.sum()):
            raise ValueError(f"there is no byte to score in {', '.join(map(str, sources))}")
    return text if num_tokens is None else text.first(num_tokens - 1)


def _score(
    loaded: "LoadedModel", text: "ValText", evaluate: "EvaluateConfig", options: ScoreOptions
) -> "tuple[Evaluation, ScoreResult, ValText] | None":
    """None on all processes but the first."""
    from fairway.evaluate.config import plan_text
    from fairway.evaluate.saved import CheckpointConfig
    from fairway.evaluate.timed import evaluation_identity
    from fairway.pipeline.scoring import code_of, coded_predictor, score_result, score_text
    from fairway.runtime.device import choose_device
    from fairway.runtime.distributed import Ranks
    from fairway.runtime.run_log import RunLog
    from fairway.runtime.setup import Runtime
    from fairway.runtime.spent import Spent
    from fairway.runtime.stopping import listening

    ranks = Ranks.from_env()
    device = choose_device(local_rank=ranks.local_rank)
    with RunLog(quiet=not ranks.is_main) as log, listening() as stop, ranks.running(device):
        runtime = Runtime(device, loaded.model.compute_dtype, ranks, log, stop=stop)
        config = evaluate.resolved(loaded.model.config.train_context)
        checkpoint, kept = None, None
        if options.checkpoint is not None:
            checkpoint = CheckpointConfig(path=options.checkpoint)
            options.checkpoint.parent.mkdir(parents=True, exist_ok=True)
            kept = options.checkpoint.with_name(f"{options.checkpoint.name}.spent")
        model = loaded.model.to(device)
        if options.fit:
            text = _fitted(model, config, text, options.budget_seconds, runtime)
        with Spent(kept if ranks.is_main else None).running() as spent:
            predictor = coded_predictor(model, config, text, seed=options.seed, ranks=ranks)
            found = score_text(
                predictor,
                plan_text(config, text),
                text,
                runtime,
                "score",
                budget_seconds=options.budget_seconds,
                spent_seconds=spent.seconds,
                checkpoint=checkpoint,
                identity=evaluation_identity(loaded.sha256, config, options.seed),
            )
    if kept is not None:
        kept.unlink(missing_ok=True)
    if not ranks.is_main:
        return None
    return found, score_result(found.score, code_of(predictor, found)), text


def _fitted(
    model: "GPT",
    config: "EvaluateConfig",
    text: "ValText",
    seconds: float | None,
    runtime: "Runtime",
) -> "ValText":
    from fairway.evaluate.fitting import first_that_fit

    assert seconds is not None  # `ScoreOptions` refuses it
    _, part = first_that_fit(model, config, text, seconds, ranks=runtime.ranks)
    if part.scope:
        runtime.log.say(f"scoring {part.scope}")
    return part


def prove(
    model: Model,
    data: Data,
    score: MaybeFile = None,
    tokens: MaybeCount = None,
    documents: MaybeCount = None,
    budget_seconds: MaybeSeconds = None,
    fit: bool = False,
    out: File = Path("proof.fwp"),
) -> Answer:
    """encode validation text with the scored predictor, decode it again, certify: MODEL DATA

    Encodes the text with the predictor that is scored, and decodes it with a fresh one.

    Args:
        model: the model file, or hf://OWNER/NAME
        data: the prepared text
        score: what `fairway score --out` wrote, or a run's result.json: that very evaluation is
            proved, with its settings, its seed and the lessons that its clock left time for;
            otherwise the result.json beside the model, if it tells of that file
        tokens: number of tokens to prove, from the start; otherwise all
        documents: number of documents to prove instead of tokens; otherwise all
        budget_seconds: seconds for encoding and decoding, with --fit
        fit: prove the first documents for which --budget-seconds suffice, as a trial says; the
            certificate says so
        out: the proof file to write; its certificate lies beside it, as .json
    """
    from fairway.runtime.files import atomic_write

    if fit and budget_seconds is None:
        raise ValueError(NEEDS_BUDGET)
    if out.suffix == ".json":
        raise ValueError(f"{out} is where the certificate will lie; name the proof otherwise")
    require_places(out)
    seconds = budget_seconds if fit else None
    certificate, differs = _proved(model, data, score, tokens, documents, seconds, out)
    atomic_write(out.with_suffix(".json"), certificate.to_json().encode())
    print(differs or certificate.verdict, file=sys.stderr)
    answer = json.loads(certificate.to_json())
    if differs or not certificate.holds:
        raise No(answer | ({"differs": differs} if differs else {}))
    return answer


def _proved(
    model: Path,
    data: Path,
    score: Path | None,
    tokens: int | None,
    documents: int | None,
    seconds: float | None,
    out: Path,
) -> "tuple[Certificate, str]":
    """The certificate, and in words how the score that was to be proved is another."""
    from functools import partial

    from fairway.proof.fitting import first_provable
    from fairway.proof.prove import prove as prove_text
    from fairway.proof.prove import validation_text
    from fairway.proof.scored import read_scored, scored_beside
    from fairway.tokens.shards import DataFolder

    loaded = open_decoder(model)
    text = validation_text(loaded, DataFolder(data))
    scored = scored_beside(loaded) if score is None else read_scored(score)
    if scored is not None:
        scored.require_model(loaded)
        text = scored.text_of(text, data)
    prove_part = partial(
        prove_text,
        loaded,
        evaluate=None if scored is None else scored.evaluate,
        learned=None if scored is None else scored.learned,
        seed=0 if scored is None else scored.seed,
    )
    if seconds is not None:
        whole = text
        text = first_provable(
            lambda number, file: prove_part(whole, out=file, num_targets=number), text, seconds
        )
    with shown("prove") as progress:
        certificate = prove_part(
            text, out=out, num_targets=tokens, num_documents=documents, progress=progress
        )
    return certificate, "" if scored is None else scored.differs(certificate)


def verify(
    file: Annotated[Path, Positional, arg(metavar="PROOF")],
    model: Model,
    text: MaybeFile = None,
    threads: MaybeCount = None,
    rows: MaybeCount = None,
    any_batch: bool = False,
    device: Name = "cpu",
    seconds: MaybeSeconds = None,
) -> Answer:
    """decode a proof with nothing but it and the model: PROOF MODEL

    Decodes the text and checks its hash against the one in the proof.

    Args:
        file: the proof file
        model: the model file it was made with
        text: file to write the decoded text to, documents separated by NUL
        threads: threads to decode with, in settled arithmetic; otherwise the encoder's number
        rows: rows to compute together, in settled arithmetic; otherwise the encoder's number
        any_batch: decode with the threads and rows that are fastest here, instead of the encoder's;
            in settled arithmetic only
        device: cpu, cuda or cuda:N; another than the encoder's in settled arithmetic only
        seconds: seconds after which decoding stops, at the next checkpoint; otherwise at the end
    """
    from fairway.proof.reproducible import NotReproducible
    from fairway.proof.verify import verify as decode
    from fairway.runtime.device import choose_device
    from fairway.runtime.files import atomic_write

    require_places(text)
    loaded = open_decoder(model, choose_device(device))
    try:
        with shown("verify") as progress:
            decoded = decode(
                file,
                loaded,
                progress,
                threads=threads,
                rows=rows,
                any_batch=any_batch,
                seconds=seconds,
            )
    except NotReproducible as error:
        print(f"no: {error}", file=sys.stderr)
        raise No({"equal": False, "problem": str(error)}) from error
    if text is not None:
        atomic_write(text, b"\0".join(decoded.documents))
    print(_came_back(decoded), file=sys.stderr)
    return {
        "equal": decoded.whole or None,  # any other text was refused; a part is no text yet
        "whole": decoded.whole,
        "tokens": decoded.num_tokens,
        "bytes": decoded.text_bytes,
        "coded_bits_per_byte": decoded.coded_bits_per_byte,
        "seconds": decoded.seconds,
    }


def _came_back(decoded: "Verification") -> str:
    if decoded.whole:
        return "yes: the text came back, and its hash is the one in the proof"
    return (
        f"yes, so far: {decoded.num_tokens:,} tokens came back in {decoded.seconds:.0f} s, and "
        f"every checkpoint among them is the one in the proof"
    )
