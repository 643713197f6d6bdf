"""Commands that say what a model, a score or a run is worth."""

import json
import sys
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from fairway.cli.answer import (
    Answer,
    No,
    open_model,
    print_text,
    shown,
    take_settings,
    two_paths,
)

if TYPE_CHECKING:
    from fairway.artifact.loaded_model import LoadedModel
    from fairway.audit.findings import AuditReport
    from fairway.evaluate.config import EvaluateConfig
    from fairway.evaluate.timed import Evaluation
    from fairway.proof.certificate import Certificate
    from fairway.result import ScoreResult
    from fairway.tokens.val_text import ValText


def score(argv: list[str]) -> Answer:
    """score a model on a data folder's validation text, or on any text: MODEL DATA|FILE..."""
    from fairway.proof.scored import told
    from fairway.runtime.files import atomic_write

    usage = (
        "usage: fairway score MODEL DATA|FILE... [--evaluate.OPTION VALUE] "
        "[--set evaluate.PATH=JSON]"
    )
    model, first, rest = two_paths(argv, usage, "fairway score MODEL DATA")
    more = list(takewhile(lambda word: not word.startswith("-"), rest))
    loaded = open_model(model)
    evaluate, options = _score_options(loaded, rest[len(more) :])
    text = _text_to_score(loaded, [first, *map(Path, more)], options.tokens)
    scored = _score(loaded, text, evaluate, options)
    if scored is None:
        return {}
    found, score = scored
    coded = f", the length of a code of {score.code_bytes:,} bytes" if score.code_bytes else ""
    print(f"{score.bits_per_byte:.5f} bits per byte{coded}", file=sys.stderr)
    answer = {
        "bits_per_byte": score.bits_per_byte,
        "nats_per_token": found.score.nats_per_token,
        "tokens": score.tokens,
        "bytes": score.bytes,
        "code_bytes": score.code_bytes,
        "seconds": found.seconds,
        "note": found.note,
    } | told(found, loaded, text, evaluate, options.seed)
    if options.out is not None:
        atomic_write(options.out, json.dumps(answer, indent=1).encode())
    return answer


def _text_to_score(loaded: "LoadedModel", sources: list[Path], num_tokens: int | None) -> "ValText":
    """The validation text of a data folder, or the documents of any files."""
    from fairway.prepare import read_documents
    from fairway.proof.prove import validation_text
    from fairway.tokens.shards import DataFolder, is_data_folder
    from fairway.tokens.val_text import ValText

    if is_data_folder(sources[0]):
        if len(sources) > 1:
            raise ValueError(f"{sources[0]} is a data folder; score it without {sources[1]}")
        text = validation_text(loaded, DataFolder(sources[0]))
    else:
        text = ValText.of_documents(read_documents(sources), loaded.tokenizer)
        if not int(text.target_bytes.sum()):
            raise ValueError(f"there is no byte to score in {', '.join(map(str, sources))}")
    return text if num_tokens is None else text.first(num_tokens - 1)


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """What is scored, and in which time.

    Attributes:
        budget_seconds: seconds for the whole evaluation: lessons are skipped to score all in time;
            None sets no limit
        checkpoint: file to go on from if it is there, kept while scoring; None keeps none
        tokens: number of tokens to read, from the start of the text; None reads all of it
        out: JSON file to write the answer to as well, for `fairway prove --score`; None writes none
        seed: decides the initial weights of adapters; without adapters nothing is random
    """

    budget_seconds: float | None = None
    checkpoint: Path | None = None
    tokens: int | None = None
    out: Path | None = None
    seed: int = 0


def _score_options(loaded: "LoadedModel", argv: list[str]) -> "tuple[EvaluateConfig, ScoreOptions]":
    import tyro

    from fairway.evaluate.config import EvaluateConfig
    from fairway.proof.prove import evaluation_of

    @dataclass(frozen=True, kw_only=True)
    class Options(ScoreOptions):
        """Scores the text as the model file says, unless a setting is overridden here."""

        evaluate: EvaluateConfig

    default, rest = take_settings(Options(evaluate=evaluation_of(loaded)), argv)
    prog = "fairway score MODEL DATA"
    options = tyro.cli(tyro.conf.AvoidSubcommands[Options], args=rest, default=default, prog=prog)
    return options.evaluate, options


def _score(
    loaded: "LoadedModel", text: "ValText", evaluate: "EvaluateConfig", options: ScoreOptions
) -> "tuple[Evaluation, ScoreResult] | None":
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
        with Spent(kept if ranks.is_main else None).running() as spent:
            model = loaded.model.to(device)
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
    return (found, score_result(found.score, code_of(predictor, found))) if ranks.is_main else None


