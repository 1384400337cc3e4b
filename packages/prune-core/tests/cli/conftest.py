"""An installed plugin to look at: a `dist-info` folder and two modules, in a temporary folder."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

METADATA = "Name: acme-prune\nVersion: 1.2\n"
ENTRY_POINTS = "[prune_core.plugins]\nacme = acme_hooks\n"
HOOKS = """
from prune_core import Reference, hookimpl

@hookimpl
def prune_register_pruners():
    return {
        "spread": Reference(
            "acme_algorithm:SpreadPruner",
            summary="Prunes the channels whose weights differ least.",
            prunes="output channels",
            paper="https://example.org/spread",
        )
    }
"""
ALGORITHM = '''
raise SystemExit("prune must not import me")

class Base:
    config_keys = (Key("patience", whole, "How long to wait before a channel goes."),)
    granularity: ClassVar[str] = "channels"
    modes = ("normal", "global")
    needs_data = True

    def __init__(self, model, config_list: list[dict], *, mode: str = "normal"):
        pass

class SpreadPruner(Base):
    """Prune the channels whose weights differ least.

    Example:
        ```python
        SpreadPruner(model, config_list).compress()
        ```
    """
'''


@pytest.fixture
def acme(tmp_path):
    """The plugin's folder; `acme.add(hooks)` appends to its hooks module."""
    (tmp_path / "acme_prune-1.2.dist-info").mkdir()
    (tmp_path / "acme_prune-1.2.dist-info" / "METADATA").write_text(METADATA)
    (tmp_path / "acme_prune-1.2.dist-info" / "entry_points.txt").write_text(ENTRY_POINTS)
    (tmp_path / "acme_hooks.py").write_text(HOOKS)
    (tmp_path / "acme_algorithm.py").write_text(ALGORITHM)

    def add(text):
        (tmp_path / "acme_hooks.py").write_text(HOOKS + text)

    return SimpleNamespace(folder=tmp_path, add=add)


@pytest.fixture
def prune(acme):
    """A function that runs `python -m prune_core` in a process that sees the plugin."""

    def call(*arguments, cwd: Path | None = None, **variables):
        path = os.pathsep.join(filter(None, [str(acme.folder), os.environ.get("PYTHONPATH")]))
        return subprocess.run(
            [sys.executable, "-m", "prune_core", *arguments],
            capture_output=True,
            text=True,
            cwd=cwd,
            check=False,
            timeout=60,
            env={**os.environ, "PYTHONPATH": path, "NO_COLOR": "1", "COLUMNS": "80", **variables},
        )

    return call
