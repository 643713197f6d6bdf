"""The command line: parse, look up, call, print. Nothing is decided here.

Each command is a function whose annotations are its options (tyro); its imports stand inside it, so
that asking for help costs no PyTorch. Exit status: 0 done; 1 done, and the answer is no; 2 the user
can mend it.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

if TYPE_CHECKING:
    from fairway.proof.codec import Progress

Answer = dict[str, Any]


class No(Exception):
    """Done, and the answer is no; carries what to print."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer


def demo(argv: list[str]) -> Answer:
    """the whole pipeline on the built-in text, a few minutes on two CPU cores"""
    from fairway import demo as stages
    from fairway.recipes.registry import recipe

    chosen = recipe("pocket")

    def prepare_data(out: Path) -> Any:
        return stages.prepare_builtin(out / "data", chosen.model.vocab_size)

    return _run_recipe(argv, "demo", chosen, prepare_data)


def run(argv: list[str]) -> Answer:
    """train, average, quantize, pack, score, prove, report: RECIPE DATA --out RUN"""
    from fairway.recipes.registry import recipe
    from fairway.tokens.shards import DataFolder

    if not argv or argv[0].startswith("-"):
        from fairway.recipes.registry import RECIPES

        names = ", ".join(sorted(RECIPES))
        raise ValueError(f"usage: fairway run RECIPE DATA [--out RUN]; recipes are {names}")
    if len(argv) < 2 or argv[1].startswith("-"):
        return _run_recipe(argv[1:], "run", recipe(argv[0]), None)
    folder = DataFolder(Path(argv[1]))
    return _run_recipe(argv[2:], "run", recipe(argv[0]), lambda out: folder)


def _run_recipe(
    argv: list[str], command: str, chosen: Any, prepare_data: Callable[[Path], Any] | None
) -> Answer:
    import tyro

    from fairway import demo as stages
    from fairway.pipeline import set_up
    from fairway.recipes.recipe import Recipe
    from fairway.report.table import print_result
    from fairway.runtime.device import choose_device
    from fairway.runtime.distributed import Ranks
    from fairway.runtime.run_log import RunLog

    @dataclass(frozen=True)
    class Options:
        """Every field of the recipe can be overridden."""

        recipe: Annotated[Recipe, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands]
        out: Path = Path("runs") / chosen.name
        proof_tokens: int = stages.PROOF_TOKENS
        device: str | None = None
        threads: int | None = None

    options = tyro.cli(
        Options, args=argv, default=Options(recipe=chosen), prog=f"fairway {command}"
    )
    if prepare_data is None:
        raise ValueError(f"name the data: fairway run {chosen.name} DATA; see fairway prepare")
    stages.use_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "train.log").unlink(missing_ok=True)
    ranks = Ranks.from_env()
    device = choose_device(options.device, local_rank=ranks.local_rank)
    with RunLog(options.out / "train.log", quiet=not ranks.is_main) as log, ranks.running(device):
        with log.stage("prepare"):
            data = prepare_data(options.out)
        here = set_up(log, device, ranks)
        result = stages.run_everything(
            options.recipe, data, options.out, here, options.proof_tokens
        )
    print_result(result, sys.stderr)
    result["files"] = str(options.out)
    if not result["proof"]["holds"]:
        raise No(result)
    return result


def prepare(argv: list[str]) -> Answer:
    """text, JSON lines or Parquet, or .xz of them, to shards and a tokenizer"""
    import tyro

    from fairway import prepare as stage
    from fairway.runtime.run_log import RunLog

    def options(
        out: tyro.conf.Positional[Path],
        sources: tyro.conf.Positional[tuple[Path, ...]],
        /,
        vocab_size: int | None = None,
        tokenizer: Path | None = None,
        val: tuple[Path, ...] = (),
        val_fraction: float | None = None,
        seed: int = 0,
    ) -> Answer:
        """Raw text to a data folder.

        Args:
            out: the folder to make
            sources: files or folders of training text
            vocab_size: train a tokenizer of so many pieces
            tokenizer: use this tokenizer file
            val: validation text of its own
            val_fraction: else, the share of documents held out
            seed: of that choice
        """
        with RunLog(None) as log, log.stage("prepare") as shown:
            return stage.prepare(
                out,
                sources,
                vocab_size=vocab_size,
                tokenizer=tokenizer,
                val=val,
                val_fraction=val_fraction,
                seed=seed,
                progress=lambda done: shown.update(done / 1e6, megabytes=round(done / 1e6)),
            )

    return tyro.cli(options, args=argv, prog="fairway prepare")


def fetch(argv: list[str]) -> Answer:
    """the challenge's published shards from the Hugging Face hub"""
    import tyro

    from fairway.fetch import fetch as get

    def options(
        name: tyro.conf.Positional[str],
        out: tyro.conf.Positional[Path],
        /,
        train_shards: int = 80,
    ) -> Answer:
        return get(name, out, train_shards=train_shards)

    return tyro.cli(options, args=argv, prog="fairway fetch")


def recipes(argv: list[str]) -> Answer:
    """list, show, compare"""
    import tyro

    from fairway.model.gpt import num_params
    from fairway.recipes.diff import diff as differences
    from fairway.recipes.diff import to_json
    from fairway.recipes.registry import RECIPES, recipe

    def options(
        name: tyro.conf.Positional[str | None] = None, /, diff: str | None = None
    ) -> Answer:
        """List, show, compare.

        Args:
            name: the recipe to show; none lists them
            diff: the recipe to compare it with
        """
        if name is None:
            for each, make in RECIPES.items():
                print(f"{each:16s} {(make.__doc__ or '').strip().splitlines()[0]}")
            return {"recipes": list(RECIPES)}
        if diff is not None:
            changes = differences(recipe(diff), recipe(name))
            print(*changes, sep="\n")
            told = {c.path: {diff: repr(c.old), name: repr(c.new)} for c in changes}
            return {"name": name, "other": diff, "changes": told}
        shown = to_json(recipe(name)) | {"params": num_params(recipe(name).model)}
        print(json.dumps(shown, indent=1))
        return shown

    return tyro.cli(options, args=argv, prog="fairway recipes")


