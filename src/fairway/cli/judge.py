"""Commands that say what a model, a score or a run is worth."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from fairway.cli.answer import Answer, No, shown, take_settings


def score(argv: list[str]) -> Answer:
    """score a model on the validation text of a data folder: MODEL DATA"""
    import dataclasses

    import tyro

    from fairway.artifact.loaded_model import load_model
    from fairway.evaluate.config import EvaluateConfig, make_predictor, plan_text
    from fairway.pipeline.scoring import evaluate
    from fairway.proof.prove import evaluation_of, validation_text
    from fairway.runtime.device import choose_device
    from fairway.runtime.distributed import Ranks
    from fairway.runtime.files import atomic_write
    from fairway.runtime.run_log import RunLog
    from fairway.runtime.setup import Runtime
    from fairway.tokens.shards import DataFolder
    from fairway.tokens.val_text import ValText

    usage = "usage: fairway score MODEL DATA [--evaluate.OPTION VALUE] [--set evaluate.PATH=JSON]"
    asked = bool({"-h", "--help"} & set(argv))
    if len(argv) < 2 or argv[0].startswith("-") or argv[1].startswith("-"):
        if asked:
            print(f"{usage}; fairway score MODEL DATA --help lists the options")
            sys.exit(0)
        raise ValueError(usage)
    loaded = load_model(Path(argv[0]))

    @dataclasses.dataclass(frozen=True)
    class Options:
        """How the text is priced is the model's own setting, unless overridden.

        Attributes:
            budget_seconds: learning stops in time to price the rest within so many
            checkpoint: go on from this file if it is there; kept while scoring
            tokens: score only so many of the text's first tokens
            out: write the answer here too
            seed: of adapters
        """

        evaluate: EvaluateConfig
        budget_seconds: float | None = None
        checkpoint: Path | None = None
        tokens: int | None = None
        out: Path | None = None
        seed: int = 0

    default, rest = take_settings(Options(evaluate=evaluation_of(loaded)), argv[2:])
    options = tyro.cli(
        tyro.conf.AvoidSubcommands[Options],
        args=rest,
        default=default,
        prog="fairway score MODEL DATA",
    )
    ranks = Ranks.from_env()
    device = choose_device(None, local_rank=ranks.local_rank)
    data = DataFolder(Path(argv[1]))
    validation_text(loaded, data)  # refuses a folder of another tokenizer
    text = ValText.of(data, options.tokens)
    with RunLog(None, quiet=not ranks.is_main) as log, ranks.running(device):
        runtime = Runtime(device, loaded.model.compute_dtype, ranks, log)
        config = options.evaluate.resolved(loaded.model.config.train_context)
        began = time.perf_counter()
        predictor = make_predictor(loaded.model.to(device), config, seed=options.seed, ranks=ranks)
        found = evaluate(
            predictor,
            plan_text(config, text),
            text,
            runtime,
            "score",
            budget_seconds=options.budget_seconds,
            spent_seconds=time.perf_counter() - began,
            checkpoint=options.checkpoint,
        )
    if not ranks.is_main:
        return {}
    print(f"{found.score.bits_per_byte:.5f} bits per byte", file=sys.stderr)
    answer = {
        "bits_per_byte": found.score.bits_per_byte,
        "nats_per_token": found.score.nats_per_token,
        "tokens": found.score.num_tokens,
        "bytes": found.score.num_bytes,
        "seconds": found.seconds,
        "note": found.note,
    }
    if options.out is not None:
        atomic_write(options.out, json.dumps(answer, indent=1).encode())
    return answer


def prove(argv: list[str]) -> Answer:
    """encode validation text with the scored predictor, decode it again, certify: MODEL DATA"""
    import tyro

    from fairway.artifact.loaded_model import load_model
    from fairway.proof.prove import prove as prove_text
    from fairway.proof.prove import validation_text
    from fairway.runtime.files import atomic_write
    from fairway.tokens.shards import DataFolder

    def options(
        model: tyro.conf.Positional[Path],
        data: tyro.conf.Positional[Path],
        /,
        tokens: int | None = None,
        documents: int | None = None,
        out: Path = Path("proof.fwp"),
    ) -> Answer:
        """The bitstream that decodes to the text is the score, as a file.

        Args:
            model: the model file
            data: the prepared text
            tokens: prove so many tokens
            documents: or so many documents; neither: everything
            out: the proof to write; its certificate lies beside it, as .json
        """
        loaded = load_model(model)
        val_tokens, target_bytes = validation_text(loaded, DataFolder(data))
        with shown("prove") as progress:
            certificate = prove_text(
                loaded,
                val_tokens,
                target_bytes,
                out=out,
                num_targets=tokens,
                num_documents=documents,
                progress=progress,
            )
        atomic_write(out.with_suffix(".json"), certificate.to_json().encode())
        print(certificate.verdict, file=sys.stderr)
        answer = json.loads(certificate.to_json())
        if not certificate.holds:
            raise No(answer)
        return answer

    return tyro.cli(options, args=argv, prog="fairway prove")


def verify(argv: list[str]) -> Answer:
    """decode a proof with nothing but it and the model: PROOF MODEL"""
    import tyro

    from fairway.artifact.loaded_model import load_model
    from fairway.proof.reproducible import NotReproducible
    from fairway.proof.verify import verify as decode
    from fairway.runtime.files import atomic_write

    def options(
        file: tyro.conf.Positional[Path],
        model: tyro.conf.Positional[Path],
        /,
        text: Path | None = None,
    ) -> Answer:
        """The text that comes out must have the hash that the proof names.

        Args:
            file: the proof
            model: the model it was made with
            text: write the decoded text here
        """
        loaded = load_model(model)
        try:
            with shown("verify") as progress:
                decoded = decode(file, loaded, progress)
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
            tokens: .npy file of the stream to score; a made-up one when absent
            num_bytes: bytes of the text behind the tokens
            tokenizer: SentencePiece model, to count bytes token by token
            seconds: time limit; what it left out is said
            seed: of the probes
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
            progress=_tell,
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
        """The same questions, and what only the inside can answer. A scorer of your own is audited
        with `fairway audit FILE.py:FUNCTION --vocab-size V`.

        Args:
            model: the model file
            data: the prepared text it was trained and is scored on
            seconds: time limit; what it left out is said
            cap_bytes: the file may have so many
            eval_seconds: the whole evaluation may take so long
            seed: of the probes
            probe: more probes, functions of your own, each as package.module:name
        """
        report = audit_artifact(
            model,
            DataFolder(data),
            seconds=seconds,
            cap_bytes=cap_bytes,
            eval_seconds=eval_seconds,
            seed=seed,
            probes=probe,
            progress=_tell,
        )
        return _verdict(report)

    return tyro.cli(options, args=argv, prog="fairway audit")


def _tell(done: float = 0.0, total: float = 0.0, *, text: str = "", **numbers: float) -> None:
    print(text, file=sys.stderr)


def _verdict(report: Any) -> Answer:
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

    from fairway.artifact.config_json import config_to_json
    from fairway.recipes.registry import RECIPES
    from fairway.report.page import write_report
    from fairway.report.plots import save_pictures
    from fairway.report.run_folder import read_run

    def options(
        runs: tyro.conf.Positional[tuple[Path, ...]],
        /,
        out: Path = Path("report.html"),
        pictures: Path | None = None,
    ) -> Answer:
        """A page that needs nothing but itself.

        Args:
            runs: run folders; several are compared
            out: the page to write
            pictures: write every picture as a PNG file too, in a folder for each run here
        """
        if pictures is not None:
            for run in map(read_run, runs):
                save_pictures(run, pictures / run.name)
        configs = {name: config_to_json(make()) for name, make in RECIPES.items()}
        return {"page": str(write_report(runs, out, recipes=configs))}

    return tyro.cli(options, args=argv, prog="fairway report")
