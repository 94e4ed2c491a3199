from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from factory import Suite, change, make_record, with_status, write, write_raw

from benchmark.records import CellId, RunRecord
from leaderboard import site
from leaderboard.pages.cells import cell_rows
from leaderboard.pages.context import number
from leaderboard.pages.curves import board_curves
from leaderboard.pages.figures import colours, line_styles
from leaderboard.scores import group
from tasks.common.errors import NothingSelectedError, RecordError, StorageError, UsageError

SMALL = Suite(datasets=("exp",), seeds=3)


def build(records: list[RunRecord], folder: Path, name: str = "site") -> Path:
    """The board's folder of a site built from these records."""
    built = site.build(write(records, folder), folder / name)
    (board,) = built.boards
    return folder / name / board.key.slug


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    records = SMALL.records()
    records[5] = with_status(records[5], "diverged")  # mpe/spread, original, bc50, seed 2
    return build(records, tmp_path_factory.mktemp("results"))


class Outline(HTMLParser):
    """Tags, attributes and the cells of every table row."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self._in_cell = False
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.rows[-1][-1] += data


def test_the_whole_table_is_in_the_html(pages: Path) -> None:
    rows = Outline(pages / "index.html").rows
    assert rows[0][:3] == ["Augmenter", "Tier", "Lift over original"]
    assert [row[0].split()[0] for row in rows[1:]] == ["more-real-data", "original", "duplicate", "rad-s"]
    original = rows[2]
    assert original[2] == "0.0 [0.0, 0.0]"
    assert original[4] == "3"  # n
    assert "control" in original[0]
    assert "control" not in rows[4][0]


def test_pages_ask_for_nothing_outside_the_site(pages: Path) -> None:
    for page in [*pages.glob("*.html"), pages.parent / "index.html"]:
        for tag, attributes in Outline(page).tags:
            for name in ("src", "href", "xlink:href", "action", "data", "srcset"):
                target = attributes.get(name) or ""
                assert not re.match(r"(?:[a-z]+:)?//", target), (page.name, tag, target)
                if name in ("src", "href") and target and not target.startswith(("#", "data:")):
                    assert (page.parent / target).is_file(), (page.name, target)
    assert not re.search(r"@import|url\(", (pages.parent / "style.css").read_text())
    assert not re.search(r"fetch\(|XMLHttpRequest|import\(|innerHTML", (pages.parent / "tables.js").read_text())


def test_every_choice_of_the_filters_is_embedded(pages: Path) -> None:
    text = (pages / "index.html").read_text()
    match = re.search(r'<script type="application/json" id="views">(.*?)</script>', text, re.DOTALL)
    assert match is not None
    views = json.loads(match[1])
    assert len(views) == 3 * 2 * 3
    assert views['["mpe/tag","exp","bc"]']["cells"] == 1
    assert {len(row["cells"]) for view in views.values() for row in view["rows"]} == {12}


def test_csv_and_json_carry_the_same_rows(pages: Path) -> None:
    rows = list(csv.DictReader((pages / "leaderboard.csv").read_text().splitlines()))
    document = json.loads((pages / "leaderboard.json").read_text())
    assert len(rows) == len(document["rows"]) == 18 * 4
    first = rows[0]
    assert (first["task"], first["augmenter"], first["control"], first["tier"]) == (
        "all",
        "more-real-data",
        "True",
        "1",
    )
    assert float(first["lift"]) == document["rows"][0]["lift"] == pytest.approx(20, abs=8)
    cells = list(csv.DictReader((pages / "cells.csv").read_text().splitlines()))
    assert len(cells) == 2 * 2 * 4
    assert cells[0]["policy_seconds"] == "10.0"  # 50 seconds of 5 seeds together


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    records = SMALL.records()[:24]
    build(records[::-1], tmp_path, "one")
    build(records, tmp_path, "two")
    one, two = (
        {p.relative_to(r): p.read_bytes() for p in r.rglob("*") if p.is_file()}
        for r in (tmp_path / "one", tmp_path / "two")
    )
    assert one.keys() == two.keys()
    assert [path for path in one if one[path] != two[path]] == []


def test_failed_runs_are_rows_with_reasons(pages: Path) -> None:
    rows = Outline(pages / "failures.html").rows
    assert len(rows) == 2
    assert rows[1][0] == "quick/mpe/spread/exp/original/bc50/seed-2"
    assert rows[1][1:4] == ["diverged", "policy", "loss became NaN"]
    status = [
        row
        for row in Outline(pages / "cells.html").rows
        if row[:4] == ["mpe/spread", "exp", "bc50", "original control"]
    ]
    assert "1 diverged" in status[0][7]
    assert "2 ok" in status[0][7]


def test_names_are_escaped_everywhere(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>&\"'$x_1$"
    records = Suite(effects={"original": 0, evil: 1}, tasks=("mpe/spread",), datasets=(evil,), seeds=2).records()
    records.append(with_status(make_record(records[0].cell.model_copy(update={"seed": 9})), "failed"))
    for index, record in enumerate(records):
        write_raw(change(record, quality={"similarity": 0.5}), tmp_path / "runs" / f"seed-{index}.json")
    built = site.build(tmp_path, tmp_path / "site")
    texts = [page.read_text() for page in built.index.parent.rglob("*.html")]
    assert len(texts) == 8
    for text in texts:
        assert "<script>alert" not in text
        assert len(re.findall("<script", text)) == len(re.findall("</script>", text)) <= 2
    assert sum("&lt;script&gt;alert(1)" in text for text in texts) == 7  # all but the published numbers


def test_engines_and_protocols_have_a_page_each(tmp_path: Path) -> None:
    tiny = Suite(tasks=("mpe/spread",), datasets=("exp",), learners=("bc",), seeds=2)
    others = (
        Suite(**{**vars(tiny), "protocol": "paper"}),
        Suite(**{**vars(tiny), "tasks": ("mpe/spread[variant=mpe2]",), "variant": "mpe2+continuous"}),
    )
    built = site.build(write([r for s in (tiny, *others) for r in s.records()], tmp_path), tmp_path / "site")
    assert [board.key.slug for board in built.boards] == [
        "paper--mpe-batched-1--omar-continuous",
        "quick--mpe-batched-1--mpe2-continuous--variant=mpe2",
        "quick--mpe-batched-1--omar-continuous",
    ]
    front = built.index.read_text()
    assert all(f'href="{board.key.slug}/index.html"' in front for board in built.boards)


def test_smoke_is_never_published(tmp_path: Path) -> None:
    smoke = Suite(**{**vars(SMALL), "protocol": "smoke"}).records()
    write(smoke[:8], tmp_path)
    with pytest.raises(NothingSelectedError, match="Skipped 8 records of protocol smoke"):
        site.build(tmp_path, tmp_path / "site")
    assert not (tmp_path / "site").exists()
    write(SMALL.records()[:8], tmp_path)
    built = site.build(tmp_path, tmp_path / "site")
    assert [board.key.protocol for board in built.boards] == ["quick"]
    assert "Skipped 8 records of protocol smoke" in built.index.read_text()


def test_a_damaged_record_stops_the_build_and_keeps_the_old_site(tmp_path: Path) -> None:
    build(SMALL.records()[:8], tmp_path)
    before = (tmp_path / "site" / "index.html").read_bytes()
    path = next((tmp_path / "runs").rglob("seed-0.json"))
    path.write_text(path.read_text()[:100])
    with pytest.raises(RecordError, match=re.escape(str(path))):
        site.build(tmp_path, tmp_path / "site")
    assert (tmp_path / "site" / "index.html").read_bytes() == before


def test_a_folder_of_somebody_else_is_not_replaced(tmp_path: Path) -> None:
    write(SMALL.records()[:8], tmp_path)
    mine = tmp_path / "documents" / "thesis.tex"
    mine.parent.mkdir()
    mine.write_text("years of work")
    with pytest.raises(UsageError, match="is no site of ours"):
        site.build(tmp_path, mine.parent)
    assert mine.read_text() == "years of work"


def test_a_site_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(SMALL.records()[:8], tmp_path)
    before = (tmp_path / "site" / "index.html").read_bytes()
    rename = Path.rename

    def full_disk(self: Path, target: Path) -> Path:
        if self.name == "site" and self.parent != tmp_path:
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", full_disk)
    with pytest.raises(StorageError, match=r"No space left on device\. The old one stays"):
        site.build(tmp_path, tmp_path / "site")
    assert (tmp_path / "site" / "index.html").read_bytes() == before


def test_a_rebuilt_site_has_no_leftovers(tmp_path: Path) -> None:
    build(SMALL.records()[:8], tmp_path)
    (tmp_path / "site" / "stale.html").write_text("old")
    site.build(tmp_path, tmp_path / "site")
    assert not (tmp_path / "site" / "stale.html").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_one_replicate_is_shown_without_interval(tmp_path: Path) -> None:
    folder = build(Suite(**{**vars(SMALL), "seeds": 1}).records(), tmp_path)
    rows = Outline(folder / "index.html").rows[1:]
    assert {row[1] for row in rows} == {"–"}
    assert not any("[" in cell for row in rows for cell in row)


def test_curves_show_whether_learning_has_flattened() -> None:
    (board,) = group(SMALL.records())
    curve = board_curves(board)[0]
    assert curve.returns.shape == (3, 6)
    # 1 − 2^−k at k = 5 and, interpolated, at 3.75: (0.96875 − 0.921875) / 0.96875 = 4.84%
    assert curve.late_change == pytest.approx(4.8387, abs=1e-3)
    # 1000 higher, the same rise is a smaller part of the final return, and of a negative one it is still a rise
    raised, lowered = (replace(curve, returns=curve.returns + shift) for shift in (1000.0, -1000.0))
    assert raised.late_change == pytest.approx(
        4.8387 * curve.returns[:, -1].mean() / raised.returns[:, -1].mean(), abs=1e-3
    )
    assert lowered.late_change is not None
    assert lowered.late_change > 0


def test_cells_say_n_lift_and_command() -> None:
    (board,) = group(Suite(noise=0.0, seeds=3).records())
    row = next(row for row in cell_rows(board) if row.augmenter == "rad-s")
    assert row.n == 3
    assert row.mean is not None
    assert row.lift is not None
    assert (row.mean.value, row.lift.value) == (28.0, -12.0)
    assert row.seconds == {"dataset": 2.0, "augmented": 1.5, "policy": 10.0, "evaluation": 4.0}
    assert row.command == (
        "bench run --matrix quick --only task=mpe/spread --only dataset=exp --only augmenter=rad-s --only learner=bc"
    )


def test_numbers_have_a_minus_sign_and_no_negative_zero() -> None:
    assert [number(v) for v in (-1.25, -0.04, 0.0, None)] == ["−1.2", "0.0", "0.0", "–"]


def test_a_cell_outside_every_matrix_has_a_command_too(tmp_path: Path) -> None:
    from leaderboard.reproduce import run_command
    from leaderboard.scores import Cell

    command = run_command("quick", Cell("mpe/spread", "exp-m[t_imb=4]", "bc"), "rad-s", [0, 1])
    assert command.endswith("> cell.yaml && bench run --matrix cell.yaml")
    assert "'datasets: [\"exp-m[t_imb=4]\"]'" in command
    assert "'replicates: [0, 1]'" in command


def test_a_run_of_an_unknown_engine_gets_its_own_page() -> None:
    record = make_record(
        CellId(protocol="quick", task="smac/3m", dataset="good", augmenter="original", learner="bc", seed=0)
    )
    (board,) = group([record])
    assert board.key.slug == "quick--mpe-batched-1--omar-continuous"


def test_augmenters_of_one_colour_have_different_lines() -> None:
    names = [*(f"method-{i:02}" for i in range(20)), "duplicate", "original"]
    shades, lines = colours(names), line_styles(names)
    assert len({(shades[name], lines[name]) for name in names}) == len(names)
    assert {lines["duplicate"], lines["original"]} == {"--"}
