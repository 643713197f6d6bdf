"""Tables: absent is not zero, parts add up, and one table fits three places."""

import io
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.evaluate.diagnostic import WARNING
from fairway.report.table import (
    Grid,
    artifact_grid,
    artifact_parts,
    as_plain,
    compressor_grid,
    print_result,
    run_title,
    stage_grid,
)
from fairway.result import CompressorResult, RunResult

from .run_results import ARTIFACT, DIAGNOSTICS, bare_result, full_result, score


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def without_stages(*names: str) -> RunResult:
    result = full_result()
    stages = {name: stage for name, stage in result.stages.items() if name not in names}
    return replace(result, stages=stages)


def test_a_stage_that_was_not_run_says_so_and_has_no_number() -> None:
    result = without_stages("sliding", "ttt")
    rows = {row[0]: row[1:] for row in stage_grid(result).rows}
    assert rows["sliding window"] == rows["test-time training"]
    assert rows["sliding window"] == ("not run", "", "not run", "not run")
    assert "0.00000" not in as_plain(stage_grid(result))


def test_a_change_is_against_the_last_stage_that_was_run() -> None:
    rows = {row[0]: row for row in stage_grid(without_stages("quantized")).rows}
    assert rows["sliding window"][2] == "-0.01000"
    assert rows["float weights"][2] == ""


def test_the_stage_that_is_the_score_is_marked_and_a_score_of_no_stage_is_noted() -> None:
    assert stage_grid(full_result()).strong == 3
    grid = stage_grid(replace(full_result(), score=score(1.0)))
    assert grid.strong is None
    assert "the score is not that of any stage above" in grid.notes


def test_the_groups_of_a_file_are_shown_with_the_tokenizer_once() -> None:
    """As `describe_artifact` has them: all sections of the file, its tokenizer among them."""
    groups = {"header": 50, "codes": 700, "scales": 100, "tokenizer": 100, "checksum": 50}
    sizes = {"bytes_total": 1000, "bytes_model": 900, "bytes_code": 0, "bytes_tokenizer": 100}
    found = replace(ARTIFACT, **sizes, groups=groups)
    parts, notes = artifact_parts(found)
    assert parts == {name: groups[name] for name in (*list(groups)[:3], "checksum", "tokenizer")}
    assert not notes


def test_a_compressor_that_was_not_run_says_so() -> None:
    only = {"xz": CompressorResult(alone=2.5, primed=2.0)}
    rows = {row[0]: row[1:] for row in compressor_grid(replace(full_result(), baselines=only)).rows}
    assert rows["xz -9e"] == ("2.5000", "2.0000")
    assert rows["PPMd, order 16"] == ("not run", "not run")
    assert rows["this run"] == ("", "1.5000")


def test_a_figure_on_a_part_of_the_text_says_so_once() -> None:
    result = full_result()
    parts = {
        name: replace(figures, prime_bytes=8, train_bytes=9, scored_bytes=4, val_bytes=5)
        for name, figures in result.baselines.items()
    }
    notes = compressor_grid(replace(result, baselines=parts)).notes
    assert notes.count("primed with the last 8 of 9 bytes only") == 1
    assert notes.count("compressors: on the first 4 of 5 bytes only") == 1


size = st.integers(min_value=0, max_value=10**8)


@given(model=size, code=size, tokenizer=size, counted=st.booleans(), groups=st.lists(size))
def test_the_parts_of_an_artifact_add_up_to_its_total(
    model: int, code: int, tokenizer: int, counted: bool, groups: list[int]
) -> None:
    artifact = replace(
        ARTIFACT,
        bytes_total=model + code + (tokenizer if counted else 0),
        bytes_model=model,
        bytes_code=code,
        bytes_tokenizer=tokenizer,
        groups={f"group {i}": part for i, part in enumerate(groups)},
    )
    parts, notes = artifact_parts(artifact)
    assert sum(parts.values()) == artifact.bytes_total
    assert bool(notes) == (tokenizer > 0 and not counted)


def test_a_run_without_artifact_has_no_made_up_bytes() -> None:
    assert artifact_grid(None).rows == (("total", "not run", ""),)


@pytest.mark.parametrize("result", [full_result(), bare_result()])
def test_a_pipe_gets_plain_lines_and_a_terminal_the_same_numbers(result: RunResult) -> None:
    pipe, screen = io.StringIO(), Screen()
    print_result(result, pipe)
    print_result(result, screen)
    assert "\x1b" not in pipe.getvalue()
    for row in (*stage_grid(result).rows, *compressor_grid(result).rows):
        for cell in row[1:]:
            assert cell in pipe.getvalue()
            assert cell in screen.getvalue()


def test_an_illegal_number_is_printed_only_with_its_words() -> None:
    result = replace(full_result(), diagnostics=DIAGNOSTICS)
    for screen in (io.StringIO(), Screen()):
        print_result(result, screen)
        lines = [line for line in screen.getvalue().splitlines() if "1.23456" in line]
        assert len(lines) == 1
        assert WARNING in lines[0]


def test_the_title_says_what_was_run_where() -> None:
    assert run_title(bare_result()) == "looped, seed 1, 123,456 parameters, cpu"


def test_plain_columns_line_up() -> None:
    lines = as_plain(Grid("T", ("a", "bits"), (("long name", "1"), ("b", "22")))).splitlines()
    assert lines == ["T", "  a          bits", "  long name     1", "  b            22"]
