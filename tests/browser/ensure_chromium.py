"""The browser of the page tests: Debian's chromium. Run as a script it installs it where it is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome")
INSTRUCTION = (
    "No chromium found. Install it with `python tests/browser/ensure_chromium.py` (Debian: apt-get install chromium), "
    "or name one in AUGMARL_TEST_BROWSER."
)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


def find_chromium() -> str | None:
    """The path of a browser: AUGMARL_TEST_BROWSER, else the first of the usual names."""
    named = os.environ.get("AUGMARL_TEST_BROWSER")
    return named or next(filter(None, map(shutil.which, NAMES)), None)


def install_chromium() -> str:
    """Installs Debian's package and returns its path. Raises CalledProcessError or FileNotFoundError."""
    subprocess.run(["apt-get", "update", "-q"], check=True)
    subprocess.run(["apt-get", "install", "-qy", "--no-install-recommends", "chromium"], check=True)
    path = find_chromium()
    if path is None:
        raise FileNotFoundError(INSTRUCTION)
    return path


if __name__ == "__main__":
    sys.stdout.write(f"{find_chromium() or install_chromium()}\n")
