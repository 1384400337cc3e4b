"""News of a package become a section of its changelog."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = sorted(path.parent.name for path in ROOT.glob("packages/*/pyproject.toml"))
DRAFT = (sys.executable, "-m", "towncrier", "build", "--draft", "--version", "1.2.3")


@pytest.mark.parametrize("package", PACKAGES)
def test_the_next_section_can_be_drafted(root, package):
    """A fragment with a misspelt type or name would be left out of it, or stop it."""
    directory = root / "packages" / package
    draft = subprocess.run(DRAFT, cwd=directory, capture_output=True, text=True, check=True).stdout
    assert "## 1.2.3 (" in draft
    for fragment in directory.glob("changelog.d/*.md"):
        first_line = fragment.read_text().partition("\n")[0]
        assert first_line.rstrip().endswith((".", "!", "`")), f"{fragment}: write a full sentence"
        assert first_line.split()[0] in draft
