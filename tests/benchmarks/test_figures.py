"""The table of speed and memory is what the scripts have printed, and nothing else."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks/figures"))

import table  # noqa: E402


def test_the_page_shows_the_results():
    assert table.on_page() == table.PAGE.read_text("utf-8"), (
        "python benchmarks/figures/table.py --write"
    )


@pytest.mark.parametrize("row", table.ROWS, ids=lambda row: row.what[:40])
def test_each_row_is_in_what_its_script_printed(row):
    result = table.kept().get(row.script)
    if result is None:
        pytest.skip(f"{row.script}.py was not measured again yet: it takes a quiet machine")
    found = table.figures(row, result["printed"])
    assert all(figure in result["printed"] for figure in found)


def test_a_figure_that_nobody_printed_is_an_error():
    with pytest.raises(LookupError, match="printed nothing like"):
        table.figures(table.ROWS[0], "nothing of the kind")


def test_a_goal_that_is_missed_is_said(monkeypatch):
    kept = {name: dict(each) for name, each in table.kept().items()}
    kept["l1_masks"]["printed"] = "ours / one pass: 1.90 (goal: at most 1.5)"
    monkeypatch.setattr(table, "kept", lambda: kept)
    assert "| 1.90 | 1.5, **missed** |" in table.table()


def test_every_script_is_there():
    assert set(table.COMMANDS) == {row.script for row in table.ROWS}
    for script in table.COMMANDS:
        assert (ROOT / f"benchmarks/{script}.py").exists()
