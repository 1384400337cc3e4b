"""Plugins are found in a tree that nobody has installed."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_plugins_are_found_from_their_sources(tmp_path):
    command = [sys.executable, ROOT / "scripts" / "from_source.py", tmp_path / "known"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    paths = printed.strip().removeprefix("export PYTHONPATH=").partition("$")[0].strip("'")
    told = (
        "import prune_core; print(prune_core.__file__);"
        "print(*(p.distribution for p in prune_core.plugins()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", told],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )
    file, found = done.stdout.splitlines()
    assert Path(file).is_relative_to(ROOT / "packages")
    assert set(found.split()) == {p.parent.name for p in ROOT.glob("packages/*/pyproject.toml")}
