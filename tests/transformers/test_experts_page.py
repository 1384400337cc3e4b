"""The Python on the page about experts runs, and prints what it says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="needs transformers")
pytest.importorskip("prune_blocks", reason="needs prune-blocks")

PAGE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "experts.md"
FENCED = re.compile(r"^```py\n(.*?)^```", re.DOTALL | re.MULTILINE)


def test_the_page_runs_from_top_to_bottom(tmp_path):
    code = "\n".join(FENCED.findall(PAGE.read_text("utf-8")))
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    promised = re.findall(r"^# (.*)$", code, re.MULTILINE)
    assert promised
    assert done.stdout.splitlines()[-len(promised) :] == promised
