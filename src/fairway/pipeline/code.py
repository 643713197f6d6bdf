"""The script of a run, kept in its folder: its bytes are the code that counts against the cap."""

from fairway.evaluate.config import EvaluateConfig
from fairway.pipeline.folder import RunFolder
from fairway.pipeline.packing import header_of
from fairway.recipes.recipe import Recipe
from fairway.runtime.files import atomic_write
from fairway.runtime.setup import Runtime
from fairway.runtime.sharing import share
from fairway.submission.script import SCRIPT, make_script
from fairway.submission.settled import Settled
from fairway.tokens.tokenizer import Tokenizer


def script_of(
    folder: RunFolder,
    recipe: Recipe,
    evaluate: EvaluateConfig,
    tokenizer: Tokenizer,
    runtime: Runtime,
) -> bytes:
    """As the folder has it, or made now; on all ranks. `keep_script` writes it down.

    A recipe with plug-ins has none, for no script can import them: the log says so, and no bytes
    are counted.
    """

    def find() -> str:
        path = folder.path / SCRIPT
        if path.is_file() and not folder.is_new:
            return path.read_bytes().decode()
        try:
            return make_script(settled_by(recipe, evaluate, tokenizer, runtime)).decode()
        except ValueError as error:
            runtime.log.say(f"no script can be handed in, and no code is counted: {error}")
            return ""

    return str(share(runtime.ranks, find)).encode()


def keep_script(folder: RunFolder, script: bytes, runtime: Runtime) -> None:
    path = folder.path / SCRIPT
    if script and runtime.ranks.is_main and not path.is_file():
        atomic_write(path, script)


def settled_by(
    recipe: Recipe, evaluate: EvaluateConfig, tokenizer: Tokenizer, runtime: Runtime
) -> Settled:
    """What the run in `runtime` settled."""
    return Settled(
        recipe=recipe,
        evaluate=evaluate,
        header=header_of(recipe, evaluate),
        compute_dtype=str(runtime.compute_dtype).removeprefix("torch."),
        compiled=runtime.compiled,
        device="cuda" if runtime.device.type == "cuda" else "cpu",
        tokenizer=tokenizer.kind,
        transform=tokenizer.transform,
    )
