"""Commands that bring text: your own, or what the field has published."""

from collections.abc import Callable
from typing import Literal

from fairway.cli.answer import Answer, shown
from fairway.cli.words import (
    Count,
    InFiles,
    MaybeCount,
    MaybeFile,
    MaybeFraction,
    Name,
    Out,
    PublishedName,
    Sources,
)


def prepare(
    out: Out,
    sources: InFiles,
    vocab_size: MaybeCount = None,
    tokenizer: MaybeFile = None,
    transform: Literal["caseops"] | None = None,
    val: Sources = (),
    val_fraction: MaybeFraction = None,
    field: Name = "text",
    seed: Count = 0,
    workers: MaybeCount = None,
    engine: Literal["own", "datatrove"] = "own",
    tasks: MaybeCount = None,
    overwrite: bool = False,
) -> Answer:
    """text, JSON lines or Parquet, packed or not, to shards and a tokenizer: OUT FILE...

    Turns raw text into a data folder; interrupted, the same command goes on.

    Args:
        out: the data folder to make
        sources: files or folders of training text
        vocab_size: pieces of the tokenizer to train; none where --tokenizer names one
        tokenizer: tokenizer file to use, a model file whose tokenizer to use, or `bytes` for the
            bytes themselves; otherwise one of --vocab-size pieces is trained
        transform: caseops writes capitals as operators before lowercase words (#1729), which
            decoding undoes, and the original bytes of each token beside the shards
        val: files or folders of validation text; none where --val-fraction holds some out
        val_fraction: share of the documents to hold out for validation, between 0 and 1; none where
            --val names some
        field: name under which JSON lines and Parquet hold a document
        seed: decides which documents are held out; the same seed holds out the same ones
        workers: processes that encode; otherwise one for each core
        engine: own reads one file after another; datatrove works on many at a time, and on many
            machines (examples/cluster/prepare_datatrove.py). The bytes are the same
        tasks: parts into which datatrove divides the work; otherwise one for each file
        overwrite: replace the data folder that is there, once the new one is whole; and begin anew
            what was interrupted with other arguments
    """
    from fairway import prepare as stage
    from fairway.runtime.stopping import listening

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
            return _datatrove()(
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


def _datatrove() -> Callable[..., Answer]:
    """The engine of that name; ValueError where it is not installed."""
    try:
        from fairway.prepare.datatrove_engine import prepare_with_datatrove
    except ImportError as error:
        raise ValueError(
            f"--engine datatrove needs `pip install 'fairway[datatrove]'` ({error})"
        ) from error
    return prepare_with_datatrove


def fetch(name: PublishedName, out: Out, train_shards: Count = 80) -> Answer:
    """the challenge's published shards from the Hugging Face hub: NAME OUT

    Fetches what is not there yet, and checks every file.

    Args:
        name: name of the published data set; a wrong one lists them all
        out: the data folder to fill
        train_shards: number of training shards to fetch, of about 200 MB each
    """
    from fairway.fetch.fetching import fetch as get

    with shown("fetch") as progress:
        return get(name, out, train_shards=train_shards, progress=progress)
