"""The recipes in examples/, as a user runs them from another folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples/recipes"


def ran(name, folder):
    command = [sys.executable, "-m", "prune_core", "run", EXAMPLES / f"{name}.yaml"]
    environment = {**os.environ, "COLUMNS": "80"}
    done = subprocess.run(
        [*command, "--output", "run", "--trust"],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    return json.loads((folder / "run/report.json").read_text())


def test_digits(tmp_path):
    report = ran("digits", tmp_path)
    assert report["parameters"]["after"] < 0.5 * report["parameters"]["before"]
    [accuracy] = report["quality"]
    assert accuracy["recovered"] > accuracy["dense"] - 0.05
    assert (tmp_path / "run/exports/model.onnx").is_file()


def test_llama(tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("prune_recover")
    report = ran("llama", tmp_path)
    assert report["parameters"]["after"] < report["parameters"]["before"]
    assert len(report["blocks"]) == 1
    small = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "run/exports/small-llama")
    assert small.config.num_hidden_layers == 3
    assert small.config.intermediate_size == 48
