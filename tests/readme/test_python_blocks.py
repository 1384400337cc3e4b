"""Every Python block in a README or on a page of the documentation runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "packages/*/README.md", "docs/*.md", "docs/reference/*.md")
FENCED = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
BLOCKS = [
    pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}")
    for pattern in PAGES
    for page in sorted(ROOT.glob(pattern))
    for number, block in enumerate(FENCED.findall(page.read_text()), 1)
]


@pytest.mark.parametrize("block", BLOCKS)
def test_it_runs_and_prints_what_its_comments_say(block, tmp_path):
    command = (sys.executable, "-W", "error", "-c", block)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for said in re.findall(r"^# (\[.*)$", block, re.MULTILINE):  # the line after a print
        assert said in done.stdout.splitlines()
