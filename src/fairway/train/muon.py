"""Muon: momentum whose singular values are all pushed towards one (K. Jordan, 2024; #launch).

Orthogonalization is by matrix products alone (Newton-Schulz), either with one triple of
coefficients (Jordan) or with one per iteration (Polar Express, Amsel et al. 2025; #1344, #1787).
MuonEq-R (#1217, #1285) first scales each row of the update to length one.

Not `torch.optim.Muon`: as of PyTorch 2.13 it has no row scaling and takes a single triple for all
iterations, always multiplies in bfloat16 (slower than float32 on many CPUs), walks through the
matrices one by one (its foreach form raises), and does not share the work among ranks. Which
parameters come here is decided in `param_groups.py`; schedules are in `schedule.py`. What another
optimizer must be able to do to stand in Muon's place comes first.
"""

# torch names its foreach functions as if they were private.
# pyright: reportPrivateImportUsage=false

import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import Field, dataclass
from typing import ClassVar, Literal, NamedTuple, Protocol, get_args

import torch
from torch import Tensor, nn

from fairway.runtime import kernels_matrices
from fairway.runtime.distributed import Pending, Ranks
from fairway.runtime.plugins import Pluggable

Triple = tuple[float, float, float]
Polynomial = Literal["jordan", "polar_express"]

