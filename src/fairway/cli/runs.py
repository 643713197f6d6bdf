"""Commands that train: a whole run, several seeds of one, its demo, or its first stage."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import DisallowNone, Positional, arg

from fairway.cli.answer import Answer, No, print_text, read_env, with_settings
from fairway.cli.signatures import Seldom, SettledBy
from fairway.cli.words import Counts, Files, RecipeName, Settings
from fairway.pipeline.options import RunOptions, SlurmOptions

if TYPE_CHECKING:
    from fairway.recipes.recipe import Recipe
    from fairway.result import RunResult


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What is made of a recipe before anything else is said about it.

    Attributes:
        set: a field of the recipe as JSON, for what no single value can say, such as
            evaluate.ttt=null; it has the last word
        env: the variables of a published script, as a JSON object
        as_published: set what is otherwise here on purpose as the published script has it
    """

    set: Settings = ()
    env: Files = ()
    as_published: bool = False


def changed_recipe(asked: Mapping[str, Any], further: Sequence[str]) -> "Recipe":
    """The recipe after --as-published, --env, --set and --train.steps, applied in this order.

    What they make of it are the defaults of its options. Without a name it is the demo's.
    """
    from fairway.recipes.diff import override
    from fairway.recipes.registry import recipe

    name, changes = asked.get("recipe"), asked["changes"]
    chosen = recipe("pocket" if name is None else name)
    if changes.as_published:
        from fairway.recipes.as_published import as_published

        chosen = as_published(chosen)
    for file in changes.env:
        from fairway.interop.settings import ignored_by, training_settings

        env = read_env(file)
        chosen = override(chosen, training_settings(chosen, env))
        if ignored := ignored_by(chosen, env):
            print(f"note: {ignored}", file=sys.stderr)
    chosen = with_settings(chosen, changes.set)
    if any(word.partition("=")[0] == "--train.steps" for word in further):  # they replace the clock
        train = replace(chosen.train, seconds=None, steps=1, reserve_seconds=0.0)
        chosen = replace(chosen, train=train, quant=replace(chosen.quant, reserve_seconds=0.0))
    return chosen


Data = Annotated[
    Path,
    Positional,
    arg(
        metavar="DATA",
        help="the data folder, which `fairway prepare` or `fairway fetch` makes",
    ),
]
Fields = Annotated[Any, SettledBy(changed_recipe), arg(name="")]
RunFolder = Annotated[
    Path | None,
    arg(metavar="FOLDER", help="the run folder to write; otherwise runs/ and the recipe's name"),
]
FOR_EXPERTS = (
    "proof_share", "compiled", "compute_dtype", "checkpoint_seconds", "peer_seconds"
)  # fmt: skip
How = Annotated[RunOptions, DisallowNone, arg(name=""), Seldom(FOR_EXPERTS)]
SeldomHow = Annotated[RunOptions, DisallowNone, arg(name=""), Seldom()]
Changed = Annotated[Changes, arg(name="")]
Jobs = Annotated[SlurmOptions, DisallowNone, arg(name=""), Seldom()]
Database = Annotated[
    Path | None,
    arg(
        metavar="FILE",
        help="record the run in this database, which `fairway runs` lists; otherwise in that of "
        "the variable FAIRWAY_RUNS, if it is set",
    ),
    Seldom(),
]
AS_USUAL, UNCHANGED, HERE = RunOptions(), Changes(), SlurmOptions()


def run(
    recipe: RecipeName,
    data: Data,
    fields: Fields,
    out: RunFolder = None,
    how: How = AS_USUAL,
    changes: Changed = UNCHANGED,
    runs: Database = None,
) -> Answer:
    """train, average, quantize, pack, score, prove, audit, report: RECIPE DATA --out RUN

    Every field of the recipe is an option too, such as --train.seconds 600; --help-all lists them.
    """
    from fairway.pipeline.story import run as run_recipe

    folder = out or usual_folder(fields)
    return _shown_result(run_recipe(fields, data, folder, how, runs=database(runs)), folder)


def seeds(
    recipe: RecipeName,
    data: Data,
    fields: Fields,
    seeds: Counts,
    out: Annotated[Path, arg(metavar="FOLDER")],
    how: SeldomHow = AS_USUAL,
    changes: Changed = UNCHANGED,
    slurm: bool = False,
    jobs: Jobs = HERE,
    runs: Annotated[Path | None, arg(metavar="FILE"), Seldom()] = None,
) -> Answer:
    """run, go on with and summarize several seeds: RECIPE DATA --seeds 0 42 1234 --out DIR

    Each seed has a run folder, DIR/seed-N; what is finished is not run again, and what was killed
    is gone on with. Every option of `fairway run` is one here, too; --help-all lists them.

    Args:
        seeds: seeds to run
        out: the folder of the run folders
        slurm: run them as an array of Slurm jobs, through submitit, and wait for them
        runs: database in which they are recorded; otherwise that of the variable FAIRWAY_RUNS, or
            runs.sqlite in the folder
    """
    from fairway.pipeline.seeds import run_seeds, submit_seeds
    from fairway.report.compare import group_grid
    from fairway.report.table import as_plain
    from fairway.runtime.distributed import Ranks

    if slurm:
        found = submit_seeds(
            fields, data, out, seeds, how, jobs, runs=database(runs), progress=print_text
        )
    else:
        found = run_seeds(fields, data, out, seeds, how, runs=database(runs))
    if not Ranks.from_env().is_main:
        return {}
    print(as_plain(group_grid(found.groups)), file=sys.stderr)
    for words in found.sentences():
        print(words, file=sys.stderr)
    answer = found.to_json()
    if not found.holds:
        raise No(answer)
    return answer


def train(
    recipe: RecipeName,
    data: Data,
    fields: Fields,
    out: RunFolder = None,
    how: How = AS_USUAL,
    changes: Changed = UNCHANGED,
) -> Answer:
    """the first stage of `run` alone: RECIPE DATA --out RUN; `pack` goes on from it

    Every field of the recipe is an option too, such as --train.seconds 600; --help-all lists them.
    """
    from fairway.model.blank import num_params
    from fairway.pipeline.story import train as train_recipe
    from fairway.runtime.distributed import Ranks
    from fairway.train.checkpoints import CHECKPOINT

    folder = out or usual_folder(fields)
    facts = asdict(train_recipe(fields, data, folder, how))
    if not Ranks.from_env().is_main:
        return {}
    return facts | {"params": num_params(fields.model), "checkpoint": str(folder / CHECKPOINT)}


def demo(
    fields: Fields,
    out: RunFolder = None,
    how: How = AS_USUAL,
    changes: Changed = UNCHANGED,
    runs: Database = None,
) -> Answer:
    """the whole pipeline on the built-in text, a few minutes on two CPU cores

    The recipe is `pocket`, and every field of it is an option too; --help-all lists them.
    """
    from fairway.demo import prepare_builtin
    from fairway.pipeline.story import run as run_recipe

    folder = out or usual_folder(fields)
    if how.resume == "no":
        how = replace(how, overwrite=True)

    def prepare(data: Path) -> None:
        prepare_builtin(data, fields.model.vocab_size)

    found = run_recipe(fields, folder / "data", folder, how, prepare=prepare, runs=database(runs))
    return _shown_result(found, folder)


def usual_folder(recipe: "Recipe") -> Path:
    return Path("runs") / recipe.name


def database(named: Path | None) -> Path | None:
    """The database of runs that was named, or that the environment names."""
    from fairway.runs.database import ENVIRONMENT

    given = os.environ.get(ENVIRONMENT)
    return Path(given) if named is None and given else named


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
