"""The Python blocks of a README or a page, one after the other, run and print what they say.

A comment under a `print(...)` is what it prints.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATTERNS = (
    "README.md",
    "packages/*/README.md",
    "docs/*.md",
    "docs/reference/*.md",
)
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
PRINTED = re.compile(r"^print\(.*\)\n((?:# .*\n)+)", re.MULTILINE)
SCRIPTS = {
    str(page.relative_to(ROOT)): "\n".join(blocks)
    for pattern in PATTERNS
    for page in sorted(ROOT.glob(pattern))
    if (blocks := BLOCK.findall(page.read_text()))
}


@pytest.mark.parametrize("page", SCRIPTS)
def test_it_runs_and_prints_what_its_comments_say(page, tmp_path):
    command = (sys.executable, "-W", "error", "-c", SCRIPTS[page])
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for comment in PRINTED.findall(SCRIPTS[page]):
        said = "".join(line.removeprefix("# ") for line in comment.splitlines(keepends=True))
        assert said in done.stdout
