from __future__ import annotations

from pathlib import Path

import pytest

from benchmark.cells import CellGroup, glob_matches, parse_cell
from benchmark.matrix import Matrix, load_matrix, matrix_names, select
from benchmark.plans import plan_group
from tasks.common.errors import MatrixError, NothingSelectedError, UnknownNameError, UsageError

GOOD = """\
summary: a test
protocol: smoke
tasks: [mpe/spread-3, "mpe/tag[variant=mpe2]"]
datasets:
  - random
  - exp-m[t_imb=8]
augmenters: [original, "rad-s[low=0.5]"]
learners: [bc]
replicates: 2
exclude:
  - {task: "mpe/tag*", augmenter: rad-s*, reason: too slow}
"""


def write(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


def load(folder: Path, text: str) -> Matrix:
    return load_matrix(write(folder, text))


def test_a_matrix_expands_to_canonical_groups(tmp_path: Path) -> None:
    matrix = load(tmp_path, GOOD)
    groups = matrix.groups()
    assert matrix.tasks == ("mpe/spread", "mpe/tag[variant=mpe2]")
    assert len(groups) == 2 * 2 * 2
    assert groups[0].cell(1).name == "smoke/mpe/spread/random/original/bc/seed-1"
    excluded = [(group.task, group.augmenter) for group in groups if matrix.exclusion_of(group) == "too slow"]
    assert excluded == [("mpe/tag[variant=mpe2]", "rad-s[low=0.5]")] * 2


def test_replicates_may_name_their_seeds(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD.replace("replicates: 2", "replicates: [3, 5]")).seeds == (3, 5)


def test_a_mix_becomes_part_of_the_protocol(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD + "mix: upsample-5\n").protocol == "smoke[mix=upsample-5]"


@pytest.mark.parametrize(
    ("name", "protocol", "shares"),
    [
        ("ins-amounts", "quick[amount_ratio=own,mix=replace,updates=4000]", {None, 0.5, 0.1}),
        ("eaq-little", "quick[amount_ratio=5.0,updates=4000]", {0.03}),
    ],
)
def test_tables_of_small_data_hold_no_cell_that_cannot_be(name: str, protocol: str, shares: set[float | None]) -> None:
    matrix = load_matrix(name)
    plans = [plan_group(group) for group in matrix.groups() if not matrix.exclusion_of(group)]
    assert [plan.unsupported() for plan in plans] == [None] * len(plans)
    kept = {plan.source.request.subsample for plan in plans}
    assert {None if own is None else own.fraction for own in kept} == shares
    assert matrix.protocol == protocol


@pytest.mark.parametrize("name", matrix_names())
def test_shipped_matrices_are_valid(name: str) -> None:
    matrix = load_matrix(name)
    assert matrix.summary
    assert matrix.groups()


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("protocol: smoke", "protocol: [smoke", 3, "not YAML"),
        ("protocol: smoke", "protocol: smoke\n  tasks: x", 3, "not YAML"),
        ("protocol: smoke", "protokol: smoke", 2, "unknown key 'protokol'. Did you mean 'protocol'"),
        ("protocol: smoke\n", "", 1, "'protocol' is missing"),
        ("protocol: smoke", "protocol: smokey", 2, "Did you mean 'smoke'"),
        ("  - random", "  - randon", 5, "Did you mean 'random'"),
        ("  - exp-m[t_imb=8]", "  - exp-m[t_imb]", 6, "not a parameter"),
        ("learners: [bc]", "learners: [bcc]", 8, "Did you mean 'bc'"),
        ("learners: [bc]", "learners: []", 8, "at least 1 item"),
        ("learners: [bc]", "learners: bc", 8, "valid list"),
        ("learners: [bc]", "learners: [bc, bc]", 8, "listed twice"),
        ("learners: [bc]", "learners: [bc]\nlearners: [bc50]", 9, "given twice"),
        ("replicates: 2", "replicates: 0", 9, "replicates"),
        ("replicates: 2", "replicates: two", 9, "replicates"),
        ("replicates: 2", "replicates: [1, 1]", 9, "listed twice"),
        ("reason: too slow", "reazon: too slow", 11, "Did you mean 'reason'"),
        ("replicates: 2", "replicates: 2\nmix: shaken", 10, "no mix"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, old: str, new: str, line: int, message: str) -> None:
    assert old in GOOD
    with pytest.raises(MatrixError) as caught:
        load(tmp_path, GOOD.replace(old, new))
    assert f"mine.yaml, line {line}:" in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just text\n"])
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(MatrixError, match="mapping"):
        load(tmp_path, text)


def test_a_file_that_cannot_be_read_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(b"\xff\xfe\x00bad")
    with pytest.raises(MatrixError, match=r"mine\.yaml"):
        load_matrix(str(tmp_path / "mine.yaml"))
    with pytest.raises(UsageError, match="no matrix file"):
        load_matrix(str(tmp_path / "absent.yaml"))
    with pytest.raises(UnknownNameError, match="'quick'"):
        load_matrix("quickk")


def test_another_protocol_replaces_the_matrix_s(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD).with_protocol("quick[updates=5]").groups()[0].protocol == "quick[updates=5]"


@pytest.fixture
def groups(tmp_path: Path) -> list[CellGroup]:
    return load(tmp_path, GOOD).groups()


def test_patterns_of_one_axis_are_alternatives_and_axes_are_joined(groups: list[CellGroup]) -> None:
    chosen = select(
        groups, ["task=mpe/t*", "augmenter=original", "augmenter=rad-s*", "dataset=exp-m[t_imb=8]", "seed=1"]
    )
    assert [(g.task, g.dataset, g.augmenter, g.seeds) for g in chosen] == [
        ("mpe/tag[variant=mpe2]", "exp-m[t_imb=8]", "original", (1,)),
        ("mpe/tag[variant=mpe2]", "exp-m[t_imb=8]", "rad-s[low=0.5]", (1,)),
    ]
    assert select(groups, []) == groups


def test_selecting_nothing_says_what_there_is(groups: list[CellGroup]) -> None:
    with pytest.raises(NothingSelectedError, match=r"learner: bc"):
        select(groups, ["learner=td3"])
    with pytest.raises(NothingSelectedError, match="seed: 0, 1"):
        select(groups, ["seed=7"])


def test_a_pattern_that_matches_nothing_is_an_error_beside_one_that_does(groups: list[CellGroup]) -> None:
    with pytest.raises(NothingSelectedError, match=r"'augmenter=rads'.*augmenter: original, rad-s\[low=0.5\]"):
        select(groups, ["augmenter=original", "augmenter=rads"])
    with pytest.raises(NothingSelectedError, match=r"'augmenter=rad-s\[\[\]\*'"):  # brackets stand for themselves
        select(groups, ["augmenter=original", "augmenter=rad-s[[]*"])


@pytest.mark.parametrize(
    ("replicates", "message"),
    [
        ("[-1, 0]", "line 9: replicates.*: Input should be greater than or equal to 0"),
        ("1000000000000", "line 9: replicates: Input should be less than or equal to 1000"),
        ("99999999999999999999999", "line 9"),
        ("[99999999999999999999999]", "line 9"),
    ],
)
def test_replicates_that_no_machine_runs_are_refused(tmp_path: Path, replicates: str, message: str) -> None:
    with pytest.raises(MatrixError, match=message):
        load(tmp_path, GOOD.replace("replicates: 2", f"replicates: {replicates}"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("learners: [bc]", "learners: !!python/object/apply:os.system [bc]", "line 8: the tag .* not allowed"),
        ("learners: [bc]", "learners: &a [bc, *a]", r"line 8: \*a is an alias"),
        ("learners: [bc]", "learners: [bc]\n? [a, b]\n: 3", "line 9: a key must be a word"),
        ("learners: [bc]", f"learners: {'[' * 3000}{']' * 3000}", "line 8: more than 20 levels"),
        ("mpe/tag*", "mpe/tagg*", r"line 11: task 'mpe/tagg\*' is none of the matrix's mpe/spread, mpe/tag"),
    ],
)
def test_yaml_that_is_more_than_plain_values_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(MatrixError, match=f"mine.yaml, {message}"):
        load(tmp_path, GOOD.replace(old, new))


def test_a_few_lines_that_stand_for_millions_of_values_are_refused_at_once(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12))]
    with pytest.raises(MatrixError, match="line 2: .* is an alias"):
        load(tmp_path, "\n".join(lines))


@pytest.mark.parametrize(
    ("pattern", "error"), [("bc", UsageError), ("learner=", UsageError), ("lerner=bc", UnknownNameError)]
)
def test_patterns_of_another_form_are_refused(groups: list[CellGroup], pattern: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"axis"):
        select(groups, [pattern])


def test_brackets_in_globs_stand_for_themselves() -> None:
    assert glob_matches("rad-s[low=*]", "rad-s[low=0.5]")
    assert not glob_matches("rad-[sm]", "rad-s")


def test_cell_names_are_read_back() -> None:
    name = "quick[mix=replace]/mpe/tag[variant=mpe2]/exp-m[t_imb=8]/rad-s[low=0.5]/bc/seed-3"
    assert parse_cell(name).name == name
    assert parse_cell("smoke/mpe/spread-3/random/original/bc/seed-0").task == "mpe/spread"


@pytest.mark.parametrize("text", ["", "quick", "quick/mpe/spread/exp/rad-s/bc", "quick/mpe/spread/exp/rad-s/bc/0"])
def test_what_is_no_cell_name_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no cell"):
        parse_cell(text)


def test_unknown_names_in_a_cell_get_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="'rad-s'"):
        parse_cell("quick/mpe/spread/exp/rads/bc/seed-0")
