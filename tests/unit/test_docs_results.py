"""Results in the documentation are those of the records: every table is compared with the committed pages."""

from __future__ import annotations

import itertools
import json
import math
import re
from typing import Any

import pytest

from benchmark.matrix import load_matrix
from leaderboard.pages.quality import significant
from tests.unit.documents import README, ROOT, page

RESULTS = page("results").splitlines()


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


def test_the_results_of_diffusion_are_those_of_their_leaderboard() -> None:
    places = [(dataset, learner) for dataset in ("exp-m", "one-expert") for learner in ("bc", "bc50")]
    assert len(assert_scores_are_told("amount_ratio=0.25-updates=10000---particle", places)) == 11


@pytest.mark.parametrize(
    ("engine", "datasets", "conservative"),
    [
        ("particle", ("medium", "exp-m"), "cql[memory=none]"),
        ("smax", ("medium", "poor"), "cql[critic_hidden=128,memory=none]"),
    ],
)
def test_the_results_of_transitions_are_those_of_their_leaderboard(
    engine: str, datasets: tuple[str, ...], conservative: str
) -> None:
    places = [(dataset, learner) for dataset in datasets for learner in ("bc[memory=none]", conservative)]
    names = assert_scores_are_told(f"amount_ratio=0.25-updates=4000---{engine}", places)
    assert names == sorted(load_matrix("transitions").augmenters)


def test_the_results_of_synthetic_data_alone_are_those_of_their_leaderboard() -> None:
    places = [("exp-m", learner) for learner in ("bc[memory=none]", "cql[memory=none]")]
    names = assert_scores_are_told("amount_ratio=1.0-mix=replace-updates=4000---particle", places)
    assert names == sorted(load_matrix("transitions-replaced").augmenters)


def test_the_results_of_what_ins_compares_alone_are_those_of_their_leaderboards() -> None:
    boards = (("particle", "medium", "cql[memory=none]"), ("smax", "poor", "cql[critic_hidden=128,memory=none]"))
    cells = {}
    for engine, dataset, _ in boards:
        rows = rows_of(f"amount_ratio=1.0-mix=replace-updates=4000---{engine}")
        for row in rows:
            if row["dataset"] == dataset:
                cells[engine, row["learner"], row["augmenter"]] = estimate(row, "iqm")
        assert {row["augmenter"] for row in rows if row["dataset"] == dataset} == {"original", "synther", "ins"}
    for name in ("original", "synther", "ins"):
        told = [cells[engine, learner, name] for engine, _, last in boards for learner in ("bc[memory=none]", last)]
        assert f"| `{name}` | {' | '.join(told)} |" in RESULTS


def test_where_the_targets_stand_is_told_as_it_was_measured() -> None:
    folder, taken = ROOT / "results" / "timings", []
    for names in (("20261130T052236Z", "20261130T052355Z"), ("20261130T222509Z",)):
        documents = [json.loads((folder / f"{name}-cpu.json").read_text()) for name in names]
        assert all(f"{name}-cpu.json" in page("timing") for name in names)
        taken.append({m["name"]: m for document in documents for m in document["measurements"] if m["target"]})
    assert taken[0].keys() == taken[1].keys()
    for name, one in taken[0].items():
        target = f"{one['comparison']} {one['target']:g} {one['unit']}"
        row = f"| `{name}` | {target} | {one['value']:.3g} | {taken[1][name]['value']:.3g} |"
        assert row in page("timing").splitlines()


def test_what_is_learned_from_little_is_told_as_it_was_recorded() -> None:
    rows = rows_of("amount_ratio=5.0-updates=4000---smax")
    assert sorted(row["augmenter"] for row in rows) == ["eaq", "eaq-noq", "original"]
    for row in rows:
        assert f"| `{row['augmenter']}` | {estimate(row, 'iqm')} | {estimate(row, 'lift')} |" in RESULTS
    assert all(row["lift_low"] <= 0 <= row["lift_high"] for row in rows)  # undecided, as the text has it


