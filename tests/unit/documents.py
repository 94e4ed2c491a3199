"""The pages that are read by people, as the tests read them."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def page(name: str) -> str:
    """The text of `docs/<name>.md`."""
    return (ROOT / "docs" / f"{name}.md").read_text()
