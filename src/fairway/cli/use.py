"""Commands that use a model: as a compressor, as a writer, as something to tune."""

import os
import sys
from dataclasses import replace
from typing import Annotated, Literal

from tyro.conf import DisallowNone, arg

from fairway.cli.answer import (
    Answer,
    No,
    open_decoder,
    open_model,
    print_text,
    require_places,
    shown,
    with_settings,
)
from fairway.cli.words import Count, Data, InFile, MaybeCount, MaybeFile, Model, Out, Settings
from fairway.generate.config import GenerateConfig
from fairway.runtime.extras import extra
from fairway.tune.config import TuneConfig

SEARCH, WRITING = TuneConfig(), GenerateConfig(num_tokens=200, top_k=50)


def tune(
    model: Model,
    data: Data,
    config: Annotated[TuneConfig, DisallowNone, arg(name="")] = SEARCH,
    out: MaybeFile = None,
    set: Settings = (),
) -> Answer:
    """search test-time-training settings on training documents: MODEL DATA

    Validation text is never opened. What learns is the model's own choice, or what is set, as with
    `--set evaluate.mixture=null`.

    Args:
        model: the model file, or hf://OWNER/NAME
        data: the prepared text that it was trained on
        out: JSON file to write the answer to as well; its flags are for `fairway run` and
            `fairway score`
        set: an evaluation setting as JSON, changed before the search
    """
    from fairway.cli.scores import Present
    from fairway.proof.prove import evaluation_of
    from fairway.tokens.shards import DataFolder

    require_places(out)
    with extra("tune", "the search"):
        from fairway.tune import tune as search

    loaded, folder = open_model(model), DataFolder(data)
    present = with_settings(Present(evaluation_of(loaded)), set)
    found = search(loaded, folder, present.evaluate, config, print_text)
    if out is not None:
        found.write(out)
    print(f"{found.baseline:.5f} -> {found.best:.5f}, {found.trials} trials", file=sys.stderr)
    print(found.flags or "the present settings are the best that was found", file=sys.stderr)
    return found.to_json()


def compress(
    model: Model,
    file: InFile,
    out: Out,
    segments: MaybeCount = None,
    adapt: bool = True,
    threads: MaybeCount = None,
    arithmetic: Literal["native", "settled"] = "settled",
    guard: bool = True,
) -> Answer:
    """compress any file with a model: MODEL FILE OUT

    `fairway decompress` gives the same bytes back. What a model makes no smaller is stored.

    Args:
        model: the model file, or hf://OWNER/NAME
        file: what to compress
        out: the compressed file to write
        segments: number of parts coded side by side: more is faster, and a little larger; otherwise
            the size of the file decides
        adapt: learn while coding, as the model does when it is scored: slower, and smaller
        threads: threads of the CPU; otherwise the cores there are, up to four, and in native
            arithmetic one, for there the decoder has to use as many
        arithmetic: settled opens on any machine; native opens on the like of this one alone
        guard: compute the beginning otherwise as well, and write nothing where the two come so far
            apart that another machine might not open the file; the file says where this was left
            out
    """
    from fairway.proof.compress import CompressConfig, compress_file

    config = CompressConfig(
        segments=segments, adapt=adapt, threads=threads, arithmetic=arithmetic, guard=guard
    )
    require_places(out)
    loaded = open_decoder(model)
    with shown("compress") as progress:
        size = compress_file(loaded, file, out, config, progress)
    before = file.stat().st_size
    bits = 8 * size / before if before else None
    shown_bits = "" if bits is None else f", {bits:.3f} bits per byte"
    print(f"{before:,} to {size:,} bytes{shown_bits}", file=sys.stderr)
    return {"out": str(out), "bytes_before": before, "bytes": size, "bits_per_byte": bits}


def decompress(model: Model, file: InFile, out: Out) -> Answer:
    """bring back the file that `compress` was given: MODEL FILE OUT

    Writes the file as it was or, with the reason, nothing.

    Args:
        model: the model file it was compressed with
        file: the file that `fairway compress` wrote
        out: the file to write
    """
    from fairway.proof.compress import decompress_file
    from fairway.proof.reproducible import NotReproducible

    require_places(out)
    loaded = open_decoder(model)
    try:
        with shown("decompress") as progress:
            size = decompress_file(loaded, file, out, progress)
    except NotReproducible as error:
        print(f"no: {error}", file=sys.stderr)
        raise No({"equal": False, "problem": str(error)}) from error
    print(f"{size:,} bytes, with the hash they had", file=sys.stderr)
    return {"out": str(out), "bytes": size}


def generate(
    model: Model,
    prompt: Annotated[str, arg(metavar="TEXT")] = "",
    samples: Count = 1,
    config: Annotated[GenerateConfig, DisallowNone, arg(name="")] = WRITING,
) -> Answer:
    """write text in the manner of the training text: MODEL --prompt TEXT

    Prints the prompt and what the model adds to it, as it comes.

    Args:
        model: the model file, or hf://OWNER/NAME
        prompt: the text to continue
        samples: number of texts to write; each has the seed after the one before
    """
    from fairway.generate import generate as write

    if samples < 1:
        raise ValueError(f"--samples {samples}: there is nothing to write")
    loaded, texts = open_decoder(model), []
    begin = os.fsencode(prompt)  # whatever bytes were typed
    for number in range(samples):
        pieces = write(loaded, begin, replace(config, seed=config.seed + number))
        parts = [begin, next(pieces, b"")]  # what can fail has failed before it is shown
        _show(b"\n---\n" * bool(number) + b"".join(parts))
        for piece in pieces:
            _show(piece)
            parts.append(piece)
        texts.append(b"".join(parts).decode("utf-8", "replace"))
    _show(b"\n")
    return {"text": texts[0], "texts": texts}


def _show(text: bytes) -> None:
    """Now, and not when a buffer is full."""
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()
