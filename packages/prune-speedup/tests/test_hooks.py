"""What prune-speedup registers is found, and finding it costs nobody a framework."""

import subprocess
import sys

from prune_core import plugins

LIST_EVERYTHING = """
import sys
import prune_core
prune_core.entries()
import prune_speedup.hooks
print(sorted({"keras", "tensorflow", "torch"} & set(sys.modules)))
"""


def test_the_plugin_is_sound():
    [plugin] = [plugin for plugin in plugins() if plugin.distribution == "prune-speedup"]
    assert plugin.error is None


def test_listing_imports_no_framework():
    listed = subprocess.run(
        [sys.executable, "-c", LIST_EVERYTHING], capture_output=True, text=True, check=True
    )
    assert listed.stdout.strip() == "[]"


NEUTRAL = """
import sys
from pathlib import Path
from importlib import import_module
import prune_speedup.engine
for file in Path(prune_speedup.engine.__file__).parent.glob("*.py"):
    import_module(f"prune_speedup.engine.{file.stem}")
import prune_speedup.budget.costs, prune_speedup.budget.ratios
print(sorted({"keras", "tensorflow", "torch"} & set(sys.modules)))
"""


def test_what_every_framework_uses_imports_none():
    done = subprocess.run(
        [sys.executable, "-c", NEUTRAL], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
