"""Where numbers come from: commit, versions, hardware. Allow-listed, so that nothing private enters a record."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import psutil

from benchmark.folders import CHECKOUT
from benchmark.records import Provenance

LIBRARIES = ("numpy", "torch", "jax", "safetensors", "pydantic", "scipy", "mpe2", "mujoco")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What is the same for all runs of one driver; taken once, and handed to the workers."""

    commit: str | None
    dirty: bool | None
    augmarl: str
    python: str
    platform: str
    cpu: str
    cpu_count: int
    memory_bytes: int
    gpu: str | None
    torch_threads: int
    libraries: dict[str, str]

    def provenance(self, started: str, finished: str, device: str) -> Provenance:
        """The provenance of one run."""
        return Provenance(started=started, finished=finished, device=device, **asdict(self))


def take_origin(threads: int) -> Origin:
    """Asks git, the system and the installed packages."""
    commit = _git("rev-parse", "HEAD")
    # Records are written into results/ while a run goes on; they are no change of the code.
    changes = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results")
    return Origin(
        commit=commit,
        dirty=None if commit is None or changes is None else bool(changes),
        augmarl=_version("augmarl") or "unknown",
        python=platform.python_version(),
        platform=platform.platform(terse=True),
        cpu=_cpu_name(),
        cpu_count=psutil.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
        gpu=_gpu_name(),
        torch_threads=threads,
        libraries={name: version for name in LIBRARIES if (version := _version(name)) is not None},
    )


def collect_provenance(device: str) -> Provenance:
    """The provenance of something that happens here and now, e.g. of a timing record."""
    import torch

    moment = now()
    return take_origin(torch.get_num_threads()).provenance(moment, moment, device)


def now() -> str:
    """The time in UTC, to the second, in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _git(*arguments: str) -> str | None:
    if not (CHECKOUT / ".git").exists():  # installed as a package: a repository around it is somebody else's
        return None
    try:
        done = subprocess.run(["git", *arguments], cwd=CHECKOUT, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _gpu_name() -> str | None:
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
