from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "unit" / "leaderboard")]

from ensure_chromium import FLAGS, INSTRUCTION, find_chromium  # noqa: E402
from factory import Suite, with_status, write  # noqa: E402

from leaderboard import site  # noqa: E402

OpenPage = Callable[..., Page]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = find_chromium()
    if path is None:
        pytest.fail(INSTRUCTION)  # a page that nobody has opened is not tested: no silent skip
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one board: a winner, a loser, a failed run and an augmenter that is not ranked."""
    suite = Suite(effects={"original": 0, "duplicate": 0.1, "rad-s": -12, "rad-m": 2, "more-real-data": 20}, seeds=3)
    records = [
        record
        for record in suite.records()
        if (record.cell.augmenter, record.cell.task, record.cell.seed) != ("rad-m", "mpe/tag", 2)
    ]
    records[0] = with_status(records[0], "diverged")
    results = write(records, tmp_path_factory.mktemp("results"))
    built = site.build(results, results / "site")
    return built.index.parent / built.boards[0].key.slug


@pytest.fixture
def open_page(browser: Browser, board: Path) -> Iterator[OpenPage]:
    """Opens a page of the board from disk. The test fails on any console message, error or request off the disk."""
    contexts: list[Any] = []
    complaints: list[str] = []

    def open_it(name: str = "index.html", *, width: int = 1280, **options: Any) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 800}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
        page.on(
            "request",
            lambda request: None if request.url.startswith(("file:", "data:")) else complaints.append(request.url),
        )
        page.goto(
            (board / name).as_uri()
            if "#" not in name
            else f"{(board / name.partition('#')[0]).as_uri()}#{name.partition('#')[2]}"
        )
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert complaints == []
