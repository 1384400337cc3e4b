"""Pages for those who come from elsewhere: both sides run, and print what the page says.

`py` is the other library, and needs it; `python` is ours and runs without (tests/readme).
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

GUIDES = Path(__file__).resolve().parents[2] / "docs/guides"
BLOCK = re.compile(r"^```py(?:thon)?\n(.*?)^```", re.DOTALL | re.MULTILINE)
PRINTED = re.compile(r"^print\(.*\n# (.*)$", re.MULTILINE)


@pytest.mark.parametrize(
    ("page", "needs"),
    [
        ("torch-pruning", "torch_pruning"),
        ("torch-kirigami", "torch_kirigami"),
        ("llm-compressor", "transformers"),
    ],
)
def test_both_sides_print_what_the_page_says(page, needs, tmp_path):
    pytest.importorskip(needs)
    code = "\n".join(BLOCK.findall((GUIDES / f"migrate-from-{page}.md").read_text("utf-8")))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    promised = PRINTED.findall(code)
    assert promised
    assert [line for line in done.stdout.splitlines() if line.strip()] == promised
