"""Odd inputs compressed and decompressed: the same bytes must come back.

    python benchmarks/faults/odd_texts.py [--inputs 500] [--seed 0]

Empty, one byte, one letter repeated, every byte, NULs, text that is no UTF-8, one long line,
Unicode of every kind, what is compressed already, our own files, and random mixtures of these,
with a model that learns on the way and one that does not, in one segment and in several. Prints a
JSON line for each that does not come back, and the sums; exit status 1 where one did not.
"""

import argparse
import gzip
import json
import lzma
import random
import sys
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from samples import CONFIG, TEXT, model_bytes

from fairway.artifact.loaded_model import LoadedModel, load_model
from fairway.proof.compress import CompressConfig, compress_file, decompress_file
from fairway.tokens.tokenizer import train_bpe

LONGEST = 120  # bytes of an input, most of the time


def named() -> dict[str, bytes]:
    """One of each kind."""
    letters = "".join(chr(c) for c in (*range(0x300, 0x330), 0xFEFF, 0x2028, 0x202E, 0x10FFFF))
    return {
        "empty": b"",
        "a line break": b"\n",
        "one letter": b"a" * 700,
        "one NUL": b"\0",
        "NULs": bytes(300),
        "every byte": bytes(range(256)),
        "every byte, backwards": bytes(reversed(range(256))),
        "0xff": b"\xff" * 100,
        "no UTF-8": b"caf\xe9 \xc3\x28 \xf0\x28\x8c\x28 \xed\xa0\x80",
        "half a character": "\u2581\u20ac".encode()[:-1],
        "UTF-16": "text".encode("utf-16"),
        "a mark of byte order": b"\xef\xbb\xbf" + TEXT[:40],
        "marks upon marks": letters.encode(),
        "not composed": "e\u0301 \ufb01 \u2460 \u1112\u1161\u11ab".encode(),
        "faces": "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea".encode(),
        "right to left": "\u05e9\u05dc\u05d5\u05dd \u202eabc\u202c".encode(),
        "spaces": " \t\u00a0\u3000\u200b  ".encode() * 9,
        "\u2581": "\u2581 \u2581\u2581 ".encode() * 9,
        "line breaks": b"\r\n\n\r\r\n\x0b\x0c\xc2\x85" * 9,
        "a long line": TEXT * 3,
        "pieces by name": b"<s></s><unk><0x41><pad>\xe2\x96\x81",
        "gzip": gzip.compress(TEXT, mtime=0),
        "xz": lzma.compress(TEXT),
        "digits": b"".join(b"%d" % i for i in range(200)),
        "escapes": b"\x1b[31mred\x1b[0m\x07\x08\x7f",
        "JSON": json.dumps({"text": "a\ud800"}).encode() * 3,
    }


def inputs(number: int, chance: random.Random) -> Iterator[tuple[str, bytes]]:
    kinds = named()
    yield from list(kinds.items())[:number]
    for byte in range(min(256, number - len(kinds)) // 2):
        yield f"byte {2 * byte + 1}", bytes([2 * byte + 1])
    for i in range(max(0, number - len(kinds) - min(256, number - len(kinds)) // 2)):
        chosen = chance.choices(list(kinds), k=chance.randint(1, 4))
        parts = []
        for name in chosen:
            data = kinds[name]
            start = chance.randrange(len(data) + 1)
            parts.append(data[start : start + chance.randrange(1, 80)])
        if chance.random() < 0.3:
            parts.insert(chance.randrange(len(parts) + 1), chance.randbytes(chance.randrange(60)))
        yield f"mixture {i}: {', '.join(chosen)}", b"".join(parts)[:LONGEST]


def models(folder: Path) -> list[LoadedModel]:
    """One whose tokenizer knows bytes only, and one with pieces."""
    (folder / "bytes.fwy").write_bytes(model_bytes())
    pieces = train_bpe([TEXT * 4], 290).to_bytes()
    (folder / "pieces.fwy").write_bytes(model_bytes(replace(CONFIG, vocab_size=290), pieces))
    return [load_model(folder / name) for name in ("bytes.fwy", "pieces.fwy")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    chance = random.Random(args.seed)
    tried = failed = before = after = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chosen = models(folder)
        source, packed, back = (folder / part for part in ("source", "packed", "back"))
        for kind, data in inputs(args.inputs, chance):
            config = CompressConfig(
                segments=chance.choice((1, 1, 2, 5)), adapt=tried % 4 == 0, guard=False
            )
            model = chosen[tried % len(chosen)]
            source.write_bytes(data)
            try:
                after += compress_file(model, source, packed, config)
                decompress_file(model, packed, back)
                wrong = None if back.read_bytes() == data else "other bytes came back"
            except Exception:
                wrong = traceback.format_exc()[-400:]
            tried, before = tried + 1, before + len(data)
            if wrong is not None:
                failed += 1
                print(json.dumps({"input": kind, "bytes": len(data), "wrong": wrong}), flush=True)
    print(f"{tried} inputs of {before:,} bytes came to {after:,}, {failed} did not come back")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
