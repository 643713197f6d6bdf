"""Commands that use a model: as a compressor, as a writer, as something to tune."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from fairway.cli.answer import (
    Answer,
    No,
    open_model,
    print_text,
    shown,
    take_settings,
    two_paths,
)


def tune(argv: list[str]) -> Answer:
    """search test-time-training settings on training documents: MODEL DATA"""
    import tyro

    from fairway.evaluate.config import EvaluateConfig
    from fairway.proof.prove import evaluation_of
    from fairway.tokens.shards import DataFolder
    from fairway.tune import TuneConfig
    from fairway.tune import tune as search

    @dataclass(frozen=True)
    class Present:
        """So that --set names evaluation settings as it does for `fairway run`."""

        evaluate: EvaluateConfig

    usage = "usage: fairway tune MODEL DATA [--seconds S] [--set PATH=JSON] [--out FILE.json]"
    model, folder, rest = two_paths(argv, usage, "fairway tune MODEL DATA")
    loaded, data = open_model(model), DataFolder(folder)
    present, rest = take_settings(Present(evaluation_of(loaded)), rest)

    def options(config: tyro.conf.OmitArgPrefixes[TuneConfig], out: Path | None = None) -> Answer:
        """Validation text is never opened. What learns is the model's own choice, or set with
        --set, as in --set evaluate.mixture=null.

        Args:
            config: settings of the search
            out: JSON file to write the answer to as well; its flags are for `fairway run` and
                `fairway score`; None writes none
        """
        found = search(loaded, data, present.evaluate, config, print_text)
        if out is not None:
            found.write(out)
        print(f"{found.baseline:.5f} -> {found.best:.5f}, {found.trials} trials", file=sys.stderr)
        print(found.flags or "the present settings are the best that was found", file=sys.stderr)
        return found.to_json()

    return tyro.cli(options, args=rest, prog="fairway tune MODEL DATA")


def compress(argv: list[str]) -> Answer:
    """compress any file with a model: MODEL FILE OUT"""
    import tyro

    from fairway.evaluate.config import Arithmetic
    from fairway.proof.compress import CompressConfig, compress_file

    def options(
        model: tyro.conf.Positional[Path],
        file: tyro.conf.Positional[Path],
        out: tyro.conf.Positional[Path],
        /,
        segments: int | None = None,
        adapt: bool = True,
        threads: int | None = None,
        arithmetic: Arithmetic = "settled",
    ) -> Answer:
        """`fairway decompress` gives the same bytes back.

        Args:
            model: the model file
            file: what to compress
            out: the compressed file to write
            segments: number of parts coded side by side: more is faster, and a little larger; None
                chooses by the size of the file
            adapt: learn while coding, as the model does when it is scored: slower, and smaller
            threads: threads of the CPU; None takes the cores there are, up to four, and in native
                arithmetic one, for there the decoder has to use as many
            arithmetic: settled opens on any machine; native opens on the like of this one alone
        """
        config = CompressConfig(
            segments=segments, adapt=adapt, threads=threads, arithmetic=arithmetic
        )
        loaded = open_model(model)
        with shown("compress") as progress:
            size = compress_file(loaded, file, out, config, progress)
        before = file.stat().st_size
        bits = 8 * size / max(before, 1)
        print(f"{before:,} to {size:,} bytes, {bits:.3f} bits per byte", file=sys.stderr)
        return {"out": str(out), "bytes_before": before, "bytes": size, "bits_per_byte": bits}

    return tyro.cli(options, args=argv, prog="fairway compress")


def decompress(argv: list[str]) -> Answer:
    """bring back the file that `compress` was given: MODEL IN OUT"""
    import tyro

    from fairway.proof.compress import decompress_file
    from fairway.proof.reproducible import NotReproducible

    def options(
        model: tyro.conf.Positional[Path],
        file: tyro.conf.Positional[Path],
        out: tyro.conf.Positional[Path],
        /,
    ) -> Answer:
        """Writes the file as it was or, with the reason, nothing.

        Args:
            model: the model file it was compressed with
            file: the file that `fairway compress` wrote
            out: the file to write
        """
        loaded = open_model(model)
        try:
            with shown("decompress") as progress:
                size = decompress_file(loaded, file, out, progress)
        except NotReproducible as error:
            print(f"no: {error}", file=sys.stderr)
            raise No({"equal": False, "problem": str(error)}) from error
        print(f"{size:,} bytes, with the hash they had", file=sys.stderr)
        return {"out": str(out), "bytes": size}

    return tyro.cli(options, args=argv, prog="fairway decompress")


def generate(argv: list[str]) -> Answer:
    """write text in the manner of the training text: MODEL --prompt TEXT"""
    import tyro

    from fairway.generate import GenerateConfig
    from fairway.generate import generate as write

    usual = GenerateConfig(num_tokens=200, top_k=50)

    def options(
        model: tyro.conf.Positional[Path],
        /,
        prompt: str = "",
        samples: int = 1,
        config: tyro.conf.OmitArgPrefixes[GenerateConfig] = usual,
    ) -> Answer:
        """Prints the prompt and what the model adds to it, as it comes.

        Args:
            model: the model file
            prompt: the text to continue
            samples: number of texts to write; each has the seed after the one before
            config: how much is written, and how each token is drawn
        """
        if samples < 1:
            raise ValueError(f"--samples {samples}: there is nothing to write")
        loaded, texts = open_model(model), []
        for number in range(samples):
            if number:
                _show(b"\n---\n")
            parts = [prompt.encode()]
            _show(parts[0])
            for part in write(loaded, parts[0], replace(config, seed=config.seed + number)):
                _show(part)
                parts.append(part)
            texts.append(b"".join(parts).decode("utf-8", "replace"))
        _show(b"\n")
        return {"text": texts[0], "texts": texts}

    return tyro.cli(options, args=argv, prog="fairway generate")


def _show(text: bytes) -> None:
    """Now, and not when a buffer is full."""
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()
