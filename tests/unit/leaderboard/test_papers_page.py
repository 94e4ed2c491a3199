from __future__ import annotations

import shutil
from pathlib import Path

from factory import Suite, change, write

from leaderboard import site

PUBLISHED = Path(__file__).parents[3] / "results" / "published"


def test_a_printed_return_stands_beside_our_return_and_not_beside_our_score(tmp_path: Path) -> None:
    suite = Suite(tasks=("smac/3m",), datasets=("medium",), learners=("cql",), effects={"original": 0}, seeds=3)
    scored = [
        change(record, scores={**record.scores, "return": mean, "codi": 0.875})
        for record, mean in zip(suite.records(), (13.0, 13.5, 14.5), strict=True)
    ]
    write(scored, tmp_path)
    shutil.copytree(PUBLISHED, tmp_path / "published")
    pages = site.build(tmp_path, tmp_path / "site").index.parent.rglob("published.html")
    (page,) = (path.read_text() for path in pages)
    assert "16.3 ± 0.8" in page  # INS, Tab. 1
    assert ">13.67</td>" in page
    assert ">0.88</td>" not in page
