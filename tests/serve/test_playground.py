"""The page, in a real browser: it colours what is typed and goes on writing, for everybody."""

import shutil
from collections.abc import Iterator

import pytest

from fairway.api.model import Model

from .conftest import served

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium on this machine"),
]
TEXT = "The Hare ran to the TREE.\n\tgrößer 🐇"
SIZES = {"narrow": 400, "wide": 1280}
TOKEN = "0123456789abcdef0123"


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(params=["light", "dark"])
def theme(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=SIZES)
def page(request: pytest.FixtureRequest, browser, theme: str, addresses) -> Iterator:
    size = {"width": SIZES[request.param], "height": 900}
    opened = browser.new_page(viewport=size, color_scheme=theme)
    said: list[str] = []
    opened.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    opened.on("pageerror", lambda error: said.append(f"error: {error}"))
    # "Aborted" is a question taken back, for more was typed, or a stream whose end was read
    # before Chromium noticed; where anything was missing, the page itself complains.
    opened.on("requestfailed", lambda r: r.failure != "net::ERR_ABORTED" and said.append(r.url))
    opened.goto(addresses["caseops"])
    playwright.expect(opened.locator("#model")).to_have_text("tiny")
    yield opened
    assert said == []
    assert not opened.locator("#problem").is_visible()
    opened.close()


def typed(page, text: str) -> None:
    page.get_by_role("textbox", name="Text").fill(text)
    numbers = page.locator("#numbers")
    playwright.expect(numbers).to_contain_text(f" {len(text.encode())} bytes")


def test_what_is_typed_is_coloured_piece_by_piece_as_it_is_scored(page, models) -> None:
    typed(page, TEXT)
    spans = page.locator("#colours span").all_text_contents()
    assert "".join(spans) == TEXT
    assert len(spans) > 5
    score = Model(models["caseops"]).score(TEXT, learn=False)
    assert f"{score.bits_per_byte:.3f} bits per byte" in page.locator("#numbers").inner_text()
    page.keyboard.type(" more")  # the colours of what is before it stay
    assert "".join(page.locator("#colours span").all_text_contents())
    assert page.locator("#colours").inner_text().rstrip("\u200b").startswith("The Hare")


def test_nobody_is_kept_from_using_it(page) -> None:
    typed(page, TEXT)
    page.locator("summary").focus()
    page.keyboard.press("Enter")
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    wide = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1]  # nothing has to be scrolled sideways
    rows = page.locator("#tokens tr")
    assert rows.count() == page.locator("#colours span").count()
    assert page.locator("#shown").inner_text().startswith("All ")


def test_the_keyboard_reaches_all_of_it_and_the_model_goes_on(page) -> None:
    typed(page, "The")
    page.get_by_label("Tokens", exact=True).fill("12")
    page.get_by_label("Seed").fill("3")
    page.get_by_label("Seed").press("Enter")
    playwright.expect(page.locator("#text")).not_to_have_value("The")
    playwright.expect(page.locator("#go")).to_be_enabled()
    first = page.locator("#text").input_value()
    assert first.startswith("The")
    order = []
    page.locator("#text").focus()
    for _ in range(6):
        page.keyboard.press("Tab")
        order.append(page.evaluate("document.activeElement.id"))
    assert order[:5] == ["max_tokens", "temperature", "top_p", "seed", "go"]
    box = page.locator("#text")
    box.focus()
    page.keyboard.press("Control+Home")
    page.keyboard.press("ArrowRight")
    playwright.expect(page.locator("#here")).to_contain_text("At the cursor")


def test_what_goes_wrong_is_said_on_the_page(browser, models) -> None:
    with served(models["bytes"], TOKEN, max_tokens=5) as server:
        page = browser.new_page()
        page.goto(server.address)
        page.get_by_label("This server asks for its token").fill(TOKEN)
        page.keyboard.press("Enter")
        playwright.expect(page.locator("#model")).to_have_text("tiny")
        page.get_by_role("button", name="Go on").click()  # for 60 tokens, of which 5 are allowed
        playwright.expect(page.locator("#problem")).to_contain_text("from 0 to 5")
        assert page.get_by_role("alert").is_visible()
        page.close()
