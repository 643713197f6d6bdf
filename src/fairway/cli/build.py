"""Commands that make something: data, a trained model, a packed file."""

import json
import sys
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from fairway.cli.answer import Answer, No, shown, take_settings, take_values

if TYPE_CHECKING:
    from collections.abc import Callable

    from fairway.pipeline.story import RunOptions
    from fairway.recipes.recipe import Recipe
    from fairway.result import RunResult


def demo(argv: list[str]) -> Answer:
    """the whole pipeline on the built-in text, a few minutes on two CPU cores"""
    from fairway.demo import prepare_builtin
    from fairway.pipeline.story import run as run_recipe
    from fairway.recipes.registry import recipe

    chosen, out, options = _options(recipe("pocket"), argv, "demo")
    if options.resume == "no":
        options = replace(options, overwrite=True)

    def prepare(folder: Path) -> None:
        prepare_builtin(folder, chosen.model.vocab_size)

    return _shown_result(run_recipe(chosen, out / "data", out, options, prepare=prepare), out)


def run(argv: list[str]) -> Answer:
    """train, average, quantize, pack, score, prove, audit, report: RECIPE DATA --out RUN"""
    from fairway.pipeline.story import run as run_recipe

    recipe, data, rest = _recipe_and_data(argv, "run")
    chosen, out, options = _options(recipe, rest, "run")
    return _shown_result(run_recipe(chosen, data, out, options), out)


def train(argv: list[str]) -> Answer:
    """the first stage of `run` alone: RECIPE DATA --out RUN; `pack` goes on from it"""
    from fairway.model.gpt import num_params
    from fairway.pipeline.story import train as train_recipe
    from fairway.runtime.distributed import Ranks
    from fairway.train.checkpoints import CHECKPOINT

    recipe, data, rest = _recipe_and_data(argv, "train")
    chosen, out, options = _options(recipe, rest, "train")
    facts = asdict(train_recipe(chosen, data, out, options))
    if not Ranks.from_env().is_main:
        return {}
    return facts | {"params": num_params(chosen.model), "checkpoint": str(out / CHECKPOINT)}


def _recipe_and_data(argv: list[str], command: str) -> "tuple[Recipe, Path, list[str]]":
    """The two words that every run begins with, and the rest."""
    from fairway.recipes.registry import RECIPES, recipe

    usage = (
        f"usage: fairway {command} RECIPE DATA [--out RUN] [--FIELD.OF.RECIPE VALUE]; RECIPE is "
        f"one of {', '.join(RECIPES)}, or a function of your own that returns one: "
        f"package.module:function or path/file.py:function; fairway {command} RECIPE --help lists "
        f"the fields"
    )
    asked = bool({"-h", "--help"} & set(argv))
    if not argv or argv[0].startswith("-"):
        if asked:
            print(usage)
            sys.exit(0)
        raise ValueError(usage)
    chosen = recipe(argv[0])
    if len(argv) > 1 and not argv[1].startswith("-"):
        return chosen, Path(argv[1]), argv[2:]
    if asked:
        return chosen, Path(), argv[1:]
    raise ValueError(f"name the data: fairway {command} {argv[0]} DATA; see fairway prepare")


def _options(recipe: "Recipe", argv: list[str], command: str) -> "tuple[Recipe, Path, RunOptions]":
    """The recipe with all that was changed about it, the run folder, and how it is run."""
    import tyro

    from fairway.pipeline.story import RunOptions
    from fairway.recipes.recipe import Recipe

    chosen, rest = _changed(recipe, _resume_said(argv))

    @dataclass(frozen=True, kw_only=True)
    class Options(RunOptions):
        """Every field of the recipe can be overridden; `--set PATH=JSON` sets what no single value
        can say, as in `--set evaluate.ttt=null`. `--env FILE.json` takes the variables of a
        published script; `--as-published` sets what is otherwise here on purpose as it was there.

        Attributes:
            out: the run folder to write; runs/ and the recipe's name unless given
        """

        recipe: Annotated[Recipe, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands]
        out: Path = Path("runs") / chosen.name

    default = Options(recipe=chosen)
    options = tyro.cli(Options, args=rest, default=default, prog=f"fairway {command}")
    return options.recipe, options.out, options


def _resume_said(argv: list[str]) -> list[str]:
    """`--resume` alone is `--resume yes`."""
    said = []
    for i, word in enumerate(argv):
        said.append(word)
        if word == "--resume" and argv[i + 1 : i + 2] not in (["yes"], ["no"], ["auto"]):
            said.append("yes")
    return said


