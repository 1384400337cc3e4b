"""A pruned model as ONNX computes what the masked model does."""

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from prune_filter import L1NormPruner


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
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
