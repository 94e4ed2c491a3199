"""The built pages in a real browser, opened from disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

pytestmark = pytest.mark.browser
PAGES = [
    "index.html",
    "cells.html",
    "curves.html",
    "quality.html",
    "published.html",
    "failures.html",
    "protocol.html",
    "../index.html",
]


def names(page: Page, table: str = "ranking") -> list[str]:
    """The augmenters of the shown rows, in order."""
    rows = page.locator(f"#{table} tbody tr:visible th")
    return [text.split()[0] for text in rows.all_inner_texts()]


def content(page: Page) -> list[list[str]]:
    """The text of every shown cell of the ranking."""
    text = "c => c.textContent.trim().replace(/\\s+/g, ' ')"
    return page.evaluate(f"[...document.querySelectorAll('#ranking tbody tr')].map(r => [...r.cells].map({text}))")


def header(page: Page, key: str, table: str = "ranking") -> Any:
    return page.locator(f"#{table} th[data-key='{key}']")


@pytest.mark.parametrize("name", PAGES)
def test_every_page_opens_from_disk(open_page: Any, name: str) -> None:
    page = open_page(name)
    assert page.locator("h1").count() == 1
    assert page.title().endswith("AugMARL")


def test_the_script_shows_what_the_html_says(open_page: Any) -> None:
    """The rows that the script makes from data equal those that the template wrote."""
    with_script, without = open_page(), open_page(java_script_enabled=False)
    rows = with_script.locator("#ranking tbody tr")
    assert rows.count() == 5
    plain = without.locator("#ranking tbody tr")
    assert [" ".join(t.split()) for t in rows.all_inner_texts()] == [
        " ".join(t.split()) for t in plain.all_inner_texts()
    ]
    bars = "e => [...e.querySelectorAll('.track span')].map(s => [s.className, s.style.left, s.style.width])"
    script_bars, plain_bars = with_script.locator("#ranking").evaluate(bars), without.locator("#ranking").evaluate(bars)
    assert [b[:2] for b in script_bars] == [b[:2] for b in plain_bars]


def test_sorting(open_page: Any) -> None:
    page = open_page()
    assert names(page) == ["more-real-data", "duplicate", "original", "rad-s", "rad-m"]
    assert header(page, "lift").get_attribute("aria-sort") == "descending"
    header(page, "lift").get_by_role("button").click()
    assert names(page) == ["rad-s", "original", "duplicate", "more-real-data", "rad-m"]  # the unranked stays last
    assert header(page, "lift").get_attribute("aria-sort") == "ascending"
    header(page, "augmenter").get_by_role("button").click()
    assert names(page) == ["duplicate", "more-real-data", "original", "rad-m", "rad-s"]
    assert header(page, "lift").get_attribute("aria-sort") is None
    header(page, "iqm").get_by_role("button").press("Enter")  # by keyboard
    assert names(page)[0] == "more-real-data"


def test_filters_change_the_ranking_and_the_address_restores_it(open_page: Any) -> None:
    page = open_page()
    everything = content(page)
    page.locator("select[name=task]").select_option("mpe/spread")
    page.locator("select[name=learner]").select_option("bc50")
    header(page, "mean").get_by_role("button").click()
    filtered = content(page)
    assert filtered != everything
    assert "rad-m" in [row[0] for row in filtered if row[1] != "–"]  # whole in this selection, so ranked
    assert page.locator("[data-size]").inner_text().startswith("2 cells, n = 3")
    state = page.evaluate("location.hash")
    assert "task=mpe%2Fspread" in state

    again = open_page("index.html" + state)
    assert content(again) == filtered
    assert again.locator("select[name=task]").input_value() == "mpe/spread"
    assert header(again, "mean").get_attribute("aria-sort") == "descending"
    again.get_by_role("button", name="Show all").click()
    again.wait_for_function("!location.hash.includes('task')")
    header(again, "lift").get_by_role("button").click()
    assert content(again) == everything


def test_a_selection_that_no_run_has_is_said(open_page: Any) -> None:
    page = open_page("index.html#task=mpe/unknown")
    assert page.locator("select[name=task]").input_value() == ""
    assert len(content(page)) == 5


def test_cells_are_filtered_in_place(open_page: Any) -> None:
    page = open_page("cells.html")
    assert len(names(page, "cells")) == 2 * 2 * 2 * 5
    first = page.locator("#cells tbody tr").first
    assert first.inner_text().startswith("mpe/spread")
    page.locator("select[name=augmenter]").select_option("rad-s")
    page.locator("select[name=dataset]").select_option("exp")
    assert names(page, "cells") == ["rad-s"] * 4
    assert page.locator("output").inner_text() == "4 rows"
    page.locator("#cells tbody tr:visible summary").first.click()
    assert page.locator("#cells tbody tr:visible code").first.inner_text().startswith("bench run --matrix")


@pytest.mark.parametrize("name", PAGES)
def test_a_phone_scrolls_tables_and_not_the_page(open_page: Any, name: str) -> None:
    width = 320  # the narrowest that is still in use
    page = open_page(name, width=width, is_mobile=True, device_scale_factor=2)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(
        "[...document.querySelectorAll('select')].every(s => s.getBoundingClientRect().right <= innerWidth)"
    )


def test_the_page_reads_without_javascript(open_page: Any) -> None:
    page = open_page(java_script_enabled=False)
    assert names(page) == ["more-real-data", "duplicate", "original", "rad-s", "rad-m"]
    assert "not ranked: 4 of 24 runs are missing" in page.locator("#ranking").inner_text()
    assert not page.locator("form.filters").is_visible()
    assert page.locator("noscript").count() == 1
    assert page.locator("figure svg").count() == 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_figures_follow_the_colour_scheme(open_page: Any, scheme: str) -> None:
    page = open_page(color_scheme=scheme)
    colour = "getComputedStyle(document.querySelector(s))[p]"
    style = f"([s, p]) => {colour}.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0)"
    ground, ink = page.evaluate(style, ["body", "backgroundColor"]), page.evaluate(style, ["body", "color"])
    label = page.evaluate(style, ["figure svg text", "fill"])
    assert label == ink
    assert (ground > 600 > 300 > ink) if scheme == "light" else (ground < 150 < 600 < ink)


def test_tables_are_accessible(open_page: Any, board: Path) -> None:
    page = open_page()
    assert page.locator("#ranking caption").count() == 1
    assert page.locator("#ranking th:not([scope])").count() == 0
    assert page.locator("html[lang=en]").count() == 1
    assert all(page.locator("svg[role=img]").nth(i).get_attribute("aria-label") for i in range(2))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    assert (board / "leaderboard.csv").is_file()
