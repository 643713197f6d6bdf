"""Commands that make a model file: from a run, from a model, from what others published."""

import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from fairway.cli.answer import Answer, read_env, require_places
from fairway.cli.words import Data, File, InFile, MaybeCount, MaybeFile, MaybeName, Name


def pack(
    source: Annotated[Path, Positional, arg(metavar="RUN|MODEL")],
    data: Data,
    out: MaybeFile = None,
    recipe: MaybeName = None,
    cap_bytes: MaybeCount = None,
) -> Answer:
    """a trained run, or a model once more, to one file under a cap: RUN|MODEL DATA

    Rounds and codes the weights as precisely as the cap allows.

    Args:
        source: a run folder of `fairway train`, or a model file
        data: the prepared training text, which GPTQ reads
        out: the file to write; otherwise model.fwy in the run folder
        recipe: name of the recipe by whose rules to round; otherwise the run's own
        cap_bytes: largest size of the file in bytes; otherwise the recipe's
    """
    from fairway.pipeline.folder import owned
    from fairway.pipeline.packing import describe_artifact, pack_again
    from fairway.runtime.device import choose_device
    from fairway.runtime.distributed import Ranks
    from fairway.runtime.files import atomic_write
    from fairway.runtime.run_log import RunLog
    from fairway.runtime.setup import Runtime
    from fairway.tokens.shards import DataFolder

    if not source.exists():
        raise ValueError(f"no run folder or model at {source}; `fairway train` makes one")
    if out is None and not source.is_dir():
        raise ValueError(f"name the file to write: --out FILE ({source} stays as it is)")
    target = out or source / "model.fwy"
    require_places(target)
    whole = owned(source, Ranks()) if source.is_dir() else nullcontext()
    with RunLog() as log, whole:
        runtime = Runtime(choose_device(), log=log).measured()
        packed = pack_again(source, DataFolder(data), runtime, recipe, cap_bytes)
        atomic_write(target, packed)
    print(f"{len(packed):,} bytes in {target}", file=sys.stderr)
    return {"model": str(target), **asdict(describe_artifact(target, cap_bytes or len(packed), 0))}


def import_(
    file: InFile, lineage: Name, env: File, tokenizer: File, out: File = Path("model.fwy")
) -> Answer:
    """a published checkpoint or artifact as a model file: FILE --lineage NAME --env FILE.json

    Nothing is rounded on the way; `fairway pack` does that.

    Args:
        file: the published file: .pt, .safetensors or .ptz
        lineage: the recipe whose script made it: naive_baseline, sota254, pr414, pr1413, pr1493 or
            pr1855
        env: JSON file of the variables that the script was started with
        tokenizer: SentencePiece file that the model was trained with
        out: the model file to write
    """
    from fairway.interop.import_file import import_file

    require_places(out)
    answer = import_file(file, lineage, read_env(env), tokenizer, out)
    print(f"{answer['params']:,} parameters in {out}", file=sys.stderr)
    return answer
