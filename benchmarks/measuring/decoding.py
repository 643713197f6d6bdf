"""Decode proofs here, and say of each what came of it: what `travel.py` runs on each machine.

    python benchmarks/measuring/decoding.py JOB.json

Needs nothing but what decoding needs, so that another PyTorch or an emulated processor will do.
"""

import hashlib
import importlib.util
import json
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "src"))

import numpy as np  # noqa: E402 (ours first)
import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from fairway.artifact.loaded_model import LoadedModel, load_model  # noqa: E402
from fairway.artifact.sections import Refused  # noqa: E402
from fairway.evaluate.chunks import ChunkPlan  # noqa: E402
from fairway.evaluate.frozen import Frozen  # noqa: E402
from fairway.evaluate.ledger import Ledger  # noqa: E402
from fairway.evaluate.settled import Settled  # noqa: E402
from fairway.model.gpt import GPT  # noqa: E402
from fairway.proof import verify as verifying  # noqa: E402
from fairway.proof.proof_file import ProofFile  # noqa: E402
from fairway.proof.reproducible import NotReproducible, circumstances  # noqa: E402
from fairway.runtime.native import untuned  # noqa: E402


def texts_sha256(documents: Sequence[bytes]) -> str:
    return hashlib.sha256(b"\0".join(documents)).hexdigest()


def of_tests(name: str) -> ModuleType:
    """A module that the tests use as well: the second forward pass, or noise."""
    file = ROOT / "tests" / name
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class PlainReader:
    """Reads with NumPy, the whole window anew for each token."""

    def __init__(self, model: GPT, plan: ChunkPlan) -> None:
        self.config, self.plan, self.forward = (
            model.config,
            plan,
            of_tests("model/plain_forward.py").forward,
        )
        state = model.shipped_state_dict()
        self.weights = {k: v.numpy().astype(np.float64) for k, v in state.items()}
        self.read = torch.zeros(0, 0, dtype=torch.long)
        self.positions = 0
        self.logits: Tensor | None = None

    def start(self, windows: Sequence[int], histories: Tensor) -> None:
        self.positions = max(self.plan.windows[i].num_inputs for i in windows)
        self.read = histories[:, :0]
        self.push(histories)

    def log_probs(self) -> Tensor:
        assert self.logits is not None
        return self.logits.log_softmax(-1)

    def push(self, tokens: Tensor) -> None:
        self.read = torch.cat((self.read, tokens.view(len(tokens), -1)), dim=1)
        rows = [
            self.forward(self.config, self.weights, row.numpy(), self.positions)[-1]
            for row in self.read[:, : self.positions]
        ]
        self.logits = torch.from_numpy(np.stack(rows))


class PlainFrozen(Frozen):
    """A frozen model that NumPy reads."""

    def reader(self, plan: ChunkPlan) -> PlainReader:
        return PlainReader(self.model, plan)


def in_numpy(loaded: LoadedModel, proof: ProofFile) -> Callable[[], Settled]:
    """As `verify.predictors`, for frozen proofs."""
    assert proof.settled is not None
    ledger = Ledger(proof.settled, proof.ties)
    return lambda: Settled(PlainFrozen(loaded.model), ledger)


def noisy(times: float, where: Sequence[str]) -> ExitStack:
    """Logits, gradients or weights off by up to so many margins."""
    shaken, entered = of_tests("proof/noise.py").shaken, ExitStack()
    for one in where:
        entered.enter_context(shaken(times, one))
    return entered


def bits_of_floats(device: str) -> str:
    """A checksum of what float64 comes to here: where it is the same, little has travelled."""
    drawn = torch.from_numpy(np.random.default_rng(0).standard_normal((300, 300))).to(device)
    product = drawn @ drawn
    found = torch.stack((product, product.softmax(-1), product.tanh(), product.cumsum(-1)))
    return f"{zlib.crc32(found.cpu().numpy().tobytes()):08x}"


def decoded(path: Path, loaded: LoadedModel, job: dict, expected: str) -> dict[str, object]:
    """What came of one proof: the same text, a refusal, another text, or a failure."""
    begin = time.perf_counter()
    try:
        found = verifying.verify(path, loaded, threads=job["threads"], rows=job["rows"])
    except (NotReproducible, Refused) as error:
        return {"came": "refused", "note": str(error)[:300]}
    except Exception as error:  # a machine may lack anything
        return {"came": "failed", "note": f"{type(error).__name__}: {error}"[:300]}
    same = texts_sha256(found.documents) == expected
    seconds = time.perf_counter() - begin
    return {"came": "same" if same else "wrong", "tokens": found.num_tokens, "seconds": seconds}


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    loaded = load_model(Path(job["model"]))
    loaded.model.to(job["device"])
    if job["numpy"]:
        verifying.predictors = in_numpy
    with nullcontext() if job["tuned"] else untuned(), noisy(**job["noise"]):
        for proof in job["proofs"]:
            found = decoded(Path(proof["path"]), loaded, job, proof["expected"])
            print(json.dumps({"proof": proof["name"], **found}), flush=True)
        here = circumstances() | {"bits": bits_of_floats(job["device"])}
    print(json.dumps({"circumstances": here}), flush=True)


if __name__ == "__main__":
    main()
