"""Every pruner of this package keeps what every pruner promises."""

import pytest

from prune_core.registry import entries
from prune_core.testing import MLP, check_pruner, make_batch

CHANNELS, WEIGHTS = {"granularity": "channels"}, {"granularity": "weights"}


def calibrate(model):
    model(make_batch(model, 32)[0])


# A unit may be several channels of a module, and what the model returns is none at all.
COUPLED = CHANNELS | {"config": {"op_names": ["fc1", "fc2"]}, "model": MLP}
ARGUMENTS = {
    "activation_norm": COUPLED,
    "alps": WEIGHTS,
    "channel_obs": COUPLED,
    "flap": COUPLED,
    "ria": WEIGHTS,
    "sparsegpt": WEIGHTS,
    "wanda": WEIGHTS,
}
PRUNERS = [e for e in entries("pruner") if e.plugin.distribution == "prune-oneshot"]


def calibrated(model):
    """The wrapped model of a test has no `input_shape`; its own module has."""
    calibrate(model)


@pytest.mark.parametrize("entry", PRUNERS, ids=lambda entry: entry.name)
def test_it_keeps_what_every_pruner_promises(entry):
    check_pruner(entry.load(), calibrate=calibrated, **ARGUMENTS[entry.name])


@pytest.mark.parametrize("name", ["wanda", "sparsegpt", "alps"])
def test_so_it_does_block_by_block_and_with_reconstruction(name):
    entry = next(entry for entry in PRUNERS if entry.name == name)
    check_pruner(
        entry.load(),
        calibrate=calibrated,
        sequential="layer",
        reconstruct=None if name != "wanda" else "least_squares",
        skip=["parameters"],
        **WEIGHTS,
    )
