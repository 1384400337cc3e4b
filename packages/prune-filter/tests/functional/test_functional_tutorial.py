"""The journey of PyTorch's pruning tutorial, with only the import changed."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import prune_core.functional as prune


class LeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), (2, 2))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = x.view(-1, int(x.nelement() / x.shape[0]))
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


class FooBarPruningMethod(prune.BasePruningMethod):
    PRUNING_TYPE = "unstructured"

    def compute_mask(self, t, default_mask):
        mask = default_mask.clone()
        mask.view(-1)[::2] = 0
        return mask


def foobar_unstructured(module, name):
    FooBarPruningMethod.apply(module, name)
    return module


def names_of(pairs):
    return [name for name, _ in pairs]


def test_one_module_step_by_step():
    model = LeNet()
    module = model.conv1
    values = module.weight.detach().clone()

    returned = prune.random_unstructured(module, name="weight", amount=0.3)
    assert repr(returned) == "Conv2d(1, 6, kernel_size=(5, 5), stride=(1, 1))"
    assert names_of(module.named_parameters()) == ["bias", "weight_orig"]
    assert torch.equal(module.weight_orig, values)
    assert names_of(module.named_buffers()) == ["weight_mask"]
    assert module.weight_mask.dtype == torch.float32
    assert int((module.weight_mask == 0).sum()) == 45
    assert torch.equal(module.weight, values * module.weight_mask)
    assert "grad_fn=<MulBackward0>" in repr(module.weight)
    assert "RandomUnstructured object" in repr(module._forward_pre_hooks)

    prune.l1_unstructured(module, name="bias", amount=3)
    assert names_of(module.named_parameters()) == ["weight_orig", "bias_orig"]
    assert names_of(module.named_buffers()) == ["weight_mask", "bias_mask"]
    assert int((module.bias == 0).sum()) == 3
    assert [type(h).__name__ for h in module._forward_pre_hooks.values()] == [
        "RandomUnstructured",
        "L1Unstructured",
    ]

    before = module.weight_mask.clone()
    prune.ln_structured(module, name="weight", amount=0.5, n=2, dim=0)
    gone = (module.weight_mask == 0).flatten(1).all(dim=1)
    assert int(gone.sum()) == 3
    assert torch.equal(module.weight_mask[~gone], before[~gone])
    for hook in module._forward_pre_hooks.values():
        if hook._tensor_name == "weight":
            break
    assert isinstance(hook, prune.PruningContainer)
    assert [type(m) for m in hook] == [prune.RandomUnstructured, prune.LnStructured]

    assert list(model.state_dict())[:4] == [
        "conv1.weight_orig",
        "conv1.bias_orig",
        "conv1.weight_mask",
        "conv1.bias_mask",
    ]

    masked = module.weight.detach().clone()
    prune.remove(module, "weight")
    assert names_of(module.named_parameters()) == ["bias_orig", "weight"]
    assert names_of(module.named_buffers()) == ["bias_mask"]
    assert torch.equal(module.weight, masked)


def test_many_modules():
    model = LeNet()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            prune.l1_unstructured(module, name="weight", amount=0.2)
        elif isinstance(module, nn.Linear):
            prune.l1_unstructured(module, name="weight", amount=0.4)
    assert list(dict(model.named_buffers())) == [
        f"{layer}.weight_mask" for layer in ("conv1", "conv2", "fc1", "fc2", "fc3")
    ]
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, 10)


def test_globally():
    model = LeNet()
    layers = (model.conv1, model.conv2, model.fc1, model.fc2, model.fc3)
    prune.global_unstructured(
        tuple((layer, "weight") for layer in layers),
        pruning_method=prune.L1Unstructured,
        amount=0.2,
    )
    zeros = sum(int((layer.weight == 0).sum()) for layer in layers)
    assert zeros / sum(layer.weight.nelement() for layer in layers) == pytest.approx(0.2, abs=1e-5)


def test_a_method_of_ones_own():
    model = LeNet()
    foobar_unstructured(model.fc3, name="bias")
    assert model.fc3.bias_mask.tolist() == [0, 1] * 5
    foobar_unstructured(model.fc3, name="bias")
    assert model.fc3.bias_mask.tolist() == [0, 0, 0, 1, 0, 0, 0, 1, 0, 0]
