"""Where tensors live: `--device auto|cpu|cuda[:k]` resolved once, in the driver, and passed on."""

from __future__ import annotations

import os
import re

from tasks.common.errors import UsageError


def device_pool(wanted: str) -> tuple[str, ...]:
    """The torch devices that workers take in turn: one of them, or all GPUs for `cuda` and `auto`.

    Raises:
        UsageError: for another word, or a GPU that is not there.
    """
    if wanted == "cpu":
        return ("cpu",)
    match = re.fullmatch(r"auto|cuda(?::(\d+))?", wanted)
    if match is None:
        raise UsageError(f"Device {wanted!r} is unknown. Expected auto, cpu, cuda, or cuda:0.")
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "auto" and count == 0:
        return ("cpu",)
    if count == 0:
        raise UsageError(f"Device {wanted!r}: torch {torch.__version__} sees no GPU here. Use --device cpu.")
    if match[1] is None:
        return tuple(f"cuda:{index}" for index in range(count))
    if int(match[1]) >= count:
        raise UsageError(f"Device {wanted!r}: this machine has {count} GPU(s), numbered from 0.")
    return (wanted,)


def count_cpus() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
