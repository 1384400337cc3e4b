"""The Python on a README or a page of the documentation runs, and prints what the page says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FENCED = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
# The comment lines right after a print are what it prints, perhaps broken to fit the page.
PRINTED = re.compile(r"^ *print\(.*\n((?:# .*\n)+)", re.MULTILINE)


def pages():
    for pattern in ("README.md", "packages/*/README.md", "docs/**/*.md"):
        for page in sorted(ROOT.glob(pattern)):
            if page.parent.name == "gallery":  # run as scripts, by tests/gallery
                continue
            blocks = FENCED.findall(page.read_text())
            if blocks:
                yield pytest.param("\n".join(blocks), id=str(page.relative_to(ROOT)))


@pytest.mark.parametrize("code", list(pages()))
def test_a_page_runs_from_top_to_bottom(code, tmp_path):
    command = (sys.executable, "-W", "error", "-c", code)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    out = " ".join(done.stdout.split())
    for comment in PRINTED.findall(code):
        said = " ".join(comment.replace("# ", " ").split())
        assert said in out
