from __future__ import annotations

import math

import numpy as np
import pytest
from factory import Suite, change, make_record, with_status

from benchmark.records import Artefacts, CellId, RunRecord, Status
from leaderboard.scores import (
    BoardKey,
    Cell,
    Selection,
    comparison_grid,
    group,
    is_control,
    run_score,
    score_matrix,
)
from tasks.common.errors import RecordError

SUITE = Suite(noise=0.0, seeds=2)
EVERYTHING = Selection()


def pick(records: list[RunRecord], augmenter: str, seed: int = 0, learner: str = "bc") -> int:
    """The index of one run, in the first task and dataset."""
    return next(
        index
        for index, record in enumerate(records)
        if (record.cell.augmenter, record.cell.seed, record.cell.learner) == (augmenter, seed, learner)
    )


def matrix_of(records: list[RunRecord], augmenter: str) -> np.ndarray:
    (board,) = group(records)
    return score_matrix(board, augmenter, comparison_grid(board, EVERYTHING)).scores


def test_rows_are_seeds_and_columns_are_cells() -> None:
    (board,) = group(SUITE.records())
    matrix = score_matrix(board, "rad-s", comparison_grid(board, EVERYTHING))
    assert matrix.grid.cells[:3] == (
        Cell("mpe/spread", "exp", "bc"),
        Cell("mpe/spread", "exp", "bc50"),
        Cell("mpe/spread", "exp-m", "bc"),
    )
    np.testing.assert_array_equal(matrix.scores, [[28.0] * 4 + [33.0] * 4] * 2)
    np.testing.assert_array_equal(matrix.strata, [0, 0, 1, 1, 2, 2, 3, 3])  # learners share augmented sets
    assert matrix.without_policy == 0


def test_the_order_of_records_does_not_matter() -> None:
    records = Suite().records()
    np.testing.assert_array_equal(matrix_of(records, "rad-s"), matrix_of(records[::-1], "rad-s"))


def test_a_hole_is_refused_with_its_place() -> None:
    records = SUITE.records()
    del records[pick(records, "rad-s", seed=1, learner="bc50")]
    with pytest.raises(RecordError, match=r"1 of 16 runs are missing \(first: mpe/spread / exp / bc50, seed 1\)"):
        matrix_of(records, "rad-s")


@pytest.mark.parametrize("score", [math.nan, math.inf, None])
def test_a_score_that_is_no_number_is_refused_with_its_place(score: float | None) -> None:
    records = SUITE.records()
    index = pick(records, "rad-s")
    records[index] = change(records[index], scores={} if score is None else {"normalised": score})
    with pytest.raises(RecordError, match="quick/mpe/spread/exp/rad-s/bc/seed-0 has status ok and no finite"):
        matrix_of(records, "rad-s")


@pytest.mark.parametrize("status", ["failed", "timeout", "oom", "diverged"])
def test_a_run_without_policy_counts_as_the_random_policy(status: Status) -> None:
    records = SUITE.records()
    index = pick(records, "rad-s")
    records[index] = with_status(records[index], status)
    (board,) = group(records)
    matrix = score_matrix(board, "rad-s", comparison_grid(board, EVERYTHING))
    assert matrix.scores[0, 0] == 0.0
    assert matrix.without_policy == 1
    assert matrix.scores[1, 0] == 28.0


def test_failing_never_pays_below_the_random_policy() -> None:
    failed = make_record(
        CellId(protocol="quick", task="t", dataset="d", augmenter="a", learner="l", seed=0), score=None, status="oom"
    )
    assert run_score(failed, [-30.0, 10.0]) == -30.0
    assert run_score(failed, [10.0]) == 0.0
    assert run_score(failed, []) == 0.0


def test_an_unsupported_run_is_refused_with_its_reason() -> None:
    records = SUITE.records()
    index = pick(records, "rad-s")
    records[index] = with_status(records[index], "unsupported")
    with pytest.raises(RecordError, match="mpe/spread / exp / bc is unsupported: loss became NaN"):
        matrix_of(records, "rad-s")


def test_protocols_engines_and_variants_never_share_a_board() -> None:
    record = SUITE.records()[0]
    other = [
        change(record, cell=record.cell.model_copy(update={"protocol": "paper"})),
        change(record, engine="mpe2"),
        change(record, engine_version="2"),
        change(record, variant="omar+discrete"),
        change(record, cell=record.cell.model_copy(update={"task": "mpe/spread[prey=scripted]"})),
    ]
    assert len(group([record, *other])) == 6


