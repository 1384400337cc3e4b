"""The Python on the pages about models of transformers runs, and prints what they say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="needs transformers")

GUIDES = Path(__file__).resolve().parents[2] / "docs" / "guides"
FENCED = re.compile(r"^```py\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", ["transformers", "drop-layers"])
def test_a_page_runs_from_top_to_bottom(page, tmp_path):
    code = "\n".join(FENCED.findall((GUIDES / f"{page}.md").read_text("utf-8")))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    promised = re.findall(r"^ *print\(.*\n# (.*)$", code, re.MULTILINE)
    assert promised
    assert done.stdout.splitlines()[-len(promised) :] == promised
