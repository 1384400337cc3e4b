"""The page about a pitch tracker runs, where torchcrepe and time are there (two CPU minutes)."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs/guides/speech.md"


@pytest.mark.skipif("PRUNE_TEST_LONG" not in os.environ, reason="long; set PRUNE_TEST_LONG=1")
def test_the_page_runs_and_is_as_good_as_it_says(tmp_path):
    pytest.importorskip("torchcrepe")
    text = PAGE.read_text()
    code = "\n".join(re.findall(r"^```py\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = [float(line) for line in done.stdout.splitlines() if re.fullmatch(r"[01]\.\d{3}", line)]
    said = [float(value) for value in re.findall(r"^# ([01]\.\d{3})$", code, re.MULTILINE)]
    assert len(said) == 3
    assert found == pytest.approx(said, abs=0.02)
