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
    """`{name: [accuracy, parameters, FLOPs, milliseconds]}`."""
    found = re.findall(r"^(\S[^%\n]*?) +([\d.]+)% +([\d,]+) +([\d,]+) +([\d.]+)$", printed, re.M)
    return {name: [float(cell.replace(",", "")) for cell in cells] for name, *cells in found}


def test_the_network_learns_to_read_digits(rows):
    assert rows["dense"][0] > 95


def test_costs_are_counted(rows):
    _, parameters, flops, milliseconds = rows["dense"]
    conv1 = 32 * 9 + 32
    conv2 = 64 * 32 * 9 + 64
    conv3 = 128 * 64 * 9 + 128
    fc1, fc2 = 512 * 128 + 128, 128 * 10 + 10
    assert parameters == conv1 + conv2 + conv3 + fc1 + fc2
    # two for each multiplication: weights of a layer times the pixels that it looks at
    convolutions = 32 * 9 * 64 + 64 * 32 * 9 * 64 + 128 * 64 * 9 * 16
    assert flops == 2 * (convolutions + 512 * 128 + 128 * 10)
    assert milliseconds > 0
