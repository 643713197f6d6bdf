"""A million mutated inputs to everything that parses bytes, in one process and without files.

    python benchmarks/faults/parsers.py [--inputs 1000000] [--seed 0]

Each parser gets a share, the quick ones most. An input is a true one with bytes changed, cut out,
put in or moved, pieces of another spliced in, or its JSON changed and, where there is a seal or
checksum, sealed anew, so that what lies behind it is reached. A parser may return something or
raise ValueError or OSError in one line; anything else is a crash. Whatever takes longer than five
seconds of the processor's time, or asks for more than a gigabyte, counts as one too. Prints a row
for each parser; exit status 1 where there was a crash.
"""

import argparse
import base64
import contextlib
import dataclasses
import io
import json
import random
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from foreign import SAVED, line_of, npy_bytes, torch_bytes
from fuzz import _bytes, _framed, _json, _pieces
from rich.console import Console
from rich.table import Table
from run_files import RECIPE, _result
from samples import CONFIG, EVALUATE, TEXT, make_samples, model_bytes

from fairway.artifact.config_json import config_from_json, config_to_json
from fairway.artifact.container import unpack
from fairway.artifact.sections import unpack_frame
from fairway.audit.byte_table_file import read_byte_table
from fairway.audit.findings import AuditReport
from fairway.audit.token_file import read_token_file
from fairway.audit.vocabulary import ALPHABET, open_vocabulary
from fairway.coding.codecs import CODECS, codec
from fairway.evaluate.config import EvaluateConfig
from fairway.interop.plain_tensors import load_plain
from fairway.model.model_config import ModelConfig
from fairway.prepare.sources import _json_lines
from fairway.proof.certificate import Certificate
from fairway.proof.decoder_limits import check_evaluation
from fairway.proof.proof_file import ProofFile
from fairway.recipes.recipe import Recipe
from fairway.report.run_folder import read_curve
from fairway.result import RunResult
from fairway.runtime.identity import sealed, unsealed
from fairway.runtime.strict_json import json_object, parse_json
from fairway.serve.config import ServeConfig
from fairway.serve.errors import ApiError
from fairway.serve.request import parse_json_body, parse_request
from fairway.tokens.shards import open_shard
from fairway.tokens.tokenizer import load_tokenizer

SECONDS, MEMORY, LONGEST = 5.0, 3 << 29, 1000
Change = Callable[[bytes, random.Random], bytes]
ASKED = {
    "model": "m", "prompt": ["a", [5, 6]], "max_tokens": 3, "temperature": 0.5, "top_p": 0.9,
    "n": 2, "stop": ["x"], "seed": 1, "logprobs": 2, "echo": True, "stream": True,
    "stream_options": {"include_usage": True}, "repetition_penalty": 1.5, "min_p": 0.1, "top_k": 5,
}  # fmt: skip


class Parser(NamedTuple):
    """weight  of its share of all inputs"""

    name: str
    weight: float
    seeds: list[bytes]
    change: Change
    read: Callable[[bytes], object]


def json_change(data: bytes, chance: random.Random) -> bytes:
    """As text half of the time, else as a value, sealed anew where it was sealed."""
    if chance.random() < 0.5:
        return _bytes(data, chance)
    value = _json(json.loads(data), chance)
    if isinstance(value, dict) and "sha256" in value and chance.random() < 0.8:
        with contextlib.suppress(TypeError, ValueError):
            value = sealed(value)
    return json.dumps(value).encode("utf-8", "surrogatepass")


