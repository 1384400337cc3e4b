"""Every pruner keeps what every pruner promises; and one that does not is found out."""

import numpy as np
import pytest

from prune_core.testing import check_pruner
from prune_tf import (
    ActivationAPoZRankPruner,
    FPGMPruner,
    L1NormPruner,
    LevelPruner,
    SlimPruner,
)
from prune_tf.testing import convolutional, make_batch

DATA = make_batch(convolutional())[0]


@pytest.mark.parametrize(
    ("pruner", "options"),
    [
        (L1NormPruner, {"granularity": "channels"}),
        (LevelPruner, {"granularity": "weights"}),
        (FPGMPruner, {"granularity": "channels"}),
        (ActivationAPoZRankPruner, {"data": [DATA], "config": {"op_types": ["Conv2D"]}}),
        (SlimPruner, {"skip": ["sparsity"]}),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_promises_are_kept(pruner, options):
    check_pruner(pruner, sparsities=[0.3, 0.5], **options)


class Careless(L1NormPruner):
    """Forgets in compress() what it has masked, and starts from other numbers each time."""

    def scores(self):
        return {
            name: np.random.default_rng().random(s.shape) for name, s in super().scores().items()
        }

    def compress(self):
        model, masks = super().compress()
        return model, {name: {**m, "kernel": ~m["kernel"]} for name, m in masks.items()}


def test_broken_promises_are_told():
    with pytest.raises(AssertionError) as told:
        check_pruner(Careless, sparsities=[0.3])
    said = str(told.value)
    assert (
        "masks: the mask of conv1 kernel that compress() returned is not the one in force" in said
    )
    assert "determinism: two runs with the same seed make different masks" in said
    assert "training: after training, conv1 kernel is not zero where masked" in said


def test_names_of_checks_are_checked():
    with pytest.raises(ValueError, match="no check 'deepcopy'; the checks are capabilities"):
        check_pruner(L1NormPruner, skip=["deepcopy"])
