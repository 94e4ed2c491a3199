"""Memory of this process: its peak since the last reset, and what a limit compares."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from pathlib import Path

import psutil

_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_ALLOCATION = (
    ("MALLOC_MMAP_THRESHOLD_", -3, 2**25),  # M_MMAP_THRESHOLD: its largest
    ("MALLOC_TRIM_THRESHOLD_", -1, 2**31 - 1),  # M_TRIM_THRESHOLD: never
    ("MALLOC_TOP_PAD_", -2, 2**26),  # M_TOP_PAD: bytes that are asked for in advance
)


def keep_freed_memory() -> bool:
    """Has glibc keep what was freed for the next tensor; False where the C library is another one.

    By default it gives large blocks back to the system, and every new one costs page faults. Where the user has set one
    of glibc's variables, that one stays.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    taken = [mallopt(option, value) == 1 for name, option, value in _ALLOCATION if name not in os.environ]
    return all(taken)


def reset_peak_memory() -> None:
    """Starts a new peak where the system can (Linux); elsewhere the peak is that of the whole process."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return


def peak_memory_bytes() -> int:
    """The largest resident size since the last reset."""
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def resident_bytes(pid: int) -> int:
    """Resident size of a process and all its descendants; 0 if it is gone."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.Error:
        return 0
    total = 0
    for member in family:
        try:
            total += member.memory_info().rss
        except psutil.Error:
            continue
    return total
