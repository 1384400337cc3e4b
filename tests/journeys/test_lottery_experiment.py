"""`examples/lottery_mnist.py` on small images, and what it leaves on a second run."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "examples/lottery_mnist.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("lottery")


def run(folder):
    quick = ("--digits", "--seeds", "2", "--rounds", "4", "--sparsity", "0.9", "--epochs", "20")
    command = (sys.executable, "-W", "error", SCRIPT, *quick)
    options = ("--control-every", "4", "--out", folder)
    done = subprocess.run((*command, *options), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def printed(folder):
    return run(folder)


def test_tickets_keep_up_and_controls_fall_behind(printed, folder):
    with (folder / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * (5 + 1 + 1)
    mean = {}
    for row in rows:
        mean.setdefault((row["arm"], int(row["round"])), []).append(float(row["end_accuracy"]))
    mean = {key: sum(values) / len(values) for key, values in mean.items()}
    assert mean["ticket", 0] > 0.94
    assert mean["ticket", 4] > mean["reinit", 4]
    assert mean["ticket", 4] > mean["random_mask", 4] + 0.01
    assert {row["sparsity"] for row in rows if row["round"] == "4"} == {"0.9000"}


def test_curves_begin_at_the_beginning_and_end_at_the_end(printed, folder):
    with (folder / "curves.csv").open(newline="") as file:
        steps = {int(row["iteration"]) for row in csv.DictReader(file)}
    assert {0, 20 * (1147 // 60)} <= steps


def test_a_second_run_trains_nothing_and_writes_the_same(printed, folder):
    before = (folder / "summary.csv").read_bytes()
    assert "test accuracy" not in run(folder)
    assert (folder / "summary.csv").read_bytes() == before
