"""What this machine has, what it lacks, and how to get it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from tasks.common.errors import UsageError
from tasks.registry import TASKS, make_task
from tasks.smac.task import missing_game

Level = Literal["ok", "optional", "problem"]
MIN_FREE_BYTES = 2 * 2**30

OPTIONAL = {
    "jaxmarl": ("SMAC and SMACv2 on SMAX", "pip install 'augmarl[smax]'"),
    "mujoco": ("MAMuJoCo", "pip install 'augmarl[mamujoco]'"),
    "mpe2": ("comparing our particle engine with the library", "pip install 'augmarl[dev]'"),
    "ray": ("the ray executor", "pip install 'augmarl[ray]'"),
    "submitit": ("the slurm executor", "pip install 'augmarl[slurm]'"),
    "openai": ("CODI's language-model oracle", "pip install 'augmarl[llm]'"),
    "tensorstore": ("OG-MARL vaults", "pip install 'augmarl[vault]'"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `optional`: missing, and only some things need it."""

    name: str
    level: Level
    detail: str


def examine(home: Path, results: Path) -> list[Finding]:
    """Everything worth knowing before a run."""
    return [
        _python(),
        *_torch(),
        *_optional_packages(),
        _language_model(),
        _starcraft(),
        _chromium(),
        _writable("AUGMARL_HOME", home),
        _writable("AUGMARL_RESULTS", results),
        _disk(home),
        *_checkpoints(),
    ]


def _python() -> Finding:
    version = platform.python_version()
    fits = (3, 11) <= sys.version_info[:2] <= (3, 13)
    return Finding("python", "ok" if fits else "problem", version if fits else f"{version}; expected 3.11 to 3.13")


def _torch() -> Iterator[Finding]:
    import torch

    yield Finding("torch", "ok", torch.__version__)
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        yield Finding("cuda", "ok", ", ".join(names))
    else:
        yield Finding("cuda", "optional", "no GPU that torch can use; everything runs on the CPU")


def _optional_packages() -> Iterator[Finding]:
    for name, (use, command) in OPTIONAL.items():
        try:  # the version, not the module: a folder of that name here would pass for one
            yield Finding(name, "ok", metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding(name, "optional", f"not installed; for {use}: {command}")


def _language_model() -> Finding:
    """The chat endpoint of the environment, which is not asked anything here."""
    from methods.labelling.endpoint import API_KEY, BASE_URL, MODEL, PAPER_MODEL, endpoint_from, model_from

    name = "language model"
    if not (os.environ.get(BASE_URL) or os.environ.get(API_KEY)):
        how = f"set {BASE_URL} or {API_KEY}, and {MODEL} unless it is {PAPER_MODEL}"
        return Finding(name, "optional", f"no chat endpoint; CODI then labels by a heuristic. For one: {how}")
    try:
        return Finding(name, "ok", f"{model_from()} at {endpoint_from().host}")
    except UsageError as error:
        return Finding(name, "problem", str(error))


def _starcraft() -> Finding:
    missing = missing_game()
    if missing is None:
        return Finding("StarCraft II", "ok", os.environ["SC2PATH"])
    wrong = "SC2PATH" in os.environ and not Path(os.environ["SC2PATH"]).is_dir()
    return Finding("StarCraft II", "problem" if wrong else "optional", f"for tasks with engine=sc2: {missing}")


def _chromium() -> Finding:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    return Finding(
        "chromium", "ok" if path else "optional", path or "not found; for the tests of the pages: apt install chromium"
    )


def _writable(name: str, folder: Path) -> Finding:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            return Finding(name, "ok", str(folder))
    except OSError as error:
        return Finding(name, "problem", f"{folder} is not writable: {error.strerror}. Set {name} to another folder")


def _disk(home: Path) -> Finding:
    existing = next(folder for folder in [home, *home.parents] if folder.exists())
    free = shutil.disk_usage(existing).free
    text = f"{free / 2**30:.1f} GiB free at {existing}"
    return Finding("disk", "ok" if free >= MIN_FREE_BYTES else "problem", text)


def _checkpoints() -> Iterator[Finding]:
    """Which shipped behaviour policies are there."""
    for name in TASKS.names():
        if TASKS.entry(name).package != "augmarl":
            continue
        task = make_task(name)
        missing = []
        for level in task.behaviour_levels:
            try:
                task.behaviour_digest(level)
            except Exception:  # a plugin task may fail in any way; the level is then not usable
                missing.append(level)
        levels = ", ".join(task.behaviour_levels)
        if not levels:
            yield Finding(name, "optional", "no policies; data are recorded at random, or imported")
        elif missing:
            yield Finding(name, "optional", f"no {', '.join(missing)} policy; bench policy train '{name}'")
        else:
            yield Finding(name, "ok", f"policies: {levels}")
