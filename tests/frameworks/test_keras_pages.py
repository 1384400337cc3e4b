"""The Python on the pages about Keras runs, and prints what they say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("tensorflow", reason="needs TensorFlow")

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "docs/keras/index.md",
    ROOT / "docs/keras/plugins.md",
    ROOT / "docs/keras/searches.md",
    ROOT / "docs/keras/from-tfmot.md",
    ROOT / "packages/prune-tf/README.md",
]
FENCED = re.compile(r"^```py\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_runs_from_top_to_bottom(page, tmp_path):
    code = "\n".join(FENCED.findall(page.read_text()))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    promised = re.findall(r"^print\(.*\n# (.*)$", code, re.MULTILINE)
    assert promised
    assert done.stdout.splitlines()[-len(promised) :] == promised


def test_the_example_keeps_its_accuracy(tmp_path):
    pytest.importorskip("sklearn", reason="its data come with scikit-learn")
    done = subprocess.run(
        [sys.executable, ROOT / "examples/keras_quickstart.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^(dense|masked|smaller) +([\d.]+)% +([\d,]+)", done.stdout, re.MULTILINE)
    accuracy = {name: float(percent) for name, percent, _ in rows}
    parameters = {name: int(count.replace(",", "")) for name, _, count in rows}
    assert accuracy["dense"] > 95
    assert accuracy["masked"] > accuracy["dense"] - 2
    assert accuracy["smaller"] == accuracy["masked"]
    assert parameters["smaller"] < 0.4 * parameters["dense"]
