from __future__ import annotations

from pathlib import Path

import pytest

from leaderboard.published import DIFFERENCES, PAPERS, matching, read_published, score_like
from leaderboard.scores import Cell
from tasks.common.errors import DataError

RESULTS = Path(__file__).parents[3] / "results"


@pytest.fixture(scope="module")
def values() -> list:
    return read_published(RESULTS)


def test_all_result_tables_are_read(values: list) -> None:
    assert len(values) == 1443
    assert {value.paper for value in values} == set(PAPERS) == set(DIFFERENCES)


def test_printed_values_are_found_under_our_names(values: list) -> None:
    (found,) = matching(values, [(Cell("mpe/spread", "exp-m", "bc"), "original")])
    assert (found.paper, found.table, found.mean, found.spread, found.spread_kind) == (
        "madits",
        "1",
        "17.27",
        "3.66",
        "stderr",
    )
    (tag,) = matching(values, [(Cell("mpe/tag", "exp-s", "bc"), "madits")])
    assert tag.cell.task == "mpe/tag"  # printed as pp
    assert matching(values, [(Cell("mpe/spread", "medium-replay", "omar"), "original")])  # printed as md-replay


def test_parameters_of_ours_do_not_hide_a_paper(values: list) -> None:
    ours = [(Cell("mpe/spread[actions=discrete]", "one-expert", "bc"), "codi[guidance=2]")]
    assert [value.paper for value in matching(values, ours)] == ["codi"]


def test_a_share_of_the_data_is_another_dataset(values: list) -> None:
    def means(dataset: str, learner: str, augmenter: str, task: str = "smac/3m") -> list[str]:
        return [value.mean for value in matching(values, [(Cell(task, dataset, learner), augmenter)])]

    assert means("medium[fraction=0.03]", "qmix-cql@eaq", "eaq") == ["13.70"]
    assert not means("medium", "qmix-cql", "eaq")  # EAQ never had all of the data
    assert means("good[fraction=0.1]", "icq@ins[memory=none]", "ins[amount=50000]") == ["18.0"]
    assert means("good[fraction=0.5]", "icq@ins[memory=none]", "ins") == ["19.3"]
    assert not means("good[fraction=0.1]", "icq", "original")
    assert means("good", "icq", "ins") == ["19.9", "19.9"]  # Table 1, and Table A2 again


def test_an_engine_family_is_part_of_the_task(values: list) -> None:
    assert not matching(values, [(Cell("mpe/3m", "good", "icq"), "original")])
    assert matching(values, [(Cell("smac/3m", "good", "icq"), "original")])


def test_ours_stand_beside_a_printed_value_on_its_scale(values: list) -> None:
    def scales(paper: str, family: str) -> set[str]:
        own = [value for value in values if (value.paper, value.cell.task.partition("/")[0]) == (paper, family)]
        return {score_like(value) for value in own}

    assert scales("codi", "smac") == scales("codi", "mpe") == {"codi"}
    assert scales("madits", "mpe") == {"madits", "return"}  # its Table 6 prints returns
    assert scales("madits", "smac") == {"win_rate"}
    assert scales("eaq", "smac") == scales("ins", "smac") == {"return"}


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    table = (RESULTS / "published" / "codi_table1.csv").read_text().replace(",0.21,", ",o.21,", 1)
    path = tmp_path / "published" / "codi_table1.csv"
    path.parent.mkdir()
    path.write_text(table)
    with pytest.raises(DataError, match=str(path)):
        read_published(tmp_path)


def test_without_tables_there_is_nothing(tmp_path: Path) -> None:
    assert read_published(tmp_path) == []