def _changed(recipe: "Recipe", argv: list[str]) -> "tuple[Recipe, list[str]]":
    """The recipe after --as-published, --env, --set and --train.steps, applied in this order.

    What they make of it are the defaults of other options. `--set` names a field itself, so it has
    the last word wherever it stands.
    """
    from fairway.recipes.diff import override

    chosen, rest = recipe, [word for word in argv if word != "--as-published"]
    if len(rest) < len(argv):
        from fairway.recipes.as_published import as_published

        chosen = as_published(recipe)
    files, rest = take_values("--env", rest)
    for file in files:
        from fairway.interop.settings import ignored_by, training_settings

        env = read_env(Path(file))
        chosen = override(chosen, training_settings(chosen, env))
        if ignored := ignored_by(chosen, env):
            print(f"note: {ignored}", file=sys.stderr)
    chosen, rest = take_settings(chosen, rest)
    if "--train.steps" in rest:  # they replace the clock
        train = replace(chosen.train, seconds=None, steps=1, reserve_seconds=0.0)
        chosen = replace(chosen, train=train, quant=replace(chosen.quant, reserve_seconds=0.0))
    return chosen, rest


def _shown_result(result: "RunResult", out: Path) -> Answer:
    """Tables on standard error; raises No where a check failed."""
    from fairway.report.table import print_result
    from fairway.runtime.distributed import Ranks

    if not Ranks.from_env().is_main:
        return {}
    print_result(result, sys.stderr)
    answer = result.to_json() | {"files": str(out)}
    if not result.holds:
        raise No(answer)
    return answer


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

    from fairway.pipeline.folder import owned
    from fairway.pipeline.packing import describe_artifact, pack_again
    from fairway.runtime.device import choose_device
    from fairway.runtime.distributed import Ranks
    from fairway.runtime.files import atomic_write
    from fairway.runtime.run_log import RunLog
    from fairway.runtime.setup import Runtime
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
            out: the file to write; None writes model.fwy in the run folder
            recipe: name of the recipe by whose rules to round; None takes the run's own
            cap_bytes: largest size of the file in bytes; None takes the recipe's
        """
        if not source.exists():
            raise ValueError(f"no run folder or model at {source}; `fairway train` makes one")
        if out is None and not source.is_dir():
            raise ValueError(f"name the file to write: --out FILE ({source} stays as it is)")
        target = out or source / "model.fwy"
        whole = owned(source, Ranks()) if source.is_dir() else nullcontext()
        with RunLog() as log, whole:
            runtime = Runtime(choose_device(), log=log).measured()
            packed = pack_again(source, DataFolder(data), runtime, recipe, cap_bytes)
            atomic_write(target, packed)
        print(f"{len(packed):,} bytes in {target}", file=sys.stderr)
        return {
            "model": str(target),
            **asdict(describe_artifact(target, cap_bytes or len(packed), 0)),
        }

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
            file: the published file: .pt, .safetensors or .ptz
            lineage: whose script made it: baseline, pr254, pr414, pr1413, pr1493 or pr1855
            env: JSON file of the variables that the script was started with
            tokenizer: SentencePiece file that the model was trained with
            out: the model file to write
        """
        answer = import_file(file, lineage, read_env(env), tokenizer, out)
        print(f"{answer['params']:,} parameters in {out}", file=sys.stderr)
        return answer

    return tyro.cli(options, args=argv, prog="fairway import")


