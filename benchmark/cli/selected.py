"""From the flags of `run` and `plan` to a run plan."""

from __future__ import annotations

from pathlib import Path

from benchmark.artefacts import ArtefactStore
from benchmark.folders import home_folder, results_folder
from benchmark.matrix import load_matrix, select
from benchmark.planning import RunPlan, make_run_plan


def plan_from(
    matrix: str,
    only: list[str] | None,
    protocol: str | None,
    results: Path | None,
    home: Path | None,
    *,
    retry: bool = True,
    force: bool = False,
) -> RunPlan:
    """The plan of what the flags select.

    Raises:
        UsageError: for an unknown or malformed matrix, name or pattern.
        NothingSelectedError: if no cell is left.
    """
    loaded = load_matrix(matrix)
    if protocol is not None:
        loaded = loaded.with_protocol(protocol)
    return make_run_plan(
        select(loaded.groups(), only or []),
        store=ArtefactStore(home_folder(home)),
        results=results_folder(results),
        exclusion_of=loaded.exclusion_of,
        retry=retry,
        force=force,
    )


def default_jobs(jobs: int | None, device: str) -> int:
    """Workers at once: as asked, else one a GPU, else one a CPU core."""
    if jobs is not None:
        return jobs
    from benchmark.devices import count_cpus, device_pool

    pool = device_pool(device)
    return len(pool) if pool[0].startswith("cuda") else count_cpus()