def parsers(folder: Path) -> list[Parser]:
    samples = make_samples(folder)
    small = {kind: sample.data for kind, sample in samples.items()}
    place = folder / "place"
    result = json.dumps(sealed(_result().to_json())).encode()
    recipe_ = json.dumps(sealed(config_to_json(RECIPE))).encode()
    model, evaluate = (json.dumps(config_to_json(c)).encode() for c in (CONFIG, EVALUATE))
    log = b"".join(
        json.dumps({"event": "update", "stage": "train", "step": i, "train_loss": 2.5}).encode()
        + b"\n"
        for i in range(4)
    )
    lines = [line_of(text) for text in ("caf\u00e9 \u2581", "a" * 40)]

    def unpacked(data: bytes) -> None:
        for name in CODECS:
            try:
                codec(name).decompress(data, 1 << 20)
            except ValueError:
                continue

    def evaluation(data: bytes) -> None:
        found = config_from_json(EvaluateConfig, json_object(parse_json(data), "it"))
        check_evaluation(found)

    def report(data: bytes) -> object:
        return AuditReport.from_json(json_object(parse_json(data), "audit"))

    packed = [codec(name).compress(TEXT) for name in ("brotli", "lzma", "zstd", "zlib")]
    audit = b'{"verdict": "legal", "probes": {"order": {"ok": true, "summary": "a", "findings": '
    audit += b'[], "not_covered": []}}, "notes": [], "scorer": "x", "command": "y", "calls": 3}'
    certificate = json.dumps(certificate_like()).encode()
    return [
        Parser("JSON", 10, [result, recipe_, model], json_change, parse_json),
        Parser("sealed JSON", 8, [result, recipe_], json_change, unsealed),
        Parser("JSON lines", 20, lines, json_change, texts),
        Parser("JSON lines, several", 10, [b"".join(lines)], _bytes, texts),
        Parser("frame", 10, [small["proof"], small["compressed"]], _bytes, frame),
        Parser("frame, true sums", 2, [small["proof"], small["compressed"]], _framed, frame),
        Parser("proof", 2, [small["proof"]], _framed, ProofFile.from_bytes),
        Parser("model, less weights", 1, [model_bytes()], _framed, unpack),
        Parser("packed bytes", 6, packed, _bytes, unpacked),
        Parser(".npy", 8, [npy_bytes(np.arange(9))], _bytes, through_file(place, read_token_file)),
        Parser(
            "shard", 8, [small["shard"]], _bytes, through_file(place, lambda p: open_shard(p, 290))
        ),
        Parser("training log", 5, [log], _bytes, through_file(place, read_curve)),
        Parser(".pt", 2, [torch_bytes(SAVED)], _bytes, lambda data: load_plain(data, "the file")),
        Parser("our tokenizer", 1, [small["our tokenizer"]], _pieces, load_tokenizer),
        Parser("our tokenizer, bytes", 3, [small["our tokenizer"]], _bytes, load_tokenizer),
        Parser("model config", 2, [model], json_change, config_of(ModelConfig)),
        Parser("evaluation", 2, [evaluate], json_change, evaluation),
        Parser("recipe", 1, [recipe_], json_change, lambda d: recipe_of(d)),
        Parser("result", 1, [result], json_change, lambda d: RunResult.from_json(unsealed(d))),
        Parser("audit report", 3, [audit], json_change, report),
        Parser(
            "certificate", 5, [certificate], json_change, lambda d: Certificate.from_json(text(d))
        ),
        Parser("byte table", 3, [b"[1, 2, 0]", b'{"0": 3}'], json_change, table_of(place)),
        Parser("vocabulary", 1, [byte_level(), ranks()], vocabulary_change, opened(place)),
        Parser("request", 5, [json.dumps(ASKED).encode()], json_change, request),
    ]


def table_of(place: Path) -> Callable[[bytes], object]:
    return through_file(place, read_byte_table)


def opened(place: Path) -> Callable[[bytes], object]:
    return through_file(place, open_vocabulary)


def byte_level() -> bytes:
    """A small tokenizer.json."""
    part = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    named = {"id": 256, "content": "<s>", "single_word": False, "lstrip": False, "rstrip": False}
    named |= {"normalized": False, "special": True}
    model = {"type": "BPE", "vocab": ALPHABET, "merges": []}
    whole = {"version": "1.0", "added_tokens": [named], "pre_tokenizer": part, "decoder": part}
    return json.dumps(whole | {"model": model}).encode()


def ranks() -> bytes:
    """A small .tiktoken file."""
    return b"".join(base64.b64encode(bytes([n])) + b" %d\n" % n for n in range(256))


