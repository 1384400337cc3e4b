"""`prune inspect` on models that a folder holds."""

import json
import subprocess
import sys

import pytest

MODELS = """
import torch
from torch import nn

def convolutions():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))

def words():
    return nn.Sequential(nn.Embedding(10, 6), nn.Linear(6, 8), nn.Linear(8, 2))

number = 3
def broken():
    raise RuntimeError("no weights here")
def not_a_model():
    return 3
"""


@pytest.fixture
def prune(tmp_path):
    (tmp_path / "zoo.py").write_text(MODELS)

    def run(*arguments):
        command = (sys.executable, "-m", "prune_core", "inspect", *arguments)
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    return run


def test_a_tree(prune):
    done = prune("zoo:convolutions", "--input", "1,3,16,16")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "0.weight[0]: 8 units"
    assert "2.weight axis 1 of 8, 1 index each" in done.stdout


def test_json_and_whole_numbers(prune):
    done = prune("zoo:words", "-i", "2,5:int64", "--json")
    assert done.returncode == 0, done.stderr
    groups = {group["name"]: group for group in json.loads(done.stdout)["groups"]}
    assert groups["1.weight[0]"]["units"] == 8
    assert {"tensor": "2.weight", "axis": 1} in groups["1.weight[0]"]["axes"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("zoo", "-i", "1"), "'package.module:attribute'"),
        (("zoo:convolution", "-i", "1"), "'convolution'"),
        (("zoo:broken", "-i", "1"), "made no model: RuntimeError: no weights here"),
        (("zoo:not_a_model", "-i", "1"), "made a int, which is no torch module"),
        (("zoo:number", "-i", "1"), "made no model"),
        (("nowhere:x", "-i", "1"), "nowhere"),
        (("zoo:convolutions",), "Say the shape of an input of the model"),
        (("small.keras",), "small.keras"),
        (("zoo:convolutions", "-i", "1x3"), "--input is '1x3'; it must be a shape such as"),
        (("zoo:convolutions", "-i", "1,3,8,8:float23"), "no such type"),
        (("zoo:convolutions", "-i", "1,4,8,8"), "does not run on inputs of these shapes"),
    ],
)
def test_mistakes_end_in_one_sentence(prune, arguments, says):
    done = prune(*arguments)
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_without_torch_it_says_what_is_missing(tmp_path):
    (tmp_path / "zoo.py").write_text(MODELS)
    start = (
        "import sys; sys.modules['torch'] = None; sys.argv[0] = 'prune';"
        "from prune_core.cli import main; main()"
    )
    command = (sys.executable, "-c", start, "inspect", "zoo:convolutions", "-i", "1,3,8,8")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "`pip install 'prune-speedup[torch]'`" in done.stderr
    assert "Traceback" not in done.stderr