def prepare(argv: list[str]) -> Answer:
    """text, JSON lines or Parquet, packed or not, to shards and a tokenizer: OUT SOURCE..."""
    import tyro

    from fairway import prepare as stage
    from fairway.runtime.stopping import listening

    def options(
        out: tyro.conf.Positional[Path],
        sources: tyro.conf.Positional[tuple[Path, ...]],
        /,
        vocab_size: int | None = None,
        tokenizer: Path | None = None,
        transform: Literal["caseops"] | None = None,
        val: tuple[Path, ...] = (),
        val_fraction: float | None = None,
        field: str = "text",
        seed: int = 0,
        workers: int | None = None,
        engine: Literal["own", "datatrove"] = "own",
        tasks: int | None = None,
        overwrite: bool = False,
    ) -> Answer:
        """Turns raw text into a data folder; interrupted, the same command goes on.

        Args:
            out: the data folder to make
            sources: files or folders of training text
            vocab_size: pieces of the tokenizer to train; None where --tokenizer names one
            tokenizer: tokenizer file to use, a model file whose tokenizer to use, or `bytes` for
                the bytes themselves; None trains one of --vocab-size pieces
            transform: caseops writes capitals as operators before lowercase words (#1729), which
                decoding undoes, and the original bytes of each token beside the shards
            val: files or folders of validation text; none where --val-fraction holds some out
            val_fraction: share of the documents to hold out for validation, between 0 and 1; None
                where --val names some
            field: name under which JSON lines and Parquet hold a document
            seed: decides which documents are held out; the same seed holds out the same ones
            workers: processes that encode; None starts one for each core
            engine: own reads one file after another; datatrove works on many at a time, and on many
                machines (examples/cluster/prepare_datatrove.py). The bytes are the same
            tasks: parts into which datatrove divides the work; None: one for each file
            overwrite: replace the data folder that is there, once the new one is whole; and begin
                anew what was interrupted with other arguments
        """
        request = stage.Request(
            vocab_size=vocab_size,
            tokenizer=tokenizer,
            transform=transform,
            val=val,
            val_fraction=val_fraction,
            seed=seed,
            field=field,
        )
        if engine == "own" and tasks is not None:
            raise ValueError("--tasks divides the work for --engine datatrove; give both, or none")
        with listening(), shown("prepare") as progress:
            if engine == "datatrove":
                prepare_in_tasks = _datatrove()
                return prepare_in_tasks(
                    out,
                    sources,
                    request,
                    workers=workers,
                    tasks=tasks,
                    overwrite=overwrite,
                    progress=progress,
                )
            return stage.prepare_request(
                out, sources, request, workers=workers, overwrite=overwrite, progress=progress
            )

    return tyro.cli(options, args=argv, prog="fairway prepare")


def _datatrove() -> "Callable[..., Answer]":
    """The engine of that name; ValueError where it is not installed."""
    try:
        from fairway.prepare.datatrove_engine import prepare_with_datatrove
    except ImportError as error:
        raise ValueError(
            f"--engine datatrove needs `pip install 'fairway[datatrove]'` ({error})"
        ) from error
    return prepare_with_datatrove


def fetch(argv: list[str]) -> Answer:
    """the challenge's published shards from the Hugging Face hub: NAME OUT"""
    import tyro

    from fairway.fetch.fetching import fetch as get

    def options(
        name: tyro.conf.Positional[str],
        out: tyro.conf.Positional[Path],
        /,
        train_shards: int = 80,
    ) -> Answer:
        """Fetches what is not there yet, and checks every file.

        Args:
            name: name of the published data set; a wrong one lists them all
            out: the data folder to fill
            train_shards: number of training shards to fetch, of about 200 MB each
        """
        with shown("fetch") as progress:
            return get(name, out, train_shards=train_shards, progress=progress)

    return tyro.cli(options, args=argv, prog="fairway fetch")


def recipes(argv: list[str]) -> Answer:
    """list all recipes, show one, or compare it: [NAME] [--diff OTHER | --against ENV.json]"""
    import tyro

    from fairway.model.gpt import num_params
    from fairway.recipes.diff import diff as differences
    from fairway.recipes.diff import to_json
    from fairway.recipes.registry import RECIPES, recipe

    def options(
        name: tyro.conf.Positional[str | None] = None,
        /,
        diff: str | None = None,
        against: Path | None = None,
    ) -> Answer:
        """Lists all recipes, shows one as JSON, or prints what differs between two.

        Args:
            name: the recipe to show: a name, package.module:function or path/file.py:function;
                none lists all names
            diff: the recipe to compare it with; none compares nothing
            against: JSON file of variables: prints every setting in which the recipe differs from
                what its script does under them; none compares nothing
        """
        if name is None:
            for each, make in RECIPES.items():
                print(f"{each:16s} {(make.__doc__ or '').strip().splitlines()[0]}")
            return {"recipes": list(RECIPES)}
        if diff is not None:
            changes = differences(recipe(diff), recipe(name))
            print(*changes, sep="\n")
            values = {c.path: {diff: repr(c.old), name: repr(c.new)} for c in changes}
            return {"name": name, "other": diff, "changes": values}
        if against is not None:
            from fairway.interop.settings import differences_from

            differing = differences_from(recipe(name), read_env(against))
            print(*differing or ["no setting differs"], sep="\n")
            return {
                "name": name,
                "against": str(against),
                "changes": {c.path: {"script": repr(c.old), name: repr(c.new)} for c in differing},
            }
        chosen = recipe(name)
        answer = to_json(chosen) | {"params": num_params(chosen.model)}
        print(json.dumps(answer, indent=1))
        return answer

    return tyro.cli(options, args=argv, prog="fairway recipes")
