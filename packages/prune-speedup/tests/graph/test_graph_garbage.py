import gc

import pytest
import torch
from torch import nn

from prune_core import ConfigError, shrink, units
from prune_speedup.gc_pause import collecting_later


@pytest.fixture
def collector():
    yield
    gc.enable()


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_left_as_it_was(collector, enabled):
    (gc.enable if enabled else gc.disable)()
    with pytest.raises(RuntimeError, match="False"), collecting_later():
        raise RuntimeError(gc.isenabled())
    assert gc.isenabled() is enabled


def test_it_waits_only_while_the_model_is_worked_on():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    seen = []
    model[1].register_forward_hook(lambda *_: seen.append(gc.isenabled()))
    x = torch.randn(3, 4)
    found = units(model, x)
    shrink(model, x, units=[next(iter(found))])
    with pytest.raises(ConfigError):
        units(model, torch.randn(3, 5))
    assert seen
    assert not any(seen)
    assert gc.isenabled()
