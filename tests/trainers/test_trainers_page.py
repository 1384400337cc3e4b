"""The page about trainers runs, and prints what it says.

It has a test of its own, since these libraries warn of each other.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs/guides/trainers.md"
PRINTED = re.compile(r"^print\(.*\n((?:# .*\n)+)", re.MULTILINE)


def test_the_page_runs(tmp_path):
    for needed in ("transformers", "accelerate", "lightning"):
        pytest.importorskip(needed)
    blocks = re.findall(r"^```py\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 4
    code = "\n".join(blocks)
    done = subprocess.run(
        (sys.executable, "-W", "ignore", "-c", code),
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for comment in PRINTED.findall(code):
        assert comment.removeprefix("# ").strip() in lines
    # What TensorBoard would be told.
    assert {"sparsity/0 0.25", "sparsity/total 0.25"} <= set(lines)