def score(argv: list[str]) -> Answer:
    """score an artifact on the validation text of a data folder: MODEL DATA"""
    import tyro

    from fairway.artifact.config_json import config_from_json
    from fairway.artifact.served import load
    from fairway.evaluate.ttt import EvaluateConfig, make_predictor
    from fairway.pipeline import ValText, evaluate, set_up
    from fairway.runtime.device import choose_device
    from fairway.runtime.run_log import RunLog
    from fairway.tokens.shards import DataFolder

    def options(model: tyro.conf.Positional[Path], data: tyro.conf.Positional[Path], /) -> Answer:
        with RunLog(None) as log:
            served = load(model)
            config = config_from_json(EvaluateConfig, served.evaluate)
            text = ValText.of(DataFolder(data))
            here = set_up(log, choose_device(None))
            line, _ = evaluate(make_predictor(served.model, config), config, text, here, "score")
        total = line.pop("score")
        print(f"{line['bits_per_byte']:.5f} bits per byte", file=sys.stderr)
        return line | {"tokens": total.num_tokens, "bytes": total.num_bytes}

    return tyro.cli(options, args=argv, prog="fairway score")


def prove(argv: list[str]) -> Answer:
    """encode validation text with the scored predictor, decode it again, certify: MODEL DATA"""
    import tyro

    from fairway.artifact.served import load
    from fairway.pipeline import ValText
    from fairway.proof.prove import prove as prove_text
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
        """Args:
        model: the artifact
        data: the prepared text
        tokens: prove so many tokens
        documents: or so many documents; neither: everything
        out: the proof to write
        """
        text = ValText.of(DataFolder(data))
        with _shown("prove") as progress:
            certificate = prove_text(
                load(model),
                text.tokens,
                text.target_bytes,
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
    """decode a proof with nothing but it and the artifact: PROOF MODEL"""
    import tyro

    from fairway.artifact.served import load
    from fairway.proof.verify import verify as decode

    def options(
        file: tyro.conf.Positional[Path],
        model: tyro.conf.Positional[Path],
        /,
        text: Path | None = None,
    ) -> Answer:
        """Args:
        file: the proof
        model: the artifact it was made with
        text: write the decoded text here
        """
        with _shown("verify") as progress:
            decoded = decode(file, load(model), progress)
        if text is not None:
            text.write_bytes(b"\0".join(decoded.documents))
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
    """probe any scorer for learning ahead, improper prices and wrong bytes: FILE.py:FUNCTION"""
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
    ) -> Answer:
        """Args:
        scorer: FILE.py:FUNCTION, tokens (n,) -> nats (n-1,) or (nats, bytes)
        vocab_size: number of token ids
        tokens: .npy file of the stream to score; a made-up one when absent
        num_bytes: bytes of the text behind the tokens
        tokenizer: SentencePiece model, to count bytes token by token
        seconds: time limit; what it left out is said
        seed: of the probes
        """
        report = run_audit(
            scorer,
            vocab_size=vocab_size,
            tokens=tokens,
            num_bytes=num_bytes,
            tokenizer=tokenizer,
            seconds=seconds,
            seed=seed,
            progress=lambda line: print(line, file=sys.stderr),
        )
        print(report.text(), file=sys.stderr)
        answer = report.to_json()
        if report.exit_status == 2:
            raise ValueError(str(answer.get("problem", "the scorer could not be run")))
        if report.exit_status:
            raise No(answer)
        return answer

    return tyro.cli(options, args=argv, prog="fairway audit")


def report(argv: list[str]) -> Answer:
    """one page for one or several run folders: RUN..."""
    import tyro

    from fairway.report.page import write_report

    def options(
        runs: tyro.conf.Positional[tuple[Path, ...]], /, out: Path = Path("report.html")
    ) -> Answer:
        return {"page": str(write_report(runs, out))}

    return tyro.cli(options, args=argv, prog="fairway report")


def _shown(name: str) -> Any:
    """Progress of a long call on standard error."""
    from contextlib import contextmanager

    from fairway.runtime.run_log import RunLog

    @contextmanager
    def show() -> Any:
        with RunLog(None) as log, log.stage(name, total=1.0) as stage:
            progress: Progress = lambda done, total: stage.update(done / total)  # noqa: E731
            yield progress

    return show()


COMMANDS: dict[str, Callable[[list[str]], Answer]] = {
    command.__name__: command
    for command in (demo, prepare, fetch, recipes, run, score, prove, verify, audit, report)
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="fairway", description=__import__("fairway").__doc__)
    commands = parser.add_subparsers(required=True, metavar="command", dest="command")
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=command.__doc__, add_help=False)
    chosen, rest = parser.parse_args(argv[:1]).command, argv[1:]
    as_json = "--json" in rest
    try:
        answer, status = COMMANDS[chosen]([arg for arg in rest if arg != "--json"]), 0
    except No as no:
        answer, status = no.answer, 1
    except (ValueError, OSError) as error:
        print(f"fairway {chosen}: {error}", file=sys.stderr)
        return 2
    if as_json:
        print(json.dumps(answer, default=str))
    return status


if __name__ == "__main__":
    sys.exit(main())