def test_a_choice_of_one_task_only_does_not_split_a_board() -> None:
    spread, tag = SUITE.records()[0], change(SUITE.records()[-1], variant="omar+continuous+prey=pretrained")
    assert BoardKey.of(spread) == BoardKey.of(tag)


@pytest.mark.parametrize(
    ("field", "value"),
    [("protocol_settings", {"updates": 1}), ("team_reward", "mean"), ("variant", "omar+continuous+a=1")],
)
def test_mixed_settings_within_a_task_are_refused(field: str, value: object) -> None:
    records = SUITE.records()
    records[3] = change(records[3], **{field: value})
    with pytest.raises(RecordError, match=f"quick/mpe/spread/exp/.*/seed-1 differ in {field}"):
        group(records)


def test_the_compute_of_diffusion_models_is_compared_among_those_that_have_one() -> None:
    records = SUITE.records()
    settings, place = records[0].protocol_settings, [pick(records, "rad-s", seed=seed) for seed in (0, 1)]
    for index, width in zip(place, (32, 32), strict=True):
        records[index] = change(records[index], protocol_settings={**settings, "diffusion": {"width": width}})
    assert group(records)
    records[place[1]] = change(records[place[1]], protocol_settings={**settings, "diffusion": {"width": 8}})
    with pytest.raises(RecordError, match="seed-1 differ in protocol_settings"):
        group(records)


def test_two_records_of_one_run_are_refused() -> None:
    records = SUITE.records()
    with pytest.raises(RecordError, match="seed-0 has two records"):
        group([*records, records[0]])


def test_configs_are_not_mixed() -> None:
    """As when a rule labelled some replicates and a language model the others."""
    records = SUITE.records()
    index = pick(records, "rad-s", seed=1)
    method = records[index].augmenter
    assert method is not None
    records[index] = change(records[index], augmenter=method.model_copy(update={"config": {"oracle": "llm"}}))
    with pytest.raises(RecordError, match=r"several makes of rad-s.* with oracle=llm in .*rad-s/bc/seed-1"):
        matrix_of(records, "rad-s")


def test_versions_are_not_mixed() -> None:
    records = SUITE.records()
    index = pick(records, "rad-s", seed=1)
    method = records[index].augmenter
    assert method is not None
    records[index] = change(records[index], augmenter=method.model_copy(update={"version": 2}))
    with pytest.raises(RecordError, match=r"version 1.* in .*rad-s/bc/seed-0, version 2.* in .*rad-s/bc/seed-1"):
        matrix_of(records, "rad-s")


def test_a_learner_must_be_the_one_the_baseline_had() -> None:
    records = SUITE.records()
    index = pick(records, "rad-s", seed=1)
    method = records[index].learner
    assert method is not None
    records[index] = change(records[index], learner=method.model_copy(update={"config": {"lr": 9.0}}))
    with pytest.raises(RecordError, match="seed-1: learner"):
        matrix_of(records, "rad-s")
    assert matrix_of(records, "duplicate").shape == (2, 8)


def test_seeds_that_share_an_augmented_set_are_no_replicates() -> None:
    records = [
        change(record, artefacts=Artefacts(dataset="d", augmented=f"one-{record.cell.augmenter}"))
        for record in SUITE.records()
    ]
    with pytest.raises(RecordError, match="seeds 0 and 1 share one augmented set"):
        matrix_of(records, "rad-s")
    assert matrix_of(records, "duplicate").shape == (2, 8)  # nothing random in it: one set is right


def test_the_grid_is_what_the_baseline_has() -> None:
    records = [
        record
        for record in SUITE.records()
        if not (record.cell.augmenter == "original" and record.cell.task == "mpe/tag" and record.cell.seed == 1)
    ]
    (board,) = group(records)
    grid = comparison_grid(board, EVERYTHING)
    assert grid.seeds == (0,)
    assert grid.notes[0].startswith("mpe/spread / exp / bc: seeds 1 are left out")
    assert comparison_grid(board, Selection(task="mpe/spread")).seeds == (0, 1)
    without = [record for record in records if record.cell.augmenter != "original"]
    (board,) = group(without)
    grid = comparison_grid(board, EVERYTHING)
    assert grid.cells == ()
    with pytest.raises(RecordError, match="`original` has no seed"):
        score_matrix(board, "rad-s", grid)


def test_controls_are_known_with_their_parameters() -> None:
    assert is_control("noise[sigma=0.1]")
    assert is_control("more-real-data")
    assert not is_control("rad-s")
