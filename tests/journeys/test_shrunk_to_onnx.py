"""A small model as ONNX: the sizes that its forward is corrected by are in the file."""

import onnxruntime
import pytest
import torch
from torch import nn

from prune_core import shrink, units


class Corrected(nn.Module):
    """A convolution under batch norm, and a size written into the source."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.second, self.head = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu().mean((2, 3))
        return self.head(self.second(x).view(-1, 8).relu())


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(6, 16)
        self.layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.layer(self.stem(x)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(("kind", "shape"), [(Corrected, (3, 6, 6)), (Attention, (5, 6))])
def test_onnx_of_any_batch_computes_the_same(kind, shape, tmp_path):
    torch.manual_seed(0)
    model = kind().eval()
    found = units(model, torch.randn(2, *shape))
    chosen = [found.unit(label) for group in found.groups for label in group.labels[::2]]
    report = shrink(model, torch.randn(2, *shape), units=chosen)
    assert report.parameters[1] < 0.6 * report.parameters[0]
    path = str(tmp_path / "small.onnx")
    batch = torch.export.Dim("batch")
    torch.onnx.export(
        model, (torch.randn(2, *shape),), path, dynamic_shapes=({0: batch},), verbose=False
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    x = torch.randn(7, *shape)
    (out,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(out), model(x), rtol=1e-4, atol=1e-5)
