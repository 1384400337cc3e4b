"""What prune-filter registers can be found, described and imported."""

import subprocess
import sys

import pytest

import prune_core
import prune_filter
from prune_core import BasicPruner
from prune_core.registry import entries

PRUNERS = [e for e in entries("pruner") if e.plugin.distribution == "prune-filter"]
IMPORT_LIGHTLY = """
import sys
import prune_filter
dir(prune_filter)
print(sorted({"numpy", "torch"} & set(sys.modules)))
"""


@pytest.mark.parametrize("entry", PRUNERS, ids=lambda entry: entry.name)
def test_each_pruner_says_what_it_is(entry):
    reference = entry.reference
    assert reference.summary.endswith(".")
    assert reference.prunes
    assert reference.paper.startswith("https://arxiv.org/abs/")
    pruner = entry.load()
    assert issubclass(pruner, BasicPruner)
    assert pruner.__doc__
    assert getattr(prune_filter, pruner.__name__) is pruner


def test_the_names_of_the_predecessor_are_there():
    names = {entry.name for entry in PRUNERS}
    assert names >= {"level", "l1", "l2", "fpgm", "slim", "apoz", "mean_activation", "taylorfo"}


@pytest.mark.parametrize("kind", ["collector", "metric"])
def test_each_part_can_be_imported(kind):
    parts = [e for e in entries(kind) if e.plugin.distribution == "prune-filter"]
    assert parts
    for part in parts:
        assert part.reference.summary
        part.load()


@pytest.mark.parametrize("name", prune_filter.__all__)
def test_everything_public_is_there(name):
    assert getattr(prune_filter, name) is not None


def test_an_attribute_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'L3NormPruner'"):
        _ = prune_filter.L3NormPruner


@pytest.mark.parametrize(
    ("new", "old"),
    [
        ("L1NormPruner", "L1FilterPruner"),
        ("L2NormPruner", "L2FilterPruner"),
        ("ActivationAPoZRankPruner", "ActivationAPoZRankFilterPruner"),
        ("ActivationMeanRankPruner", "ActivationMeanRankFilterPruner"),
        ("TaylorFOWeightPruner", "TaylorFOWeightFilterPruner"),
    ],
)
def test_both_generations_of_names_mean_the_same(new, old):
    assert issubclass(getattr(prune_filter, old), getattr(prune_filter, new))


def test_importing_the_package_imports_no_torch():
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_LIGHTLY], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_one_line_prunes_by_name():
    from torch import nn

    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    _, masks = prune_core.prune(model, "l1", sparsity=0.5, exclude="1")
    assert int(masks["0"]["bias"].sum()) == 4
    assert list(masks) == ["0"]