def prove(argv: list[str]) -> Answer:
    """encode validation text with the scored predictor, decode it again, certify: MODEL DATA"""
    import tyro

    from fairway.runtime.files import atomic_write

    def options(
        model: tyro.conf.Positional[Path],
        data: tyro.conf.Positional[Path],
        /,
        score: Path | None = None,
        tokens: int | None = None,
        documents: int | None = None,
        out: Path = Path("proof.fwp"),
    ) -> Answer:
        """Encodes the text with the predictor that is scored, and decodes it with a fresh one.

        Args:
            model: the model file
            data: the prepared text
            score: what `fairway score --out` wrote, or a run's result.json: that very evaluation
                is proved, with its settings, its seed and the lessons that its clock left time for;
                None takes the result.json beside the model, if it tells of that file
            tokens: number of tokens to prove, from the start; None proves all
            documents: number of documents to prove instead of tokens; None proves all
            out: the proof file to write; its certificate lies beside it, as .json
        """
        certificate, differs = _proved(model, data, score, tokens, documents, out)
        atomic_write(out.with_suffix(".json"), certificate.to_json().encode())
        print(differs or certificate.verdict, file=sys.stderr)
        answer = json.loads(certificate.to_json())
        if differs or not certificate.holds:
            raise No(answer | ({"differs": differs} if differs else {}))
        return answer

    return tyro.cli(options, args=argv, prog="fairway prove")


def _proved(
    model: Path,
    data: Path,
    score: Path | None,
    tokens: int | None,
    documents: int | None,
    out: Path,
) -> "tuple[Certificate, str]":
    """The certificate, and in words how the score that was to be proved is another."""
    from fairway.proof.prove import prove as prove_text
    from fairway.proof.prove import validation_text
    from fairway.proof.scored import read_scored, scored_beside
    from fairway.tokens.shards import DataFolder

    loaded = open_model(model)
    text = validation_text(loaded, DataFolder(data))
    scored = scored_beside(loaded) if score is None else read_scored(score)
    if scored is not None:
        scored.require_model(loaded)
        text = scored.text_of(text, data)
    with shown("prove") as progress:
        certificate = prove_text(
            loaded,
            text,
            out=out,
            evaluate=None if scored is None else scored.evaluate,
            num_targets=tokens,
            num_documents=documents,
            learned=None if scored is None else scored.learned,
            seed=0 if scored is None else scored.seed,
            progress=progress,
        )
    return certificate, "" if scored is None else scored.differs(certificate)


def verify(argv: list[str]) -> Answer:
    """decode a proof with nothing but it and the model: PROOF MODEL"""
    import tyro

    from fairway.proof.reproducible import NotReproducible
    from fairway.proof.verify import verify as decode
    from fairway.runtime.files import atomic_write

    def options(
        file: tyro.conf.Positional[Path],
        model: tyro.conf.Positional[Path],
        /,
        text: Path | None = None,
        threads: int | None = None,
        rows: int | None = None,
        device: str = "cpu",
    ) -> Answer:
        """Decodes the text and checks its hash against the one in the proof.

        Args:
            file: the proof file
            model: the model file it was made with
            text: file to write the decoded text to, documents separated by NUL; None writes none
            threads: threads to decode with, in settled arithmetic; None takes the encoder's number
            rows: rows to compute together, in settled arithmetic; None takes the encoder's number
            device: cpu, cuda or cuda:N; another than the encoder's in settled arithmetic only
        """
        from fairway.runtime.device import choose_device

        loaded = open_model(model)
        loaded.model.to(choose_device(device))
        try:
            with shown("verify") as progress:
                decoded = decode(file, loaded, progress, threads=threads, rows=rows)
        except NotReproducible as error:
            print(f"no: {error}", file=sys.stderr)
            raise No({"equal": False, "problem": str(error)}) from error
        if text is not None:
            atomic_write(text, b"\0".join(decoded.documents))
        print("yes: the text came back, and its hash is the one in the proof", file=sys.stderr)
        return {
            "equal": True,  # any other text was refused
            "tokens": decoded.num_tokens,
            "bytes": decoded.text_bytes,
            "coded_bits_per_byte": decoded.coded_bits_per_byte,
            "seconds": decoded.seconds,
        }

    return tyro.cli(options, args=argv, prog="fairway verify")


