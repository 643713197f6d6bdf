"""Commands that make something: data, a trained model, a packed file."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from fairway.cli.answer import Answer, No, take_settings

PROOF_TOKENS = 2000  # enough to convince, few enough to decode in a quarter of a minute
AUDIT_SECONDS = 30.0


def demo(argv: list[str]) -> Answer:
    """the whole pipeline on the built-in text, a few minutes on two CPU cores"""
    from fairway.demo import prepare_builtin
    from fairway.recipes.registry import recipe

    chosen = recipe("pocket")

    def data_of(options: Any) -> Any:
        return prepare_builtin(options.out / "data", chosen.model.vocab_size)

    return _run_recipe(argv, "demo", chosen, data_of)


def run(argv: list[str]) -> Answer:
    """train, average, quantize, pack, score, prove, audit, report: RECIPE DATA --out RUN"""
    chosen, data_of, rest = _recipe_and_data(argv, "run")
    return _run_recipe(rest, "run", chosen, data_of)


def train(argv: list[str]) -> Answer:
    """the first stage of `run` alone: RECIPE DATA --out RUN; `pack` goes on from it"""
    chosen, data_of, rest = _recipe_and_data(argv, "train")
    return _run_recipe(rest, "train", chosen, data_of)


def _recipe_and_data(argv: list[str], command: str) -> tuple[Any, Any, list[str]]:
    from fairway.recipes.registry import RECIPES, recipe
    from fairway.tokens.shards import DataFolder

    usage = (
        f"usage: fairway {command} RECIPE DATA [--out RUN] [--FIELD.OF.RECIPE VALUE]; recipes are "
        f"{', '.join(RECIPES)}; fairway {command} RECIPE --help lists the fields"
    )
    if not argv or argv[0].startswith("-"):
        if {"-h", "--help"} & set(argv):
            print(usage)
            sys.exit(0)
        raise ValueError(usage)
    chosen = recipe(argv[0])
    if len(argv) < 2 or argv[1].startswith("-"):
        if {"-h", "--help"} & set(argv):
            return chosen, None, argv[1:]
        raise ValueError(f"name the data: fairway {command} {argv[0]} DATA; see fairway prepare")
    return chosen, lambda options: DataFolder(Path(argv[1])), argv[2:]


def _run_recipe(
    argv: list[str], command: str, chosen: Any, data_of: Callable[[Any], Any]
) -> Answer:
    import torch
    import tyro

    from fairway.demo import judge_run
    from fairway.pipeline.story import run as run_recipe
    from fairway.pipeline.story import train_only
    from fairway.recipes.diff import override
    from fairway.recipes.recipe import Recipe
    from fairway.report.compressors import require
    from fairway.report.table import print_result
    from fairway.result import RunResult
    from fairway.runtime.device import choose_device
    from fairway.runtime.distributed import Ranks
    from fairway.runtime.run_log import RunLog
    from fairway.runtime.setup import set_up

    chosen, argv = take_settings(chosen, argv)
    if "--env" in argv:  # read first: what it sets are the defaults that other options override
        from fairway.interop.settings import training_settings

        env, argv = _env_file(argv)
        chosen = override(chosen, training_settings(chosen, env))

    if "--train.steps" in argv:  # they replace the clock
        train = replace(chosen.train, seconds=None, steps=1, reserve_seconds=0.0)
        chosen = replace(chosen, train=train, quant=replace(chosen.quant, reserve_seconds=0.0))

    @dataclass(frozen=True)
    class Options:
        """Every field of the recipe can be overridden; `--set PATH=JSON` sets what no single value
        can say, as in `--set evaluate.ttt=null`. `--env FILE.json` takes the variables of a
        published script.

        Attributes:
            out: the run folder
            proof_tokens: tokens of the validation text to encode and decode again
            audit_seconds: what auditing the result may take; 0 leaves it out
            device: cuda, cpu or mps; the best there is when absent
            threads: of the CPU; all cores when absent
            compiled: train through torch.compile; on a GPU unless told otherwise
            resume: go on from the checkpoint in the run folder
        """

        recipe: Annotated[Recipe, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands]
        out: Path = Path("runs") / chosen.name
        proof_tokens: int = PROOF_TOKENS
        audit_seconds: float = AUDIT_SECONDS
        device: str | None = None
        threads: int | None = None
        compiled: bool | None = None
        resume: bool = False

    options = tyro.cli(
        Options, args=argv, default=Options(recipe=chosen), prog=f"fairway {command}"
    )
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if command != "train":
        require()  # a figure missing at the end is missing for good
    options.out.mkdir(parents=True, exist_ok=True)
    ranks = Ranks.from_env()
    log_file = options.out / "train.log" if ranks.is_main else None
    if log_file is not None and not options.resume:
        log_file.unlink(missing_ok=True)
    device = choose_device(options.device, local_rank=ranks.local_rank)
    with RunLog(log_file, quiet=not ranks.is_main) as log, ranks.running(device):
        if ranks.is_main:
            with log.stage("prepare"):
                data = data_of(options)
        ranks.barrier()
        if not ranks.is_main:
            data = data_of(options)
        runtime = set_up(log, device, ranks, options.compiled)
        work = train_only if command == "train" else run_recipe
        result = work(options.recipe, data, options.out, runtime, options.resume)
    if not ranks.is_main:
        return {}
    if command == "train":
        return result
    with RunLog(log_file) as log:  # what follows may take longer than peers would wait
        result = judge_run(
            result,
            options.recipe,
            data,
            options.out,
            replace(runtime, ranks=Ranks(), log=log),
            proof_tokens=options.proof_tokens,
            audit_seconds=options.audit_seconds,
        )
    print_result(RunResult.from_json(result), sys.stderr)
    result["files"] = str(options.out)
    if not result["proof"]["holds"] or result.get("audit", {}).get("verdict") == "illegal":
        raise No(result)
    return result


def _env_file(argv: list[str]) -> tuple[dict[str, str], list[str]]:
    at = argv.index("--env")
    if at + 1 == len(argv):
        raise ValueError("--env needs a JSON file of the published script's variables")
    return read_env(Path(argv[at + 1])), argv[:at] + argv[at + 2 :]


def read_env(path: Path) -> dict[str, str]:
    """The variables of a published script, as texts."""
    try:
        env = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(env, dict) or any(isinstance(v, dict | list) for v in env.values()):
        raise ValueError(f'{path} must be an object of variables, such as {{"NUM_LAYERS": "11"}}')
    return {name: str(int(v) if isinstance(v, bool) else v) for name, v in env.items()}


def pack(argv: list[str]) -> Answer:
    """a trained run, or a model once more, to one file under a cap: RUN|MODEL DATA"""
    import tyro

    from fairway.pipeline.packing import describe_artifact, pack_again
    from fairway.runtime.device import choose_device
    from fairway.runtime.files import atomic_write
    from fairway.runtime.run_log import RunLog
    from fairway.runtime.setup import set_up
    from fairway.tokens.shards import DataFolder

    def options(
        source: tyro.conf.Positional[Path],
        data: tyro.conf.Positional[Path],
        /,
        out: Path | None = None,
        recipe: str | None = None,
        cap_bytes: int | None = None,
    ) -> Answer:
        """Round and code the weights as precisely as the cap allows.

        Args:
            source: a run folder of `fairway train`, or a model file
            data: the prepared training text, which GPTQ reads
            out: the file to write; model.fwy of the run folder when absent
            recipe: by whose rules; the run's own when absent
            cap_bytes: the recipe's when absent
        """
        if not source.exists():
            raise ValueError(f"no run folder or model at {source}; `fairway train` makes one")
        if out is None and not source.is_dir():
            raise ValueError(f"name the file to write: --out FILE ({source} stays as it is)")
        target = out or source / "model.fwy"
        with RunLog(None) as log:
            runtime = set_up(log, choose_device(None))
            packed = pack_again(source, DataFolder(data), runtime, recipe, cap_bytes)
        atomic_write(target, packed)
        print(f"{len(packed):,} bytes in {target}", file=sys.stderr)
        return {"model": str(target), **describe_artifact(target, cap_bytes or len(packed))}

    return tyro.cli(options, args=argv, prog="fairway pack")


def import_(argv: list[str]) -> Answer:
    """a published checkpoint or artifact as a model file: FILE --lineage NAME --env FILE.json"""
    import tyro

    from fairway.interop.import_file import import_file

    def options(
        file: tyro.conf.Positional[Path],
        /,
        lineage: str,
        env: Path,
        tokenizer: Path,
        out: Path = Path("model.fwy"),
    ) -> Answer:
        """Nothing is rounded on the way; `fairway pack` does that.

        Args:
            file: .pt, .safetensors or .ptz
            lineage: baseline, pr254, pr414, pr1413, pr1493 or pr1855
            env: the variables the published script was started with, as JSON
            tokenizer: the SentencePiece file of its training
            out: the model to write
        """
        answer = import_file(file, lineage, read_env(env), tokenizer, out)
        print(f"{answer['params']:,} parameters in {out}", file=sys.stderr)
        return answer

    return tyro.cli(options, args=argv, prog="fairway import")


def prepare(argv: list[str]) -> Answer:
    """text, JSON lines or Parquet, or .xz of them, to shards and a tokenizer: OUT SOURCE..."""
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
            tokenizer: use this tokenizer file; `bytes` for the bytes themselves
            val: validation text of its own
            val_fraction: else, the share of documents held out
            seed: of that choice
        """
        with RunLog(None) as log, log.stage("prepare", total=1.0) as shown:
            return stage.prepare(
                out,
                sources,
                vocab_size=vocab_size,
                tokenizer=tokenizer,
                val=val,
                val_fraction=val_fraction,
                seed=seed,
                progress=lambda share, encoded: shown.update(share, megabytes=round(encoded / 1e6)),
            )

    return tyro.cli(options, args=argv, prog="fairway prepare")


def fetch(argv: list[str]) -> Answer:
    """the challenge's published shards from the Hugging Face hub: NAME OUT"""
    import tyro

    from fairway.fetch import fetch as get

    def options(
        name: tyro.conf.Positional[str],
        out: tyro.conf.Positional[Path],
        /,
        train_shards: int = 80,
    ) -> Answer:
        """Resumes what was interrupted; every file is checked.

        Args:
            name: of the published data set; a wrong one lists them
            out: the data folder
            train_shards: how many of the training shards
        """
        return get(name, out, train_shards=train_shards)

    return tyro.cli(options, args=argv, prog="fairway fetch")


def recipes(argv: list[str]) -> Answer:
    """list, show, compare: [NAME] [--diff OTHER]"""
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
