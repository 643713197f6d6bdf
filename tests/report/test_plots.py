"""Pictures: well-formed, the same each time, safe to stand on one page, absent when not run."""

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.report.plots import PICTURES, inline_svgs, running_mean, save_pictures
from fairway.report.run_folder import RunFolder, read_run
from fairway.report.style import VARIABLES

from .run_results import ARTIFACT, bare_result, full_result, run_of, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return read_run(write_run(tmp_path_factory.mktemp("plots") / "r", full_result()))


@pytest.fixture(scope="module")
def svgs(run: RunFolder) -> dict[str, str]:
    return inline_svgs(run, "r0")


def test_every_picture_is_well_formed_and_labelled(svgs: dict[str, str]) -> None:
    assert set(svgs) == set(PICTURES)
    for svg in svgs.values():
        root = ElementTree.fromstring(svg)
        assert root.attrib["role"] == "img"
        assert root.attrib["aria-label"]
        assert "width" not in root.attrib  # the page says how wide


def test_text_stays_text_and_every_colour_is_the_pages(svgs: dict[str, str]) -> None:
    for svg in svgs.values():
        assert "<text" in svg
        assert "DejaVu" not in svg
        assert "<style" not in svg
        assert not re.findall(r"(?:fill|stroke): #[0-9a-f]{6}", svg)
        used = re.findall(r"var\((--\w+)\)", svg)
        assert used
        assert set(used) <= set(VARIABLES.values())


def test_no_two_pictures_share_an_id_and_every_reference_finds_its_own(
    svgs: dict[str, str],
) -> None:
    ids = {name: set(re.findall(r'\bid="([^"]+)"', svg)) for name, svg in svgs.items()}
    assert sum(map(len, ids.values())) == len(set().union(*ids.values()))
    for name, svg in svgs.items():
        references = re.findall(r"url\(#([^)]+)\)", svg) + re.findall(r'href="#([^"]+)"', svg)
        assert set(references) <= ids[name]


def test_the_same_run_gives_the_same_pictures(run: RunFolder, svgs: dict[str, str]) -> None:
    assert inline_svgs(run, "r0") == svgs


def test_what_was_not_run_has_no_picture() -> None:
    assert set(inline_svgs(run_of(bare_result()), "r0")) == {"seconds"}


def test_names_are_text_and_not_formulas() -> None:
    artifact = replace(ARTIFACT, groups={"cost $x^{ in $": 10})
    svgs = inline_svgs(run_of(replace(bare_result(), artifact=artifact)), "r0")
    assert "cost $x^{ in $" in svgs["artifact"]


def test_pictures_are_saved_as_files(run: RunFolder, tmp_path: Path) -> None:
    stages_only = run_of(replace(bare_result(), stages=run.result.stages))
    for suffix, magic in ((".png", b"\x89PNG"), (".svg", b"<?xml")):
        paths = save_pictures(stages_only, tmp_path, suffix)
        assert [path.name for path in paths] == [f"stages{suffix}", f"seconds{suffix}"]
        assert all(path.read_bytes().startswith(magic) for path in paths)
    with pytest.raises(ValueError, match=r"\.png or \.svg"):
        save_pictures(run, tmp_path, ".gif")


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=60), st.floats(0, 1))
def test_a_running_mean_stays_among_its_values(values: list[float], share: float) -> None:
    means = running_mean(values, share)
    assert len(means) == len(values)
    assert min(values) - 1e-9 <= min(means)
    assert max(means) <= max(values) + 1e-9
