"""Products in groups, in numbers that torch's own kernel does not take."""

import pytest
import torch

from prune_speedup.torch.record.higher_precision import Wider
from prune_speedup.torch.record.recorder import Recorder


class Grouped(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(3, 16, 8))

    def forward(self, x):
        return torch._grouped_mm(x, self.weight, offs=torch.tensor([3, 3, 10], dtype=torch.int32))


def runs_here():
    try:
        Grouped()(torch.randn(10, 16))
    except NotImplementedError:
        return False
    return True


@pytest.mark.skipif(not runs_here(), reason="this torch multiplies in groups on GPUs alone")
def test_they_are_what_they_are_in_single():
    torch.manual_seed(0)
    model, x = Grouped(), torch.randn(10, 16)
    recorder = Recorder(model, lambda target: True)
    recorder.wide = Wider(torch.float64)
    made = recorder.run(x)
    assert made.dtype == torch.float64
    torch.testing.assert_close(made.float(), model(x))