def test_how_few_data_ins_needs_is_told_as_it_was_recorded() -> None:
    cells = {
        (row["dataset"], row["augmenter"]): row
        for row in rows_of("amount_ratio=own-mix=replace-updates=4000---particle")
    }
    for name in ("original", "ins[amount=50000]"):
        told = [estimate(cells[f"expert{share}", name], "iqm") for share in ("[fraction=0.1]", "[fraction=0.5]", "")]
        assert f"| `{name}` | {' | '.join(told)} |" in RESULTS


def test_how_more_of_stitching_harms_is_told_as_it_was_recorded() -> None:
    rows = {
        row["learner"]: row for row in rows_of("amount_ratio=1.0-updates=4000---particle") if row["augmenter"] == "mbts"
    }
    bc, cql = (estimate(rows[learner], "lift") for learner in ("bc[memory=none]", "cql[memory=none]"))
    (line,) = (line for line in RESULTS if line.startswith("| MADiTS, Tab. 1, `spread` `exp-m`"))
    assert f"(`amount_ratio=1.0`): {bc}, and `cql` {cql} |" in line


def rows_of(board: str) -> list[dict[str, Any]]:
    """The cells of the page of a budget and an engine."""
    (path,) = (ROOT / "results" / "site").glob(f"quick-{board}*/leaderboard.json")
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"]
    return [row for row in rows if "all" not in (row["task"], row["dataset"], row["learner"])]


def assert_scores_are_told(board: str, places: list[tuple[str, str]]) -> list[str]:
    """A row of each augmenter on the page of that budget and engine, with a score for each dataset and learner."""
    datasets = {dataset for dataset, _ in places}
    rows = [row for row in rows_of(board) if row["dataset"] in datasets]
    names = sorted({row["augmenter"] for row in rows})
    for name in names:
        own = {(row["dataset"], row["learner"]): estimate(row, "iqm") for row in rows if row["augmenter"] == name}
        assert f"| `{name}` | {' | '.join(own[place] for place in places)} |" in RESULTS
    return names


@pytest.mark.parametrize(
    ("header", "board", "dataset", "count"),
    [
        ("on `exp-m`", "updates=10000---particle", "exp-m", 9),
        ("on `medium`, matrix `transitions`", "updates=4000---particle", "medium", 8),
        ("on `exp-m`, matrix `transitions`", "updates=4000---particle", "exp-m", 8),
        ("on `medium` of `3m`", "updates=4000---smax", "medium", 8),
        ("on `poor` of `3m`", "updates=4000---smax", "poor", 8),
    ],
)
def test_the_qualities_in_the_documentation_are_those_of_the_records(
    header: str, board: str, dataset: str, count: int
) -> None:
    (path,) = (ROOT / "results" / "site").glob(f"quick-amount_ratio=0.25-{board}*/quality.json")
    columns = next(line for line in page("quality").splitlines() if line.startswith(f"| {header} | "))
    metrics = [cell.strip(" `") for cell in columns.split("|")[2:-1]]
    rows = [row for row in json.loads(path.read_text()) if row["dataset"] == dataset and not row["control"]]
    assert len(rows) == count
    for row in rows:
        numbers = " | ".join(significant(row["means"][metric]) for metric in metrics)
        assert f"| `{row['augmenter']}` | {numbers} |" in page("quality").splitlines()


def test_what_whole_episodes_claim_is_told_as_the_records_have_it() -> None:
    both, found = ("eaq", "eaq-noq"), {}
    for dataset, name in itertools.product(("medium", "poor"), both):
        cells = ROOT / "results/runs/quick[amount_ratio=0.25,updates=4000]/smac--3m" / dataset / name
        records = [json.loads(path.read_text()) for path in sorted(cells.glob("bc*/seed-*.json"))]
        assert len(records) == 3
        found[dataset, name] = [
            {
                **record["quality_details"]["mean_return"],
                "claims": record["quality"]["mean_return"],
                "marked": record["augmenter_diagnosis"]["generation"]["marked_share"],
            }
            for record in records
        ]

    def between(dataset: str, names: tuple[str, ...], key: str) -> str:
        values = [one[key] for name in names for one in found[dataset, name]]
        return f"{min(values):.1f} to {max(values):.1f}"

    text = page("quality").replace("\n", " ")
    (real, of_medium) = (found[dataset, "eaq"][0] for dataset in ("poor", "medium"))
    assert f"last {real['original_mean_length']:.1f} steps and return {real['original']:.1f}" in text
    assert f"they last {between('poor', both, 'mean_length')} and claim {between('poor', both, 'claims')};" in text
    shares = [one["marked"] for name in both for one in found["poor", name]]
    assert f"{min(shares):.0%}"[:-1] + f" to {max(shares):.0%} mark their end" in text
    assert f"claims more than {max(one['max'] for name in both for one in found['poor', name]):.1f}," in text
    assert f"`eaq` claims {between('medium', ('eaq',), 'claims')}" in text
    assert f"`eaq-noq` {between('medium', ('eaq-noq',), 'claims')}, the data {of_medium['original']:.1f}" in text


