"""What may step the matrices: Muon (`muon.py`), or an optimizer of yours.

A new one is one file, here or in your own package: a frozen config that builds it. It stands in
`OptimizerConfig.muon`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from fairway.runtime.distributed import Ranks
from fairway.runtime.plugins import Pluggable


class MatrixOptimizer(Protocol):
    """Steps matrices in place. Gradients, and what becomes of the weights, are alike on all ranks.

    set         rates of the next steps as shares of the config's, and its momentum replaced
    state_dict  all that the next step depends on, apart from what `set` gives
    """

    @property
    def parameters(self) -> Mapping[str, nn.Parameter]: ...
    def set(
        self, *, lr_scale: float = 1.0, momentum: float | None = None, decay_scale: float = 1.0
    ) -> None: ...
    def step(self) -> None: ...
    def state_dict(self) -> dict[str, Tensor]: ...
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...


class MatrixOptimizerConfig(Pluggable, ABC):
    """Base of the configs: frozen dataclasses.

    momentum  in full, to which a `MomentumWarmup` rises; 0 for an optimizer that has none
    """

    momentum: float = 0.0

    @abstractmethod
    def build(
        self, matrices: Mapping[str, nn.Parameter], *, dtype: torch.dtype, ranks: Ranks | None
    ) -> MatrixOptimizer:
        """The optimizer of these matrices, all (R, C), by name.

        dtype  in which products of matrices are fast on this machine
        ranks  among which the work may be shared; None: there is one
        """
