"""`examples/quickstart.py`, as a user runs it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "examples/quickstart.py"


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    command = (sys.executable, "-W", "error", SCRIPT)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    done = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def rows(printed):
    """`{name: {column: number}}`."""
    found = re.findall(r"^(\S[^%\n]*?) +([\d.]+)%((?: +[\d.,]+)+)$", printed, re.MULTILINE)
    columns = ("accuracy", "parameters", "masked", "flops", "milliseconds")
    return {
        name: {
            column: float(cell.replace(",", ""))
            for column, cell in zip(columns, (accuracy, *cells.split()), strict=True)
        }
        for name, accuracy, cells in found
    }


def test_the_network_learns_to_read_digits(rows):
    assert rows["dense"]["accuracy"] > 95


def test_what_pruning_costs_fine_tuning_brings_back(rows):
    assert rows["masked, fine-tuned"]["accuracy"] >= rows["masked"]["accuracy"]
    assert rows["masked, fine-tuned"]["accuracy"] > rows["dense"]["accuracy"] - 1


CONV1, CONV2, CONV3 = 32 * 9, 64 * 32 * 9, 128 * 64 * 9
FC1, FC2 = 512 * 128, 128 * 10


def test_half_of_all_layers_but_the_last_is_masked(rows):
    pruned = CONV1 + 32 + CONV2 + 64 + CONV3 + 128 + FC1 + 128
    assert rows["dense"]["parameters"] == pruned + FC2 + 10
    assert rows["dense"]["masked"] == 0
    assert rows["masked"]["masked"] == rows["masked, fine-tuned"]["masked"] == pruned / 2


def test_masks_make_nothing_smaller(rows, printed):
    # two for each multiplication: the weights of a layer times the pixels that it looks at
    flops = 2 * (CONV1 * 64 + CONV2 * 64 + CONV3 * 16 + FC1 + FC2)
    assert {row["flops"] for row in rows.values()} == {flops}
    assert len({row["parameters"] for row in rows.values()}) == 1
    assert "Masks hide weights and make nothing smaller" in printed


def test_latency_is_measured(rows):
    assert all(row["milliseconds"] > 0 for row in rows.values())