def test_how_often_attention_is_one_agent_alone_is_told_as_the_records_have_it() -> None:
    most = {}
    for task in ("mpe--spread", "smac--3m"):
        paths = list((ROOT / "results/runs/quick[amount_ratio=0.25,updates=4000]" / task).glob("*/ins/*/seed-*.json"))
        assert len(paths) == 2 * 2 * 3
        told = [json.loads(path.read_text())["augmenter_diagnosis"]["attention_one_hot"] for path in paths]
        most[task] = math.ceil(100 * max(told))
    assert f"at most {most['mpe--spread']}% of its rows are one agent\nalone" in page("quality")
    assert f"on battles at most {most['smac--3m']}%" in page("quality")


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
def test_the_scores_of_learners_are_those_of_their_page(matrix: str, actions: str) -> None:
    cells, named = scores_of_learners(actions), load_matrix(matrix)
    for learner in named.learners:
        told = [cells[task, dataset, learner] for task in named.tasks for dataset in named.datasets]
        assert f"| `{learner.partition('[')[0]}` | {' | '.join(told)} |" in RESULTS


def test_the_scores_of_other_engines_are_those_of_their_pages() -> None:
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
            assert f"| `{task}` | `{dataset}` | {' | '.join(told)} |" in RESULTS
    (line,) = (line for line in RESULTS if line.startswith("Doubling the data by copies"))
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


def test_the_runs_that_the_overview_counts_are_recorded() -> None:
    rows = [line for line in RESULTS if re.match(r"\| `[\w-]+`(, `[\w-]+`)* \| \d+ \|", line)]
    assert len(rows) >= 5
    for line in rows:
        names, count = line.split("|")[1:3]
        groups = [group for name in re.findall(r"`([\w-]+)`", names) for group in load_matrix(name).groups()]
        recorded = {cell for group in groups for cell in group.cells if cell.path(ROOT / "results").exists()}
        assert len(recorded) == int(count), f"{names}: {len(recorded)} records"


def test_what_a_longer_fit_changes_is_told_as_it_was_recorded() -> None:
    columns = next(line for line in RESULTS if line.startswith("| alone on `exp-m` | "))
    shown = [cell.strip(" `") for cell in columns.split("|")[2:-1]]
    rows = [
        found for line in RESULTS if (found := re.match(r"\| `(ins.*|synther)`, ([\d,]+) updates \| (.*) \|", line))
    ]
    assert {found[1] for found in rows} == {"ins", "ins[agent_ids=always]", "synther"}
    for found in rows:
        budget = "" if found[2] == "2,000" else f"transition_updates={found[2].replace(',', '')},"
        folder = (
            ROOT / f"results/runs/quick[amount_ratio=1.0,mix=replace,{budget}updates=4000]/mpe--spread/exp-m" / found[1]
        )
        told = []
        for name in shown:
            learner = name if name in ("bc", "cql") else "bc"
            records = [
                json.loads(p.read_text()) for p in sorted((folder / f"{learner}[memory=none]").glob("seed-*.json"))
            ]
            assert len(records) == 3
            if name == learner:
                told.append(f"{sum(record['scores']['normalised'] for record in records) / 3:.1f}")
            else:
                values = [record["quality"][name] for record in records]
                told.append(significant(None if None in values else sum(values) / 3))
        assert found[3] == " | ".join(told)
