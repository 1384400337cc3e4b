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
    assert rows["small, fine-tuned"]["accuracy"] >= rows["small"]["accuracy"]
    assert rows["small, fine-tuned"]["accuracy"] > rows["dense"]["accuracy"] - 1


def weights(conv1, conv2, conv3, fc1, fc2=10):
    """Return the weights of each layer, for its number of outputs."""
    return 9 * conv1, conv1 * 9 * conv2, conv2 * 9 * conv3, conv3 * 2 * 2 * fc1, fc1 * fc2


DENSE, SMALL = (32, 64, 128, 128), (16, 32, 64, 64)
PIXELS = (64, 64, 16, 1, 1)  # at which the weights of each layer are used


def parameters(channels):
    return sum(weights(*channels)) + sum(channels) + 10


def flops(channels):
    return 2 * sum(w * pixels for w, pixels in zip(weights(*channels), PIXELS, strict=True))


def test_masks_hide_half_of_all_layers_but_the_last_and_make_nothing_smaller(rows, printed):
    pruned = parameters(DENSE) - weights(*DENSE)[-1] - 10
    assert (rows["dense"]["masked"], rows["masked"]["masked"]) == (0, pruned / 2)
    for name in ("dense", "masked"):
        assert rows[name]["parameters"] == parameters(DENSE)
        assert rows[name]["flops"] == flops(DENSE)
    assert "Masks hide weights and make nothing smaller" in printed


def test_the_small_network_has_half_of_the_channels(rows):
    for name in ("small", "small, fine-tuned"):
        assert rows[name]["parameters"] == parameters(SMALL)
        assert rows[name]["flops"] == flops(SMALL)
        assert rows[name]["masked"] == 0


def test_the_small_network_computes_what_the_masked_one_does(rows, printed):
    assert rows["small"]["accuracy"] == rows["masked"]["accuracy"]
    assert float(re.search(r"differ by (\S+) at most", printed)[1]) < 1e-4


def test_the_small_network_is_faster(rows):
    assert 0 < rows["small"]["milliseconds"] < rows["dense"]["milliseconds"]
