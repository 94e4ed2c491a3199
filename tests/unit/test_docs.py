"""Documentation that cannot rot: every name and parameter is in it, and its numbers are those of the shipped files."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import fields

import pytest

from benchmark.protocols import PROTOCOLS
from benchmark.quality import METRICS
from methods.augmenters import AUGMENTERS
from methods.learners import LEARNERS
from tasks.datasets.regime_table import REGIMES
from tasks.mamujoco.robots import ROBOTS
from tasks.mamujoco.task import MAMuJoCoTask
from tasks.mpe.task import MPETask
from tasks.registry import TASKS, make_task
from tasks.smac.maps import BATTLES
from tasks.smac.task import SMACTask
from tests.unit.documents import README, ROOT, page

LEVELS = ("poor", "medium", "expert")


def ours(names: tuple[str, ...], registry: object) -> list[str]:
    return [name for name in names if registry.entry(name).package == "augmarl"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("names", "where"),
    [
        (ours(AUGMENTERS.names(), AUGMENTERS), "augmenters"),
        (ours(LEARNERS.names(), LEARNERS), "learners"),
        (list(REGIMES), "datasets"),
        (ours(TASKS.names(), TASKS), "tasks"),
    ],
    ids=["augmenters", "learners", "datasets", "tasks"],
)
def test_every_name_is_documented(names: list[str], where: str) -> None:
    for name in names:
        assert f"`{name}`" in page(where), f"{name} is missing in docs/{where}.md"
    overview = next(line for line in README.splitlines() if f"(docs/{where}.md)" in line)
    for name in names:
        short = re.sub(r"^mpe/spread(-\d)$", r"\1", name)  # the README lists `-4` and `-5`
        assert f"`{short}`" in overview, f"{name} is missing in the README's table"


@pytest.mark.parametrize(
    ("registry", "where"), [(AUGMENTERS, "augmenters"), (LEARNERS, "learners")], ids=["augmenters", "learners"]
)
def test_every_parameter_is_documented(registry: object, where: str) -> None:
    for name in ours(registry.names(), registry):  # type: ignore[attr-defined]
        for field in fields(registry.load(name).Config):  # type: ignore[attr-defined]
            assert re.search(rf"`{field.name}(=[^`]*)?`", page(where)), f"{name}: `{field.name}` is missing"


def test_every_metric_of_data_is_documented() -> None:
    for name in METRICS:
        assert f"`{name}`" in page("quality")


def test_the_table_of_returns_is_that_of_the_cards() -> None:
    references = json.loads((ROOT / "tasks/mpe/references.json").read_text())["references"]
    for task_id, row in references.items():
        task = make_task(task_id)
        assert isinstance(task, MPETask)
        medium, expert = (
            json.loads(task.checkpoint(level).with_suffix(".json").read_text()) for level in ("medium", "expert")
        )
        line = (
            f"| `{task_id}` | {row['random']['mean']:.1f} | {medium['evaluation']['mean']:.1f} | "
            f"{expert['evaluation']['mean']:.1f} ± {expert['evaluation']['std']:.1f} | {expert['algorithm']} |"
        )
        assert line in page("tasks").splitlines()


def test_the_random_returns_of_battles_are_those_that_were_measured() -> None:
    references = json.loads((ROOT / "tasks/smac/references.json").read_text())["references"]
    assert set(references) == set(BATTLES)
    for task_id, row in references.items():
        random = row["random"]
        assert f"| `{task_id}` | {random['mean']:.2f} ± {random['std']:.2f} |" in page("tasks").splitlines()
        known = make_task(task_id).spec.score_references
        assert known is not None
        assert (known.random_return, known.expert_return) == (random["mean"], 20.0)


def test_the_table_of_battles_is_that_of_the_cards() -> None:
    rows = [line for line in page("tasks").splitlines() if re.match(r"\| `smac.*%", line)]
    shown = {}
    for task in map(make_task, BATTLES):
        assert isinstance(task, SMACTask)
        if task.checkpoint("expert").exists():
            cards = [json.loads(task.checkpoint(level).with_suffix(".json").read_text()) for level in LEVELS]
            told = [card["evaluation"] for card in cards]
            cells = [f"{e['mean']:.1f} ± {e['std']:.1f}, {e['win_rate']:.0%}" for e in told]
            shown[task.spec.id] = f"| `{task.spec.id}` | {' | '.join(cells)} | {cards[-1]['run']['env_steps']:,} |"
    assert rows == list(shown.values())


def test_the_table_of_robots_is_that_of_the_cards() -> None:
    shown = {}
    for task in map(make_task, ROBOTS):
        assert isinstance(task, MAMuJoCoTask)
        if task.checkpoint("expert").exists():
            cards = [json.loads(task.checkpoint(level).with_suffix(".json").read_text()) for level in LEVELS[1:]]
            known = task.spec.score_references
            assert known is not None
            told = " | ".join(f"{c['evaluation']['mean']:,.0f} ± {c['evaluation']['std']:,.0f}" for c in cards)
            steps = f"{cards[-1]['run']['env_steps']:,}"
            shown[task.spec.id] = f"| `{task.spec.id}` | {known.random_return:,.0f} | {told} | {steps} |"
    assert shown.keys() >= {"mamujoco/4ant"}
    assert [line for line in page("tasks").splitlines() if re.match(r"\| `mamujoco.* ± ", line)] == list(shown.values())


def test_the_returns_of_datasets_are_those_that_were_measured_and_their_orderings_hold() -> None:
    lines = page("datasets").splitlines()
    (header,) = (line for line in lines if line.startswith("| task | `good`"))
    regimes = [cell.strip(" `") for cell in header.split("|")[2:-1]]
    paths = sorted((ROOT / "results/datasets").glob("*.json"))
    assert paths
    for path in paths:
        rows = {row["dataset"]: row for row in json.loads(path.read_text())}
        task, digits = next(iter(rows.values()))["task"], 0 if path.stem.startswith("mamujoco") else 1
        cells = []
        for row in (rows.get(name) for name in regimes):
            ends = [] if row is None else [row["mean_return"], *row["mean_interval"]]
            cells.append("{} [{}, {}]".format(*(f"{end:,.{digits}f}" for end in ends)) if ends else "")
        assert f"| `{task}` | {' | '.join(cells)} |" in lines
        for names in (("good", "medium", "poor"), ("exp", "exp-m", "exp-s")):
            intervals = [rows[name]["mean_interval"] for name in names if name in rows]
            assert all(better[0] > worse[1] for better, worse in itertools.pairwise(intervals))


def test_the_budget_of_quick_is_told_as_it_is() -> None:
    quick = PROTOCOLS["quick"]
    assert f"batch {quick.batch_size} for {quick.updates:,} updates" in page("deviations")
    assert f"{quick.dataset_episodes['default']:,} episodes" in page("deviations")
    assert f"| {quick.updates:,}, {quick.batch_size} |" in page("harness")


def test_links_between_pages_lead_somewhere() -> None:
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name} links to {target}, which does not exist"
