"""Fixtures every test may use."""

from pathlib import Path

import pytest
import torch
from hypothesis import settings

# A busy machine is no fault of the code under test.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
torch.set_num_threads(1)  # tiny tensors: a second thread costs more than it brings


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden vectors and text beside the checkout, where there is one."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "vectors").is_dir():
        pytest.skip("needs ../shared (golden vectors and real text), which this checkout lacks")
    return folder
