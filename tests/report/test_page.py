"""The page: self-contained, escaped, honest about what is missing or does not stand."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from fairway.report.page import commands, recipe_difference, write_report
from fairway.report.run_folder import RunFolder, TrainingCurve, read_run

from .run_results import full_result, recipe_data, write_run

VOID = {"meta", "br", "path", "use", "rect"}


class Page(HTMLParser):
    """Collects text, and every attribute that could load something."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.ids: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "action"):
                self.loads.append(value or "")
            if name == "id":
                self.ids.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page(tmp_path: Path, *results: dict[str, Any], **parents: Any) -> Page:
    runs = [write_run(tmp_path / f"run{i}", result) for i, result in enumerate(results)]
    html = write_report(runs, tmp_path / "report.html", parents or None).read_text("utf-8")
    return Page(html)


def test_a_page_loads_nothing_and_runs_nothing(tmp_path: Path) -> None:
    found = page(tmp_path, full_result(), full_result(1.4, recipe="new"))
    assert all(load.startswith("#") for load in found.loads)
    assert not {"script", "link", "img", "iframe"} & set(found.tags)
    assert found.open == []
    assert len(found.ids) == len(set(found.ids))


def test_score_claim_promises_and_commands_are_on_the_page(tmp_path: Path) -> None:
    text = page(tmp_path, full_result()).text
    for words in (
        "1.5000",
        "1.4900 published for this recipe; this run is 0.01000 above",
        "Proof 4,096 tokens decode",
        "Audit legal",
        "24 cuts, no change",
        "zstd --ultra -22",
        "fairway run looped DATA --out runs/run0",
    ):
        assert words in text
    assert "does not stand" not in text


def test_what_was_not_run_is_said(tmp_path: Path) -> None:
    text = page(tmp_path, {"recipe": "looped"}).text
    assert "no score" in text
    assert "Not run: nothing was decoded" in text
    assert "0.0000" not in text


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("audit", {"verdict": "illegal"}),
        ("proof", {"decoded_equal": False}),
        ("artifact", {"bytes_total": 100_001}),
        ("train", {"seconds": 61.0}),
    ],
)
def test_a_broken_promise_is_an_alarm_beside_the_score(
    tmp_path: Path, part: str, change: dict[str, Any]
) -> None:
    result = full_result()
    result[part] |= change
    del (
        result["stages"],
        result["curves"],
        result["chunks"],
        result["baselines"],
    )  # pictures are drawn elsewhere
    assert "This score does not stand." in page(tmp_path, result).text


def test_an_illegal_number_stands_only_beside_its_words(tmp_path: Path) -> None:
    result = full_result() | {"diagnostics": {"adapt_then_score": {"bits_per_byte": 1.2345}}}
    text = page(tmp_path, result).text
    assert text.count("1.2345") == 1
    assert "1.2345 illegal: learned from a token before scoring it" in text


def test_text_from_outside_cannot_become_markup(tmp_path: Path) -> None:
    evil = '"><script>alert(1)</script>'
    result: dict[str, Any] = {**full_result(recipe=evil), "device": evil}
    result["audit"]["probes"] = {evil: {"ok": True, "summary": evil, "findings": [evil]}}
    result["baselines"][evil] = {"alone": 1.0, "primed": 1.0}
    result["curves"][evil] = [[1, 1.0], [2, 1.0]]
    result["artifact"]["groups"] = {evil: 10}
    result["diagnostics"] = {evil: 1.0}
    found = page(tmp_path, result)
    assert "script" not in found.tags
    assert evil in found.text


def test_several_runs_are_compared(tmp_path: Path) -> None:
    results = [full_result(b, recipe="old", seed=i) for i, b in enumerate((1.5, 1.5004, 1.4996))]
    results += [full_result(b, recipe="new", seed=i) for i, b in enumerate((1.4, 1.4003, 1.3999))]
    for result in results:  # pictures are drawn elsewhere
        del (
            result["stages"],
            result["curves"],
            result["chunks"],
            result["baselines"],
            result["artifact"],
        )
    text = page(tmp_path, *results).text
    assert "6 runs compared" in text
    assert "new is 0.24" in text
    assert "It beats the field's threshold of 0.005 nats" in text


def test_runs_without_any_score_can_be_listed(tmp_path: Path) -> None:
    assert "2 runs compared" in page(tmp_path, {"recipe": "a"}, {"recipe": "b"}).text


def test_the_same_runs_give_the_same_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r", full_result())
    first = write_report([run], tmp_path / "a" / "report.html").read_bytes()
    assert write_report([run], tmp_path / "b.html").read_bytes() == first


def test_no_run_is_an_error_that_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fairway report RUN"):
        write_report([], tmp_path / "report.html")


def test_the_difference_to_the_parent_is_shown(tmp_path: Path) -> None:
    parent = recipe_data("plain", None)
    parent["model"]["loop"] = None
    text = page(tmp_path, full_result(), plain=parent).text
    assert 'model.loop null {"first": 1, "last": 2}' in text
    assert "looped derives from plain and differs from it in these settings" in text
    assert "not among the recipes" in page(tmp_path / "2", full_result()).text


def test_a_recipe_differs_from_itself_in_nothing() -> None:
    assert recipe_difference(recipe_data(), recipe_data("other", "looped")) == []


def test_settings_of_one_side_only_are_absent_on_the_other() -> None:
    assert recipe_difference({"a": 1}, {"b": 2}) == [("a", "absent", "1"), ("b", "2", "absent")]


def test_commands_repeat_what_was_changed_in_a_named_recipe() -> None:
    ours, named = recipe_data(), recipe_data()
    ours["train"]["lr"] = 0.03
    ours["model"]["num_blocks"] = 6
    ours["model"]["loop"] = None
    run = RunFolder(Path("runs/my run"), full_result(), ours, None, TrainingCurve())
    assert commands(run, {"looped": named})[:2] == [
        "# with model.loop = null, as recipe.json has it",
        "fairway run looped DATA --out 'runs/my run' --model.num-blocks 6 --train.lr 0.03",
    ]
    told = RunFolder(run.path, {"commands": ["fairway demo"]}, None, None, TrainingCurve())
    assert commands(told, {}) == ["fairway demo"]


def test_the_certificate_is_on_the_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r", full_result())
    (run / "certificate.json").write_text(json.dumps({"artifact_sha256": "cd" * 32}))
    assert read_run(run).certificate is not None
    assert "cd" * 32 in Page(write_report([run], tmp_path / "p.html").read_text("utf-8")).text
