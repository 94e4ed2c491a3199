"""Where things live: caches under AUGMARL_HOME, records under AUGMARL_RESULTS."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

CHECKOUT = Path(__file__).resolve().parent.parent


def home_folder(override: Path | None = None) -> Path:
    """The folder of caches: `override`, else AUGMARL_HOME, else the platform's cache folder."""
    if override is not None:
        return override.expanduser().resolve()
    named = os.environ.get("AUGMARL_HOME")
    return Path(named).expanduser().resolve() if named else Path(platformdirs.user_cache_dir("augmarl"))


def results_folder(override: Path | None = None) -> Path:
    """The folder of records: `override`, else AUGMARL_RESULTS, else `results/` of the checkout or of this folder."""
    if override is not None:
        return override.expanduser().resolve()
    named = os.environ.get("AUGMARL_RESULTS")
    if named:
        return Path(named).expanduser().resolve()
    base = CHECKOUT if (CHECKOUT / "pyproject.toml").is_file() else Path.cwd()
    return base / "results"
