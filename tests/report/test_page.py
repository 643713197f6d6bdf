"""The page: self-contained, escaped, honest about what is missing or does not stand."""

import importlib.resources
import json
import shlex
import tomllib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from fairway.audit.findings import Finding, ProbeResult
from fairway.cli import main
from fairway.evaluate.diagnostic import WARNING
from fairway.recipes.diff import from_json, set_json, to_json
from fairway.report.page import changes_of, commands, recipe_difference, write_report
from fairway.report.run_folder import read_run
from fairway.result import CompressorResult, RunResult

from .run_results import (
    ARTIFACT,
    CERTIFICATE,
    DIAGNOSTICS,
    PROOF,
    TRAIN,
    audited,
    bare_result,
    full_result,
    recipe_data,
    run_of,
    scored_result,
    write_run,
)

LOOP = {"first": 1, "last": 2}

VOID = {"meta", "br", "wbr", "input", "path", "use", "rect"}


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
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page(tmp_path: Path, *results: RunResult, **parents: Any) -> Page:
    runs = [write_run(tmp_path / f"run{i}", result) for i, result in enumerate(results)]
    html = write_report(runs, tmp_path / "report.html", parents or None).read_text("utf-8")
    return Page(html)


def test_the_template_is_a_file_of_the_package() -> None:
    """A wheel holds what `package-data` names; without it no page could be made."""
    folder = importlib.resources.files("fairway.report")
    assert folder.joinpath("frame.html.j2").read_text("utf-8").rstrip().endswith("</html>")
    project = Path(__file__).parents[2] / "pyproject.toml"
    named = tomllib.loads(project.read_text())["tool"]["setuptools"]["package-data"]
    found = [item.name for item in folder.iterdir() if item.is_file()]
    assert named["fairway.report"] == sorted(n for n in found if not n.endswith(".py"))


def test_a_page_loads_nothing(tmp_path: Path) -> None:
    found = page(tmp_path, full_result(), full_result(1.4, recipe="new"))
    assert all(load.startswith("#") for load in found.loads)
    assert not {"link", "img", "iframe"} & set(found.tags)
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
    """A run that was stopped after training shows its training, and no number it does not have."""
    text = page(tmp_path, bare_result()).text
    assert "no score" in text
    assert "Not run: nothing was decoded" in text
    assert "58.0 s of a budget of 60.0 s" in text
    assert "Training loss, nats per token" in text
    assert "0.0000" not in text