def vocabulary_change(data: bytes, chance: random.Random) -> bytes:
    return json_change(data, chance) if data[:1] == b"{" else _bytes(data, chance)


def request(data: bytes) -> object:
    try:
        return parse_request(parse_json_body(data), ServeConfig(), 260)
    except ApiError as error:
        raise ValueError(bytes(error.response().body).decode()) from error


def through_file(place: Path, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    def from_bytes(data: bytes) -> object:
        place.write_bytes(data)
        return read(place)

    return from_bytes


def texts(data: bytes) -> object:
    return list(_json_lines(io.BytesIO(data), Path("text.jsonl"), "text"))


def certificate_like() -> dict[str, object]:
    """A certificate's fields, each with a value of its type."""
    values = {"int": 5, "float": 1.5, "str": "ab", "bool": True}
    return {f.name: values.get(str(f.type), {}) for f in dataclasses.fields(Certificate)}


def frame(data: bytes) -> object:
    found = unpack_frame(data[:4] if data[:4] in (b"FWP2", b"FWC2") else b"FWP2", data, "a file")
    return [found.read(name, 1 << 20) for name in found.sections]


def config_of(made: type) -> Callable[[bytes], object]:
    return lambda data: config_from_json(made, json_object(parse_json(data), "it"))


def recipe_of(data: bytes) -> object:
    return config_from_json(Recipe, unsealed(data))


def text(data: bytes) -> str:
    return data.decode("utf-8")


def spliced(data: bytes, seeds: list[bytes], chance: random.Random) -> bytes:
    other = chance.choice(seeds)
    start, stop = sorted(chance.randrange(len(other) + 1) for _ in range(2))
    place = chance.randrange(len(data) + 1)
    return data[:place] + other[start:stop] + data[place:]


def run(parser: Parser, number: int, chance: random.Random) -> tuple[int, int, float, list[str]]:
    """(read, refused, seconds of the slowest, crashes)."""
    read = refused = 0
    slowest, crashes = 0.0, []
    for _ in range(number):
        data = parser.change(chance.choice(parser.seeds), chance)
        if chance.random() < 0.1:
            data = spliced(data, parser.seeds, chance)
        begin = time.process_time()
        try:
            parser.read(data)
            read += 1
        except (ValueError, OSError) as error:
            refused += 1
            said = str(error)
            if not said.strip() or not said.isprintable() or len(said) > LONGEST:
                crashes.append(f"said {said[:200]!r} of {data[:100]!r}")
        except BaseException:
            crashes.append(f"{traceback.format_exc()[-400:]} of {data[:300]!r}")
        seconds = time.process_time() - begin
        slowest = max(slowest, seconds)
        if seconds > SECONDS:
            crashes.append(f"{seconds:.1f} s for {data[:300]!r}")
    return read, refused, slowest, crashes


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--inputs", type=int, default=1_000_000)
    arguments.add_argument("--seed", type=int, default=0)
    args = arguments.parse_args()
    table, tried, failed = (
        Table("parser", "inputs", "read", "refused", "slowest s", "crashes"),
        0,
        0,
    )
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        chosen = parsers(Path(name))
        resource.setrlimit(resource.RLIMIT_AS, (used() + MEMORY, used() + MEMORY))
        whole = sum(parser.weight for parser in chosen)
        for parser in chosen:
            number = round(args.inputs * parser.weight / whole) + 1
            chance = random.Random(f"{args.seed} {parser.name}")
            read, refused, slowest, crashes = run(parser, number, chance)
            tried, failed = tried + number, failed + len(crashes)
            row = (parser.name, f"{number:,}", f"{read:,}", f"{refused:,}", f"{slowest:.2f}")
            table.add_row(*row, str(len(crashes)))
            print(json.dumps(row), len(crashes), flush=True)
            for crash in crashes[:5]:
                print(f"    {crash}", file=sys.stderr, flush=True)
    table.title = f"{tried:,} inputs, {failed:,} crashes"
    Console().print(table)
    return 1 if failed else 0


def used() -> int:
    """Bytes of address space."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    sys.exit(main())
