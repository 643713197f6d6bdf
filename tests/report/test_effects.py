"""The ledger for people: every change with its seeds, its error, and how many were tried."""

import csv
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fairway.report.effects import effects_csv, effects_grids, told, write_effects_page
from fairway.report.table import as_plain
from fairway.runs.effects import SCORE, Ledger


def test_tables_tell_changes_seeds_errors_and_how_many_were_tried(ledger: Ledger) -> None:
    steps, seconds = effects_grids(ledger)
    assert (steps.title, seconds.title) == ("pocket, at equal steps", "pocket, at equal seconds")
    row = dict(zip(steps.columns, steps.rows[0], strict=True))
    assert row["change"] == 'model.loop null → {"last": 5}'
    assert (row["seeds"], row[SCORE], row["±"]) == ("2", "-0.02000", "0.00700")
    assert (row["p (Holm)"], row["step time"], row["bytes"]) == ("0.0200", "+25%", "+1,200")
    assert row["quantized"] == ""
    words = "\n".join(map(as_plain, (steps, seconds)))
    assert "the best of 2 changes without any effect would seem 0.01230 bits per byte" in words
    assert "4 changes were tried in 9 runs" in words
    assert "in no row" in words


def test_every_figure_is_in_the_csv(ledger: Ledger) -> None:
    lines = list(csv.DictReader(io.StringIO(effects_csv(ledger))))
    assert len(lines) == 6
    assert {line["stage"] for line in lines} == {"float", SCORE}
    first, last = lines[0], lines[-1]
    assert (first["old"], first["new"]) == ("", '{"last": 5}')
    assert float(first["bits_per_byte"]) == pytest.approx(-0.02)
    assert (last["old"], last["new"], last["tried"]) == ("absent", '"a,b"', "4")


def test_the_page_holds_all_and_loads_nothing(ledger: Ledger, tmp_path: Path) -> None:
    text = write_effects_page(ledger, tmp_path / "effects.html").read_text()
    assert "<b>evil" not in text
    assert "4 changes, tried in 9 runs" in text
    assert text.count("<svg") == 2
    parser = Loads()
    parser.feed(text)
    assert all(link.startswith("#") for link in parser.links)
    assert parser.told == [told(effect) for effect in ledger.effects]
    assert parser.told[0] == (
        'model.loop null → {"last": 5}: -0.02000 ± 0.00700 bits per byte, p (Holm) 0.0200, '
        "step time +25%, bytes +1,200, seeds 1, 2"
    )
    assert write_effects_page(ledger, tmp_path / "again.html").read_text() == text


class Loads(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.told: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("link", "img")
        self.links += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href")]
        panels = [panel for k, v in attrs if k == "data-values" for panel in json.loads(v or "")]
        self.told += [row["said"] for panel in panels for row in panel["rows"]]