def audit(argv: list[str]) -> Answer:
    """probe anybody's scorer, or a model of ours: FILE.py:FUNCTION --vocab-size V, or MODEL DATA"""
    of_scorer = any(".py:" in arg for arg in argv[:1]) or "--vocab-size" in argv
    return _audit_scorer(argv) if of_scorer else _audit_model(argv)


def _audit_scorer(argv: list[str]) -> Answer:
    import tyro

    from fairway.audit import run_audit

    def options(
        scorer: tyro.conf.Positional[str],
        /,
        vocab_size: int,
        tokens: Path | None = None,
        num_bytes: int | None = None,
        tokenizer: Path | None = None,
        seconds: float = 60.0,
        seed: int = 0,
        probe: tuple[str, ...] = (),
    ) -> Answer:
        """Five questions that a legal score answers well; exit 0 legal, 1 illegal, 2 could not run.

        Args:
            scorer: FILE.py:FUNCTION, tokens (n,) -> nats (n-1,) or (nats, bytes)
            vocab_size: number of token ids
            tokens: .npy file of the token ids to score; None makes some up
            num_bytes: bytes of the text that the tokens stand for; None leaves them unchecked
            tokenizer: SentencePiece file, to count bytes token by token; None counts none
            seconds: time limit in seconds; the answer says what was left out for lack of time
            seed: decides at which places the scorer is probed; the same seed asks the same
            probe: more probes, functions of your own, each as package.module:name
        """
        report = run_audit(
            scorer,
            vocab_size=vocab_size,
            tokens=tokens,
            num_bytes=num_bytes,
            tokenizer=tokenizer,
            seconds=seconds,
            seed=seed,
            probes=probe,
            progress=print_text,
        )
        return _verdict(report)

    return tyro.cli(options, args=argv, prog="fairway audit")


def _audit_model(argv: list[str]) -> Answer:
    import tyro

    from fairway.audit.artifact import audit_artifact
    from fairway.tokens.shards import DataFolder

    def options(
        model: tyro.conf.Positional[Path],
        data: tyro.conf.Positional[Path],
        /,
        seconds: float = 60.0,
        cap_bytes: int | None = None,
        eval_seconds: float | None = None,
        seed: int = 0,
        probe: tuple[str, ...] = (),
    ) -> Answer:
        """The same questions, and what only the inside can answer. A run that kept all but its
        clock or its cap is not illegal, but over time or over bytes: exit 1, too. A scorer of your
        own is audited with `fairway audit FILE.py:FUNCTION --vocab-size V`.

        Args:
            model: the model file
            data: the prepared text it was trained and is scored on
            seconds: time limit in seconds; the answer says what was left out for lack of time
            cap_bytes: largest size of the file in bytes; None takes it from the result.json beside
                the model, if there is one
            eval_seconds: seconds that the whole evaluation may take; None as for --cap-bytes
            seed: decides at which places the model is probed; the same seed asks the same
            probe: more probes, functions of your own, each as package.module:name
        """
        folder = DataFolder(data)
        open_model(model)  # says where a plug-in is another one
        report = audit_artifact(
            model,
            folder,
            seconds=seconds,
            cap_bytes=cap_bytes,
            eval_seconds=eval_seconds,
            seed=seed,
            probes=probe,
            progress=print_text,
        )
        return _verdict(report)

    return tyro.cli(options, args=argv, prog="fairway audit")


def _verdict(report: "AuditReport") -> Answer:
    print(report.text(), file=sys.stderr)
    answer = report.to_json()
    if report.exit_status == 2:
        raise ValueError(str(answer.get("problem", "the scorer could not be run")))
    if report.exit_status:
        raise No(answer)
    return answer


def report(argv: list[str]) -> Answer:
    """one page for one or several run folders: RUN..."""
    import tyro

    from fairway.pipeline.judging import write_page
    from fairway.report.plots import save_pictures
    from fairway.report.run_folder import read_run

    def options(
        runs: tyro.conf.Positional[tuple[Path, ...]],
        /,
        out: Path = Path("report.html"),
        pictures: Path | None = None,
    ) -> Answer:
        """Writes one HTML file with everything in it.

        Args:
            runs: run folders; several are compared
            out: the HTML file to write
            pictures: folder to write every picture to as a PNG file, in a folder for each run;
                None writes none
        """
        if pictures is not None:
            for run in map(read_run, runs):
                save_pictures(run, pictures / run.name)
        return {"page": str(write_page(runs, out))}

    return tyro.cli(options, args=argv, prog="fairway report")
