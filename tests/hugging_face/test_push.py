"""A model goes to a hub and comes back, through the library's own client in its own process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fairway.tokens.tokenizer import ByteTokenizer

from .hub_server import hub
from .test_export import packed

pytest.importorskip("transformers")


def typed(where: str, work: Path, *argv: str) -> tuple[int, dict, str]:
    """A command in a process of its own: the library reads its endpoint when it is imported."""
    environment = os.environ | {
        "HF_ENDPOINT": where,
        "HF_HOME": str(work / "home"),
        "HF_TOKEN": "hf_none",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
    }
    done = subprocess.run(
        [sys.executable, "-m", "fairway", *argv, "--json"],
        capture_output=True, text=True, errors="replace", env=environment, check=False, cwd=work,
    )  # fmt: skip
    answer = json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else {}
    return done.returncode, answer, done.stderr


def test_what_was_pushed_is_loaded_by_its_address(tmp_path: Path) -> None:
    packed("pocket", tmp_path / "model.fwy", ByteTokenizer().to_bytes())
    files: dict[str, bytes] = {}
    with hub(files) as where:
        status, answer, said = typed(where, tmp_path, "push", "model.fwy", "hf://ann/tiny")
        assert (status, answer.get("commit")) == (0, f"{where}/ann/tiny/commit/1"), said
        assert files["model.fwy"] == (tmp_path / "model.fwy").read_bytes()
        assert {"config.json", "model.safetensors", "modeling_fairway.py"} <= files.keys()
        status, answer, said = typed(
            where, tmp_path, "generate", "hf://ann/tiny", "--num-tokens", "3"
        )
        assert status == 0, said
    files.clear()
    with hub(files) as where:
        status, _, said = typed(where, tmp_path, "generate", "hf://bob/none")
        assert (status, "no such file" in said) == (2, True), said


def test_a_hub_that_refuses_or_breaks_off_is_one_line(tmp_path: Path) -> None:
    packed("pocket", tmp_path / "model.fwy", ByteTokenizer().to_bytes())
    with hub({}, broken="down") as where:
        status, _, said = typed(where, tmp_path, "push", "model.fwy", "hf://ann/tiny")
        assert (status, said.count("\n"), "403" in said) == (2, 1, True), said
    damaged = bytearray((tmp_path / "model.fwy").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    with hub({"model.fwy": bytes(damaged)}) as where:
        status, _, said = typed(where, tmp_path, "generate", "hf://ann/tiny")
        assert (status, "model.fwy" in said, "Traceback" in said) == (2, True, False), said
