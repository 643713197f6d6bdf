"""Fixtures every test may use."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from fairway.runtime import plugins
from fairway.runtime.plugins import load_plugin

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


@pytest.fixture
def sign_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type]:
    """The learner that docs/test-time-training.md shows, as written, in the user's own module."""
    page = (Path(__file__).parents[1] / "docs" / "test-time-training.md").read_text()
    (code,) = re.findall(r"```python\n(\"\"\"After each chunk.*?)```", page, re.DOTALL)
    (tmp_path / "sign_steps.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    yield load_plugin("sign_steps:SignSteps")
    del sys.modules["sign_steps"], plugins._loaded["sign_steps:SignSteps"]
