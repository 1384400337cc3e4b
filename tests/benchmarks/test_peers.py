"""The README's table beside the peers is what the results say."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")


@pytest.fixture
def peers(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import peers

    return peers


def test_the_table_is_not_typed_by_hand():
    command = [sys.executable, "benchmarks/peers.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") > 3
    assert done.stdout in README, "python benchmarks/peers.py --write"


def test_the_better_of_two_methods_stands_there_whoever_it_is(peers, tmp_path, monkeypatch):
    rows = [
        ("l1", 0, 0.5, True),
        ("l1", 1, 0.7, True),
        ("random", 0, 0.2, True),
        ("Torch-Pruning, Taylor", 0, 0.9, True),
    ]
    keys = ("method", "seed", "pruned", "higher_is_better")
    shared = {"task": "A", "size": "half", "metric": "accuracy", "dense": 0.95, "recovered": None}
    file = tmp_path / "results.jsonl"
    lines = [json.dumps({**shared, **dict(zip(keys, row, strict=True))}) for row in rows]
    file.write_text("\n".join(lines))
    monkeypatch.setattr(peers, "RESULTS", file)
    *_, once, again = peers.table().splitlines()
    assert once == "| A, half, accuracy | at once | 0.950 | 0.600 ± 0.100, l1 | 0.900, Taylor |"
    assert again.endswith("| not measured | not measured |")


def test_a_loss_is_better_when_it_is_lower(peers):
    rows = [
        {"method": name, "pruned": value, "higher_is_better": False}
        for name, value in (("l1", 2.0), ("random", 3.0))
    ]
    assert peers.best(rows, "pruned") == "2.000, l1"