COEFFICIENTS: dict[Polynomial, tuple[Triple, ...]] = {
    "jordan": ((3.4445, -4.7750, 2.0315),) * 5,
    "polar_express": (
        (8.156554524902461, -22.48329292557795, 15.878769915207462),
        (4.042929935166739, -2.808917465908714, 0.5000178451051316),
        (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
        (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
        (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
    ),
}

EPS = 1e-7  # below it a norm is that of a matrix without gradient, which must stay zero


class MatrixOptimizer(Protocol):
    """Steps matrices in place. Gradients, and what becomes of the weights, are alike on all ranks.

    set         rates of the next steps as shares of the config's, and its momentum replaced
    state_dict  all that the next step depends on, apart from what `set` gives; all ranks ask for it
    """

    @property
    def parameters(self) -> Mapping[str, nn.Parameter]: ...
    def set(
        self, *, lr_scale: float = 1.0, momentum: float | None = None, decay_scale: float = 1.0
    ) -> None: ...
    def step(self) -> None: ...
    def state_dict(self) -> dict[str, Tensor]: ...
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...


class DividedOptimizer(MatrixOptimizer, Protocol):
    """One whose ranks divide its work, which all of them know by its `owners`.

    owners  the rank that needs the gradient of a matrix, for each; on the others there is none
    step    beside: other work, to be done while results travel
    """

    @property
    def owners(self) -> Mapping[str, int]: ...
    def step(self, beside: Callable[[], None] | None = None) -> None: ...


class MatrixOptimizerConfig(Pluggable, ABC):
    """Base of the configs: frozen dataclasses, each a value for `OptimizerConfig.muon`.

    momentum  in full, to which a `MomentumWarmup` rises; 0 for an optimizer that has none
    """

    __dataclass_fields__: ClassVar[dict[str, Field[object]]]  # so that `replace` takes any of them
    momentum: float = 0.0

    @abstractmethod
    def build(
        self, matrices: Mapping[str, nn.Parameter], *, dtype: torch.dtype, ranks: Ranks
    ) -> MatrixOptimizer:
        """The optimizer of these matrices, all (R, C), by name.

        dtype  in which products of matrices are fast on this machine
        ranks  among which the work may be shared
        """


@dataclass(frozen=True, kw_only=True)
class MuonConfig(MatrixOptimizerConfig):
    lr: float = 0.022  # peak learning rate, which the schedule scales
    momentum: float = 0.99  # share of the momentum that each step keeps
    weight_decay: float = 0.095  # decoupled: each step shrinks the weights by lr * weight_decay
    row_normalize: bool = True  # scale each row of an update to length one (MuonEq-R)
    polynomial: Polynomial = "jordan"  # by which updates are orthogonalized

    def __post_init__(self) -> None:
        if self.lr < 0 or self.weight_decay < 0 or not 0 <= self.momentum < 1:
            raise ValueError(
                f"MuonConfig(lr={self.lr}, momentum={self.momentum}, weight_decay="
                f"{self.weight_decay}): lr and weight_decay must not be negative, and momentum "
                f"must lie in [0, 1)"
            )
        if self.polynomial not in get_args(Polynomial):
            raise ValueError(
                f"MuonConfig.polynomial={self.polynomial!r}; choose one of {sorted(COEFFICIENTS)}"
            )

    def build(
        self, matrices: Mapping[str, nn.Parameter], *, dtype: torch.dtype, ranks: Ranks
    ) -> "Muon":
        return Muon(matrices, self, dtype=dtype, ranks=ranks)


@torch.no_grad()
def orthogonalize(
    matrices: Tensor, coefficients: Sequence[Triple], dtype: torch.dtype = torch.bfloat16
) -> Tensor:
    """Push the singular values of each matrix towards one, keeping its singular vectors.

    matrices      (N, R, C), of any scale
    coefficients  (a, b, c) of each iteration X <- a X + (b A + c A A) X, where A = X X^T
    dtype         in which to multiply
    returns       (N, R, C) in `dtype`; a zero matrix stays zero
    """
    tall = matrices.size(-2) > matrices.size(-1)
    x = (matrices.mT if tall else matrices).to(dtype)  # the products A are then the smaller ones
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + EPS)
    if kernels_matrices.take(x):
        x = kernels_matrices.orthogonalize(x, coefficients)
        return x.mT if tall else x
    gram = x.new_empty(x.size(0), x.size(1), x.size(1))
    inner, spare = torch.empty_like(gram), torch.empty_like(x)
    for a, b, c in coefficients:
        torch.bmm(x, x.mT, out=gram)
        torch.baddbmm(gram, gram, gram, beta=b, alpha=c, out=inner)
        torch.baddbmm(x, inner, x, beta=a, out=spare)
        x, spare = spare, x
    return x.mT if tall else x


def gradients_of(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    """Those that are missing are made, of zeros."""
    found = []
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        found.append(parameter.grad)
    return found


def normalize_rows(matrices: Tensor) -> Tensor:
    """(..., R, C) with every row scaled to length one; rows of zeros stay zero (MuonEq-R)."""
    return matrices / matrices.norm(dim=-1, keepdim=True).clamp_min(EPS)


class _Batch(NamedTuple):
    """Matrices that are orthogonalized together: of one shape, or of its transpose.

    shares  names of those that each rank orthogonalizes
    wide    (R, C) with R <= C
    """

    shares: list[list[str]]
    wide: tuple[int, int]


class Muon:
    """Steps a set of matrices, those of one shape (or of its transpose) in one batch.

    matrices  by name; the names key the state
    dtype     of the orthogonalization; see `choose_compute_dtype`
    ranks     each orthogonalizes its share and gathers the others', so that all hold the same bits
    owners    the rank that needs a matrix's gradient, and keeps its momentum; no other does

    lr, momentum and weight_decay may be set between steps. A missing gradient counts as zero.
    """

    def __init__(
        self,
        matrices: Mapping[str, nn.Parameter],
        config: MuonConfig,
        *,
        dtype: torch.dtype = torch.bfloat16,
        ranks: Ranks | None = None,
    ) -> None:
        for name, matrix in matrices.items():
            if matrix.ndim != 2:
                raise ValueError(
                    f"Muon takes matrices, but {name!r} has shape {tuple(matrix.shape)}; put it "
                    f"into another group of OptimizerConfig.rules"
                )
        self.config, self.dtype, self.ranks = config, dtype, ranks or Ranks()
        self.parameters = dict(matrices)
        self.batches = _make_batches(self.parameters, self.ranks.world_size)
        self.owners = {
            name: rank
            for batch in self.batches
            for rank, share in enumerate(batch.shares)
            for name in share
        }
        self.buffers = {
            name: torch.zeros_like(matrix)
            for name, matrix in matrices.items()
            if self.owners[name] == self.ranks.rank
        }
        self.set()

    def set(
        self, *, lr_scale: float = 1.0, momentum: float | None = None, decay_scale: float = 1.0
    ) -> None:
        """Scale learning rate and decay from those of the config; None: its momentum."""
        self.lr = lr_scale * self.config.lr
        self.weight_decay = decay_scale * self.config.weight_decay
        self.momentum = self.config.momentum if momentum is None else momentum

    @torch.no_grad()
    def step(self, beside: Callable[[], None] | None = None) -> None:
        """beside  other work, done while the last of the ranks' shares travel"""
        buffers, weights = list(self.buffers.values()), list(self.parameters.values())
        if buffers:
            torch._foreach_mul_(buffers, self.momentum)
            torch._foreach_add_(
                buffers, gradients_of(self.parameters[name] for name in self.buffers)
            )
        if weights:
            torch._foreach_mul_(list[Tensor](weights), 1.0 - self.lr * self.weight_decay)
        gathered: list[tuple[_Batch, Pending]] = []
        for batch in self.batches:
            gathered.append((batch, self.ranks.start_gather(self._orthogonalized(batch))))
            if len(gathered) == 2:  # one travels while the next is worked on
                self._apply(*gathered.pop(0))
        if beside is not None:
            beside()
        for batch, updates in gathered:
            self._apply(batch, updates)

    def _orthogonalized(self, batch: _Batch) -> Tensor:
        """The updates (N, *batch.wide) of this rank's share, zeros for as many as it is short of.

        Every rank gathers shares of equal size, also when there are fewer matrices than ranks.
        """
        names = batch.shares[self.ranks.rank]
        device = self.parameters[batch.shares[0][0]].device
        longest = max(len(share) for share in batch.shares)
        mine = torch.zeros(longest, *batch.wide, dtype=self.dtype, device=device)
        if names:
            buffers = [self.buffers[name] for name in names]
            gradients = gradients_of(self.parameters[name] for name in names)
            updates = torch._foreach_add(gradients, buffers, alpha=self.momentum)
            for place, update in zip(mine, updates, strict=False):
                rows = normalize_rows(update) if self.config.row_normalize else update
                place.copy_(rows.mT if rows.size(0) > rows.size(1) else rows)
        return orthogonalize(mine, COEFFICIENTS[self.config.polynomial], self.dtype)

    def _apply(self, batch: _Batch, updates: Pending) -> None:
        for share, theirs in zip(batch.shares, updates.wait(), strict=True):
            for update, name in zip(theirs, share, strict=False):
                matrix = self.parameters[name]
                rows, columns = matrix.shape
                scale = math.sqrt(max(1.0, rows / columns))
                matrix.add_(update.mT if rows > columns else update, alpha=-self.lr * scale)

    def state_dict(self) -> dict[str, Tensor]:
        """The momentum of each matrix, by the matrix's name; every rank must ask."""
        if self.ranks.world_size == 1:
            return dict(self.buffers)
        empty = {name: torch.zeros_like(matrix) for name, matrix in self.parameters.items()}
        state = empty | {name: buffer.clone() for name, buffer in self.buffers.items()}
        self.ranks.sum_(list(state.values()))
        return state

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        if state.keys() != self.parameters.keys():
            odd = sorted(state.keys() ^ self.parameters.keys())
            raise ValueError(f"saved momentum and matrices differ in {', '.join(odd)}")
        for name, buffer in self.buffers.items():
            buffer.copy_(state[name])


def _make_batches(matrices: Mapping[str, Tensor], world_size: int) -> list[_Batch]:
    """Those with the most numbers first: the last results to travel have nothing beside them."""
    by_shape: dict[tuple, list[str]] = defaultdict(list)
    # As backward meets them: neighbours have different owners, and leave in one message.
    for name, matrix in reversed(list(matrices.items())):
        by_shape[(*sorted(matrix.shape), matrix.device)].append(name)
    batches = [
        _Batch([names[rank::world_size] for rank in range(world_size)], (rows, columns))
        for (rows, columns, _), names in by_shape.items()
    ]
    return sorted(batches, key=lambda b: -sum(map(len, b.shares)) * b.wide[0] * b.wide[1])
