"""Tokens a second of decoding, one stream and many in step, for one run's model. By hand.

    python benchmarks/proof.py runs/pocket runs/pocket/data

Each line encodes the first tokens of the validation text, decodes them again, and refuses to print
a rate where other bytes came back.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch

from fairway.artifact.config_json import config_to_json
from fairway.artifact.loaded_model import load_model
from fairway.evaluate.config import EvaluateConfig
from fairway.evaluate.learners.sgd import Sgd
from fairway.proof.compress import CompressConfig, compress, decompress
from fairway.proof.prove import evaluation_of
from fairway.tokens.shards import DataFolder


def ways(own: EvaluateConfig) -> dict[str, EvaluateConfig]:
    """How the text is priced: the run's own way, and two plainer ones."""
    frozen = replace(own, ttt=None, mixture=None)
    sgd = Sgd(chunk_tokens=1024, epochs=3, lr=0.01, batch_sequences=4)
    return {"frozen": frozen, "SGD": replace(frozen, ttt=sgd), "the run's own": own}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--tokens", type=int, default=4096, help="of one stream; times 4 in step")
    parser.add_argument("--segments", type=int, default=32)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    loaded, data = load_model(args.run / "model.fwy"), DataFolder(args.data)
    for segments, num_tokens in ((1, args.tokens), (args.segments, 4 * args.tokens)):
        text = data.tokenizer.decode(data.val[:num_tokens].tolist())
        settings = CompressConfig(segments=segments, threads=args.threads)
        for name, config in ways(evaluation_of(loaded)).items():
            model = replace(loaded, evaluate=config_to_json(config))
            packed = compress(model, text, settings)
            begin = time.perf_counter()
            if decompress(model, packed) != text:
                raise SystemExit(f"{name}, {segments} segments: other bytes came back")
            seconds = time.perf_counter() - begin
            rate, bits = num_tokens / seconds, 8 * len(packed) / len(text)
            place = f"{name}, {segments} in step, {args.threads} threads"
            print(f"{place}: {rate:.0f} tokens/s, {bits:.3f} bits per byte", flush=True)


if __name__ == "__main__":
    main()