@pytest.mark.parametrize(
    "change",
    [
        {"audit": audited(ProbeResult("causality", False, ""))},
        {"proof": replace(PROOF, decoded_equal=False)},
        {"proof": replace(PROOF, holds=False)},
        {"artifact": replace(ARTIFACT, bytes_total=100_001)},
        {"train": replace(TRAIN, seconds=61.0)},
    ],
)
def test_a_broken_promise_is_an_alarm_beside_the_score(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    assert "This score does not stand." in page(tmp_path, replace(scored_result(), **change)).text


def test_what_a_probe_found_and_left_out_is_on_the_page(tmp_path: Path) -> None:
    findings = (Finding("a change leaks", ("C1", "A1")), Finding("it is odd"))
    probe = ProbeResult("causality", False, "24 cuts", findings, ("long texts",))
    text = page(tmp_path, replace(scored_result(), audit=audited(probe))).text
    assert "causality failed 24 cuts a change leaks (likely C1: " in text
    assert "it is odd not covered: long texts" in text


def test_an_illegal_number_stands_only_beside_its_words(tmp_path: Path) -> None:
    text = page(tmp_path, replace(scored_result(), diagnostics=DIAGNOSTICS)).text
    assert text.count("1.2346") == 1
    assert f"1.2346 {WARNING}" in text


def test_text_from_outside_cannot_become_markup(tmp_path: Path) -> None:
    evil = '"><script>alert(1)</script>'
    probe = ProbeResult(evil, True, evil, (Finding(evil, ("C1",)),), (evil,))
    result = replace(
        full_result(recipe=evil),
        device=evil,
        audit=audited(probe),
        baselines={evil: CompressorResult(alone=1.0, primed=1.0)},
        curves={evil: ((1, 1.0), (2, 1.0))},
        artifact=replace(ARTIFACT, groups={evil: 10}, sha256=evil),
        diagnostics={evil: DIAGNOSTICS["adapt_then_score"]},
    )
    found = page(tmp_path, result)
    assert found.tags.count("script") == page(tmp_path / "tame", full_result()).tags.count("script")
    assert evil in found.text


def test_several_runs_are_compared_by_what_they_were(tmp_path: Path) -> None:
    """The name of a recipe is not what it does: three depths of one name are two groups."""
    shallow, deep = recipe_data(train__seconds=60.0), recipe_data(train__seconds=99.0)
    scores = [(shallow, (1.5, 1.5004, 1.4996)), (deep, (1.4, 1.4003, 1.3999))]
    runs = [
        write_run(tmp_path / f"{bits}", scored_result(bits, seed=seed), recipe)
        for recipe, side in scores
        for seed, bits in enumerate(side)
    ]
    text = Page(write_report(runs, tmp_path / "report.html").read_text("utf-8")).text
    assert "6 runs compared" in text
    assert "looped, train.seconds 99.0 against looped: 0.09993 bits per byte lower" in text
    assert "It beats the threshold of parameter-golf: p = " in text


def test_what_may_not_be_compared_gets_no_number(tmp_path: Path) -> None:
    texts = [{"val_000000.bin": "aa"}, {"val_000000.bin": "bb"}]
    results = [replace(scored_result(1.5 - i / 10, seed=i), data=d) for i, d in enumerate(texts)]
    text = page(tmp_path, *results).text
    assert "not the same validation text" in text
    assert "bits per byte lower" not in text


def test_runs_without_any_score_can_be_listed(tmp_path: Path) -> None:
    assert "2 runs compared" in page(tmp_path, bare_result("a"), bare_result("b")).text


def test_the_same_runs_give_the_same_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r", full_result())
    first = write_report([run], tmp_path / "a" / "report.html").read_bytes()
    assert write_report([run], tmp_path / "b.html").read_bytes() == first


def test_no_run_is_an_error_that_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fairway report RUN"):
        write_report([], tmp_path / "report.html")


def test_the_difference_to_the_parent_is_shown(tmp_path: Path) -> None:
    parent = recipe_data("plain", None, train__seconds=99.0, evaluate__ttt=None)
    text = page(tmp_path, bare_result(), plain=parent).text
    assert "train. seconds 99.0 180.0" in text
    assert 'evaluate. ttt null {"type": "Sgd",' in text
    assert "looped derives from plain and differs from it in these settings" in text
    assert "not among the recipes" in page(tmp_path / "2", bare_result()).text


def test_a_recipe_differs_from_itself_in_nothing() -> None:
    assert recipe_difference(recipe_data(), recipe_data("other", "looped")) == []


def test_a_part_of_one_side_only_is_one_difference() -> None:
    ((setting, old, new),) = recipe_difference(recipe_data(model__loop=LOOP), recipe_data())
    assert (setting, old) == ("model.loop", "null")
    assert LOOP.items() <= json.loads(new).items()


def test_a_recipe_of_another_version_is_shown_and_the_page_says_why_not_compared(
    tmp_path: Path,
) -> None:
    old = recipe_data() | {"colour": "blue"}
    run = write_run(tmp_path / "r", bare_result(), old)
    recipes = {"plain": recipe_data("plain", None), "looped": recipe_data()}
    text = Page(write_report([run], tmp_path / "p.html", recipes).read_text("utf-8")).text
    assert "since this version cannot read it: Recipe has no field 'colour'" in text
    assert "# with what recipe.json changes; this version cannot read it: Recipe has no" in text
    assert '"colour": "blue"' in text
    assert changes_of(read_run(run), recipes)[1] == []


def test_commands_repeat_what_was_changed_in_a_named_recipe() -> None:
    named = recipe_data()
    ours = recipe_data(
        train__seconds=99.0,
        tokens__order__order="sequential",
        model__layer_scale=False,
        model__loop=LOOP,
        evaluate__ttt=None,
    )
    words = shlex.split(commands(run_of(bare_result(), ours), {"looped": named})[0])
    assert words[:6] == ["fairway", "run", "looped", "DATA", "--out", "runs/my run"]
    settings, given = from_json(named), iter(words[6:])
    for word in given:  # as the command line reads them
        path, value = word.removeprefix("--").replace("-", "_"), next(given)
        if word == "--set":
            path, _, value = value.partition("=")
            settings = set_json(settings, path, json.loads(value))
        else:
            settings = set_json(settings, path, 99.0 if value == "99.0" else value)
    assert to_json(settings) == ours


def test_what_no_single_option_can_say_is_a_note_above_the_command() -> None:
    train = recipe_data()["train"] | {"seconds": None, "steps": 5, "reserve_seconds": 0.0}
    ours = recipe_data(quant__reserve_seconds=0.0, train=train)
    lines = commands(run_of(bare_result(), ours), {"looped": recipe_data()})
    assert lines[0] == "# with train.seconds = null, as recipe.json has it"
    assert "--train.steps 5" in lines[1]
    assert "train.seconds" not in lines[1]


def test_the_certificate_is_on_the_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r", bare_result())
    (run / "certificate.json").write_text(CERTIFICATE.to_json())
    assert read_run(run).certificate == CERTIFICATE
    assert "cd" * 32 in Page(write_report([run], tmp_path / "p.html").read_text("utf-8")).text


def test_the_command_writes_the_page_and_the_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = write_run(tmp_path / "r", bare_result()), tmp_path / "page.html"
    pictures = ["--pictures", str(tmp_path / "pictures")]
    assert main(["report", str(run), "--out", str(out), *pictures, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"page": str(out)}
    assert out.is_file()
    names = sorted(path.name for path in (tmp_path / "pictures" / "r").iterdir())
    assert names == ["loss.png", "seconds.png"]
    assert main(["report", str(tmp_path / "none"), "--out", str(out)]) == 2
