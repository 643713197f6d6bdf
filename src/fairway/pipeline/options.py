"""How and where a run is made: settings only, no PyTorch."""

from dataclasses import dataclass
from typing import Literal

from fairway.runtime.patience import PEER_SECONDS

Resume = Literal["no", "yes", "auto"]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How and where a run is made; what it makes is the recipe's business.

    Attributes:
        proof_tokens: tokens of the validation text to encode and decode again; 0 proves nothing.
            In settled arithmetic all are encoded, and decoded as far as `proof_share` allows
        proof_share: of the seconds for evaluation, which decoding may take in settled arithmetic,
            where scoring left so many
        audit_seconds: seconds that auditing the result may take; 0 leaves it out
        device: cpu, cuda, or cuda:N for GPU number N; None takes a GPU where there is one
        threads: threads of the CPU; None takes all cores
        compiled: train through torch.compile; None does so on GPUs only
        compute_dtype: number type of training; None measures which is faster, once for a run
        resume: go on with the run in the folder; "auto" starts or goes on, whatever is there
        overwrite: move the files of another run, or of this one, to earlier/ in the folder first
        checkpoint_seconds: seconds between two checkpoints of training
        peer_seconds: of silence after which another rank is lost, and this one ends
    """

    proof_tokens: int = 2000  # enough to convince, few enough to decode in a quarter of a minute
    proof_share: float = 0.25
    audit_seconds: float = 30.0
    device: str | None = None
    threads: int | None = None
    compiled: bool | None = None
    compute_dtype: Literal["float32", "bfloat16"] | None = None
    resume: Resume = "no"
    overwrite: bool = False
    checkpoint_seconds: float = 60.0
    peer_seconds: float = PEER_SECONDS
