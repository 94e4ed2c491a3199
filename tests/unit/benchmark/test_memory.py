"""What keeping freed memory saves, in a process of its own: the setting is for good."""

import os
import subprocess
import sys

import pytest

COUNT = """
import resource, sys
import numpy as np
from benchmark.memory import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit("not kept")
before = 0
for turn in range(12):
    before = faults() if turn == 2 else before
    first, second = np.ones(2_000_000), np.ones(3_000_000)
    third = first + 1
    del first, second, third
print(faults() - before)
"""


def faults(what: str, **environment: str) -> int:
    ran = subprocess.run(
        [sys.executable, "-c", COUNT, what],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return int(ran.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone has these settings")
def test_kept_memory_costs_no_page_faults() -> None:
    plain, kept = faults("plain"), faults("keep")
    assert kept < 0.1 * plain


def test_the_users_own_settings_stay() -> None:
    theirs = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_TOP_PAD_": "0"}
    assert faults("keep", **theirs) > 1_000
