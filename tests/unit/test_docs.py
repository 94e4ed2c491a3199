"""Documentation that cannot rot: every name and parameter is in it, and its numbers are those of the shipped files."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from benchmark.matrix import load_matrix
from benchmark.protocols import PROTOCOLS
from benchmark.quality import METRICS
from leaderboard.pages.quality import significant
from methods.augmenters import AUGMENTERS
from methods.learners import LEARNERS
from tasks.datasets.regime_table import REGIMES
from tasks.mamujoco.robots import ROBOTS
from tasks.mamujoco.task import MAMuJoCoTask
from tasks.mpe.task import MPETask
from tasks.registry import TASKS, make_task
from tasks.smac.maps import BATTLES
from tasks.smac.task import SMACTask

ROOT = Path(__file__).parents[2]
LEVELS = ("poor", "medium", "expert")
README = (ROOT / "README.md").read_text()


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text()


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


def estimate(row: dict[str, float], name: str, digits: int = 1) -> str:
    return f"{row[name]:.{digits}f} [{row[f'{name}_low']:.{digits}f}, {row[f'{name}_high']:.{digits}f}]"


def test_the_results_in_the_readme_are_those_of_the_leaderboard() -> None:
    (path,) = (ROOT / "results" / "site").glob("quick--*/leaderboard.json")
    rows = json.loads(path.read_text())["rows"]
    lines = README.splitlines()
    for row in rows:
        place = (row["task"], row["dataset"], row["learner"])
        if row["not_ranked"]:
            continue
        if place == ("all", "all", "all"):
            numbers = (
                f"{row['tier']} | {estimate(row, 'lift')} | {estimate(row, 'iqm')} | {estimate(row, 'improvement', 2)}"
            )
            assert f"| `{row['augmenter']}` | {numbers} |" in lines
        elif "all" not in place[:2] and row["learner"] == "bc" and row["augmenter"] == "original":
            (line,) = (line for line in lines if line.startswith(f"| `{row['task']}` |"))
            assert f" {estimate(row, 'iqm')} |" in line


def test_the_diffusion_results_in_the_readme_are_those_of_their_leaderboard() -> None:
    names = assert_scores_in_the_readme("10000", [(d, n) for d in ("exp-m", "one-expert") for n in ("bc", "bc50")])
    assert len(names) == 11


def assert_scores_in_the_readme(updates: str, places: list[tuple[str, str]]) -> list[str]:
    """A row of each augmenter on the page of that many updates, with a score for each dataset and learner."""
    (path,) = (ROOT / "results" / "site").glob(f"quick-amount_ratio=0.25-updates={updates}---*/leaderboard.json")
    rows = [r for r in json.loads(path.read_text())["rows"] if "all" not in (r["task"], r["dataset"], r["learner"])]
    names = sorted({row["augmenter"] for row in rows})
    for name in names:
        own = {(row["dataset"], row["learner"]): estimate(row, "iqm") for row in rows if row["augmenter"] == name}
        assert f"| `{name}` | {' | '.join(own[place] for place in places)} |" in README.splitlines()
    return names


def test_the_results_of_transitions_in_the_readme_are_those_of_their_leaderboard() -> None:
    learners = ("bc[memory=none]", "cql[memory=none]")
    names = assert_scores_in_the_readme("4000", [("medium", learner) for learner in learners])
    assert names == sorted(load_matrix("transitions").augmenters)


@pytest.mark.parametrize(("dataset", "updates", "count"), [("exp-m", "10000", 9), ("medium", "4000", 8)])
def test_the_qualities_in_the_documentation_are_those_of_the_records(dataset: str, updates: str, count: int) -> None:
    (path,) = (ROOT / "results" / "site").glob(f"quick-amount_ratio=0.25-updates={updates}---*/quality.json")
    header = next(line for line in page("quality").splitlines() if line.startswith(f"| on `{dataset}` | "))
    metrics = [cell.strip(" `") for cell in header.split("|")[2:-1]]
    rows = [row for row in json.loads(path.read_text()) if row["dataset"] == dataset and not row["control"]]
    assert len(rows) == count
    for row in rows:
        numbers = " | ".join(significant(row["means"][metric]) for metric in metrics)
        assert f"| `{row['augmenter']}` | {numbers} |" in page("quality").splitlines()


def test_the_curves_in_the_documentation_are_those_of_the_records() -> None:
    header = next(line for line in page("harness").splitlines() if line.startswith("| task | data | learner | "))
    points = [int(cell.replace(",", "")) for cell in header.split("|")[4:-1]]
    rows = re.findall(r"^\| `(mpe/\w+)` \| `([\w-]+)` \| `(\w+)` \| (.*) \|$", page("harness"), flags=re.MULTILINE)
    assert len(rows) == 3 * 4 * 2
    for task, dataset, learner, shown in rows:
        folder = ROOT / "results/runs/quick" / task.replace("/", "--") / dataset / "original" / learner
        curves = [json.loads(path.read_text())["evaluation"]["curve"] for path in sorted(folder.glob("seed-*.json"))]
        assert len(curves) == 5
        by_updates = [{point["updates"]: point["mean_return"] for point in curve} for curve in curves]
        means = [sum(curve[updates] for curve in by_updates) / len(by_updates) for updates in points]
        assert shown.split(" | ") == [f"{mean:,.0f}" for mean in means]


def scores_of_learners(actions: str) -> dict[tuple[str, str, str], str]:
    """By task, dataset and learner, as the page of that kind of actions has them."""
    (path,) = (ROOT / "results" / "site").glob(f"quick-updates=4000*-{actions}*/leaderboard.json")
    rows = [row for row in json.loads(path.read_text())["rows"] if row["augmenter"] == "original"]
    return {(row["task"], row["dataset"], row["learner"]): estimate(row, "iqm") for row in rows}


@pytest.mark.parametrize(("matrix", "actions"), [("learners-mpe", "continuous"), ("learners-discrete", "discrete")])
def test_the_scores_of_learners_in_the_readme_are_those_of_their_page(matrix: str, actions: str) -> None:
    cells, named = scores_of_learners(actions), load_matrix(matrix)
    for learner in named.learners:
        told = [cells[task, dataset, learner] for task in named.tasks for dataset in named.datasets]
        assert f"| `{learner.partition('[')[0]}` | {' | '.join(told)} |" in README.splitlines()


def test_the_scores_of_other_engines_in_the_readme_are_those_of_their_pages() -> None:
    paths = [
        path
        for engine in ("smax", "mujoco")
        for path in (ROOT / "results" / "site").glob(f"quick-updates=4000---{engine}*/leaderboard.json")
    ]
    rows = [row for path in paths for row in json.loads(path.read_text())["rows"]]
    cells = {(row["task"], row["dataset"], row["learner"], row["augmenter"]): row for row in rows}
    named, tasks = load_matrix("engines"), sorted({row["task"] for row in rows} - {"all"})
    assert tasks == ["mamujoco/4ant", "smac/2s3z", "smac/3m", "smacv2/terran_5_vs_5"]
    for task in tasks:
        recorded = [name for name in named.datasets if (task, name) != ("mamujoco/4ant", "poor")]
        for dataset in recorded:
            own = [row for name in named.learners if (row := cells.get((task, dataset, name, "original")))]
            told = [estimate(row, "iqm") for row in own]
            assert len(told) == 3
            assert f"| `{task}` | `{dataset}` | {' | '.join(told)} |" in README.splitlines()
    (line,) = (line for line in README.splitlines() if line.startswith("Doubling the data by copies"))
    for row in rows:
        if row["augmenter"] == "duplicate" and (row["task"], row["dataset"], row["learner"]) == ("all", "all", "all"):
            assert estimate(row, "lift") in line


def test_the_scores_beside_random_agents_in_the_documentation_are_those_of_their_page() -> None:
    cells, named = scores_of_learners("continuous"), load_matrix("learners-exp-s")
    (line,) = (line for line in page("learners").splitlines() if line.startswith("On `exp-s` of `mpe/spread`"))
    scores = {learner: cells["mpe/spread", "exp-s", learner] for learner in named.learners}
    told = re.findall(r"`([\w-]+)` (-?[\d.]+ \[-?[\d.]+, -?[\d.]+\])", line)
    assert dict(told) == scores
    numbers = [float(text.partition(" ")[0]) for _, text in told]
    assert numbers == sorted(numbers, reverse=True)  # the ordering is what it tells


def test_the_scores_of_variants_in_the_documentation_are_those_of_their_page() -> None:
    cells, named = scores_of_learners("discrete"), load_matrix("learners-variants")
    lines = page("learners").splitlines()
    for learner in named.learners:
        usual = f"{learner.partition('[')[0]}[memory=none]"
        told = [
            cells[task, dataset, which]
            for which in (usual, learner)
            for task in named.tasks
            for dataset in named.datasets
        ]
        assert f"| `{learner}` | {' | '.join(told)} |" in lines
