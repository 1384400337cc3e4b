"""What prune-export registers is found, and finding it costs nobody a framework."""

import subprocess
import sys

from prune_core import plugins

LIST_EVERYTHING = """
import sys
import prune_core
prune_core.entries()
import prune_export.hooks
print(sorted({"keras", "tensorflow", "torch"} & set(sys.modules)))
"""


def test_the_plugin_is_sound():
    [plugin] = [plugin for plugin in plugins() if plugin.distribution == "prune-export"]
    assert plugin.error is None


def test_listing_imports_no_framework():
    listed = subprocess.run(
        [sys.executable, "-c", LIST_EVERYTHING], capture_output=True, text=True, check=True
    )
    assert listed.stdout.strip() == "[]"
