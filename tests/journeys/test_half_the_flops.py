"""`benchmarks/half_the_flops.py`, for so short a time that its figures say nothing."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks/half_the_flops.py"
SHORT = "--seeds 1 --trials 6 --step 0.25 --epochs 0.5 --short 0.1 --finetune 0.2 --width 8"


def test_each_way_keeps_to_half_of_the_flops():
    pytest.importorskip("sklearn", reason="the images are scikit-learn's digits")
    pytest.importorskip("stable_baselines3", reason="AMC's agent is that of stable-baselines3")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(SCRIPT), *SHORT.split()],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    left = dict(re.findall(r"^\| ([A-Za-z1, ]+?) \| ([\d.]+) %", done.stdout, re.MULTILINE))
    uniform = ["uniform L1", "uniform L1, tuned longer"]
    assert list(left) == [*uniform, "simulated annealing", "AMC", "NetAdapt"]
    assert all(0 < float(flops) <= 50 for flops in left.values())
