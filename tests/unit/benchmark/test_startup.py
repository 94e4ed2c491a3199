"""What `bench --help` and `bench list` import: a fresh process, so that nothing else has imported it before."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmark.cli.lazy import COMMANDS

HEAVY = ("torch", "jax", "mujoco", "matplotlib", "pandas", "duckdb", "scipy", "rliable", "safetensors")

PROGRAM = """
import sys
from benchmark.cli import main
code = main({arguments!r})
loaded = sorted(set({heavy!r}) & set(sys.modules))
print(f"code={{int(code)}} loaded={{loaded}}", file=sys.stderr)
"""


def test_the_help_imports_no_command() -> None:
    program = "import sys; from benchmark.cli import main; main(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(done.stderr.split())
    assert "benchmark.cli.root" in loaded
    assert not loaded & {command.target.partition(":")[0] for command in COMMANDS.values()}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        *[["list", kind] for kind in ("tasks", "datasets", "augmenters", "learners", "matrices", "protocols")],
        ["list", "augmenters", "--json"],
        *[
            [command, "--help"]
            for command in ("run", "plan", "data", "plugin", "policy", "timing", "leaderboard", "report")
        ],
    ],
    ids=" ".join,
)
def test_nothing_heavy_is_imported(arguments: list[str]) -> None:
    program = PROGRAM.format(arguments=arguments, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.splitlines()[-1] == "code=0 loaded=[]"
    assert done.stdout
