"""What prune-oneshot registers can be found, described and imported."""

import subprocess
import sys

import pytest

import prune_oneshot
from prune_core import BasicPruner
from prune_core.registry import entries

PRUNERS = [e for e in entries("pruner") if e.plugin.distribution == "prune-oneshot"]
IMPORT_LIGHTLY = """
import sys
import prune_oneshot
dir(prune_oneshot)
print(sorted({"numpy", "torch"} & set(sys.modules)))
"""


def test_the_names():
    assert {entry.name for entry in PRUNERS} == {
        *("wanda", "ria", "sparsegpt", "alps", "activation_norm", "flap", "channel_obs")
    }


@pytest.mark.parametrize("entry", PRUNERS, ids=lambda entry: entry.name)
def test_each_pruner_says_what_it_is(entry):
    reference = entry.reference
    assert reference.summary.endswith(".")
    assert reference.prunes in ("single weights", "output channels")
    assert reference.paper.startswith("https://")
    pruner = entry.load()
    assert issubclass(pruner, BasicPruner)
    assert pruner.__doc__
    assert getattr(prune_oneshot, pruner.__name__) is pruner


def test_each_metric_can_be_imported():
    parts = [e for e in entries("metric") if e.plugin.distribution == "prune-oneshot"]
    assert {part.name for part in parts} == {"wanda", "ria"}
    for part in parts:
        part.load()


def test_an_attribute_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'WandaPrunner'"):
        _ = prune_oneshot.WandaPrunner


def test_importing_the_package_imports_no_torch():
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_LIGHTLY], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
