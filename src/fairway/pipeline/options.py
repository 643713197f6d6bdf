"""How and where a run is made: settings only, no PyTorch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fairway.runtime.patience import PEER_SECONDS

Resume = Literal["no", "yes", "auto"]
Tracking = Literal["tensorboard", "wandb", "trackio"]


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
        compiled: train through torch.compile; None does so on GPUs, and on a CPU where what was
            measured there says that it saves more time than compiling takes
        compute_dtype: number type of training; None measures which is faster, once for a run
        resume: go on with the run in the folder; "auto" starts or goes on, whatever is there
        overwrite: move the files of another run, or of this one, to earlier/ in the folder first
        fit: where the evaluation does not fit its clock, score the first documents that do; result,
            report and certificate say so
        checkpoint_seconds: seconds between two checkpoints of training
        track: also tell this tool the numbers of the run, all of which train.log has; wandb and
            trackio may send them away, as they are set up
        peer_seconds: of silence after which another rank is lost, and this one ends
    """

    proof_tokens: int = 2000  # enough to convince, few enough to decode in a quarter of a minute
    proof_share: float = 0.2
    audit_seconds: float = 30.0
    device: str | None = None
    threads: int | None = None
    compiled: bool | None = None
    compute_dtype: Literal["float32", "bfloat16"] | None = None
    resume: Resume = "no"
    overwrite: bool = False
    fit: bool = False
    checkpoint_seconds: float = 60.0
    track: Tracking | None = None
    peer_seconds: float = PEER_SECONDS


@dataclass(frozen=True, kw_only=True)
class SlurmOptions:
    """Where the jobs run.

    Attributes:
        cluster: slurm, or local: as processes of this machine; None: slurm where there is one
        minutes: that one job may take before it is started again
        cpus: cores of each job
        gpus: GPUs of each job, which torchrun shares among as many processes
        at_once: jobs that may run at the same time
        partition: of Slurm; None takes its default
        logs: folder for what the jobs print; a folder `jobs` beside the runs where it is None
    """

    cluster: Literal["slurm", "local"] | None = None
    minutes: int = 60
    cpus: int = 8
    gpus: int = 0
    at_once: int = 8
    partition: str | None = None
    logs: Path | None = None
