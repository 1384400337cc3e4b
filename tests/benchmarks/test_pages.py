"""Pages of measurements are what their scripts make of the results, to the last letter."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "name",
    ["real-models", "quantised-models", "exports", "configs", "speedup-zoo", "whole-call"],
)
def test_nothing_on_a_page_is_typed_by_hand(name):
    code = "import pages, sys; sys.stdout.write(pages.text_of(pages.PAGES[sys.argv[1]]))"
    done = subprocess.run(
        [sys.executable, "-c", code, name],
        cwd=ROOT / "benchmarks", capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == (ROOT / f"docs/{name}.md").read_text("utf-8")


def test_the_list_says_what_there_is():
    command = [sys.executable, "benchmarks/pages.py", "list"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "real-models: docs/real-models.md, in hours" in done.stdout
