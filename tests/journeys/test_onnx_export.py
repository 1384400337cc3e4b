"""A pruned model as ONNX computes what the masked model does."""

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from prune_core import ConfigError, PruneWarning
from prune_filter import L1NormPruner

# torch imports its compiler when an export begins, and that warns of torch's own code.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


def run(path, x):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]


def pruned(model):
    pruner = L1NormPruner(model, [{"op_types": ["default"], "sparsity": 0.5}])
    pruner.compress()
    return pruner


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("wrap", [lambda model: model, nn.DataParallel])
def test_export_model_writes_onnx_for_any_batch_and_prints_nothing(batch, wrap, tmp_path, capfd):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)).eval()
    pruner, path = pruned(wrap(model)), tmp_path / "model.onnx"
    pruner.export_model(tmp_path / "model.pth", onnx_path=path, input_shape=[batch, 1, 8, 8])
    assert capfd.readouterr() == ("", "")
    for size in (1, 2, 5):
        x = torch.randn(size, 1, 8, 8)
        np.testing.assert_allclose(run(path, x), model(x).detach(), rtol=1e-4, atol=1e-5)
    fresh = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)).eval()
    fresh.load_state_dict(torch.load(tmp_path / "model.pth", weights_only=True))
    assert torch.equal(fresh(x), model(x))


class OneBatch(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 6)

    def forward(self, x):
        return self.fc(x).view(3, 6).softmax(0)


def test_a_model_for_one_batch_size_is_exported_for_that_and_says_so(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(OneBatch()).eval()
    pruner, path = pruned(model), tmp_path / "model.onnx"
    with pytest.warns(PruneWarning, match="takes batches of 3 and no others"):
        pruner.export_model(tmp_path / "model.pth", onnx_path=path, input_shape=[3, 4])
    x = torch.randn(3, 4)
    np.testing.assert_allclose(run(path, x), model(x).detach(), rtol=1e-4, atol=1e-5)


def test_what_cannot_be_exported_is_refused_and_nothing_is_written(tmp_path):
    class Numbers(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 6)

        def forward(self, x):
            return self.fc(x) * float(np.asarray(self.fc(x).sum().item()) > 0)

    pruner = pruned(nn.Sequential(Numbers()).eval())
    with pytest.raises(ConfigError, match="torch.onnx.export does not export this Sequential"):
        pruner.export_model(
            tmp_path / "model.pth", onnx_path=tmp_path / "model.onnx", input_shape=[3, 4]
        )
    assert not list(tmp_path.iterdir())


def test_export_model_writes_onnx(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)).eval()
    pruner = L1NormPruner(model, [{"op_types": ["default"], "sparsity": 0.5}])
    pruner.compress()
    pruner.export_model(
        tmp_path / "model.pth",
        mask_path=tmp_path / "masks.pth",
        onnx_path=tmp_path / "model.onnx",
        input_shape=[1, 1, 8, 8],
    )
    x = torch.randn(1, 1, 8, 8)
    session = onnxruntime.InferenceSession(
        str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    (out,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(out, model(x).detach().numpy(), rtol=1e-4, atol=1e-5)
    assert pruner.is_wrapped
