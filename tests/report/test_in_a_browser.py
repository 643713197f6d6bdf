"""The pages in a real browser: nothing fails, everybody can read them, and pictures tell values."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fairway.report.effects import told, write_effects_page
from fairway.report.page import write_report
from fairway.runs.effects import Ledger

from .run_results import full_result, write_run

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium on this machine"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(params=[(1280, "light"), (1280, "dark"), (400, "light"), (400, "dark")])
def page(request: pytest.FixtureRequest, browser) -> Iterator:
    width, scheme = request.param
    opened = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said: list[str] = []
    opened.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    opened.on("pageerror", lambda error: said.append(f"error: {error}"))
    yield opened
    assert said == []
    assert axe.Axe().run(opened).violations_count == 0
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    opened.close()


def test_the_ledger_of_effects_tells_each_row(page, ledger: Ledger, tmp_path: Path) -> None:
    file = write_effects_page(ledger, tmp_path / "effects.html")
    page.goto(file.as_uri())
    first = page.locator("figure").first
    said = first.locator("output")
    first.focus()
    for effect in ledger.effects[:2]:
        page.keyboard.press("ArrowDown")
        playwright.expect(said).to_have_text(told(effect))
    box = first.locator("svg").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 1)
    playwright.expect(said).to_have_text(told(ledger.effects[0]))


def test_a_run_s_curves_tell_their_values(page, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", full_result())
    file = tmp_path / "report.html"
    write_report([folder], file)
    page.goto(file.as_uri())
    loss = page.locator("figure", has=page.locator("[data-values*=step]")).first
    loss.focus()
    page.keyboard.press("ArrowRight")
    playwright.expect(loss.locator("output")).to_contain_text("1 ")
    playwright.expect(loss.locator(".rule")).to_have_count(1)
