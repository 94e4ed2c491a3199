"""The files of measured score references, one a task family: frozen data with provenance."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from tasks.spec import ScoreReferences


@cache
def load_references(path: Path, engine_version: str) -> dict[str, ScoreReferences]:
    """The references by task id; none where there is no file. Measurements of another engine version do not count."""
    if not path.exists():
        return {}
    return {
        task_id: ScoreReferences(
            random_return=row["random"]["mean"],
            expert_return=row["expert"]["mean"],
            episodes=row["episodes"],
            seed=row["seed"],
            provenance=row["provenance"],
        )
        for task_id, row in json.loads(path.read_text())["references"].items()
        if row["engine_version"] == engine_version
    }
