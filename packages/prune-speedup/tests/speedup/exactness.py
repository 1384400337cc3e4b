"""Shrink a network, and compare it in float64 with a masked copy; the engine's proof aside."""

import copy
import random

import torch
from torch import nn

from prune_core.speedup import shrink
from prune_speedup.torch import units


def realistic(model, seed=0):
    """Statistics and affine parameters such as training leaves them."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.double().eval()


def choose(found, share, seed):
    """About this share of the units of every group."""
    pick = random.Random(seed)
    return [
        found.unit(label)
        for group in found.groups
        for label in pick.sample(group.labels, int(len(group) * share))
    ]


def masked_like(model, chosen):
    """A copy of the model with the slices of the units at zero."""
    masked = copy.deepcopy(model)
    named = dict(masked.named_parameters())
    with torch.no_grad():
        for unit in chosen:
            for name, axes in unit.slices.items():
                for axis, indices in axes.items():
                    # A direction of zero length is no number; its length alone masks it.
                    if name in named and not name.endswith("weight.original1"):
                        named[name].index_fill_(axis, torch.tensor(indices), 0)
    return masked


def check(model, *inputs, share=0.5, seed=0, least=0.3, others=()):
    """Shrink, and compare with the masked copy on these inputs and on others."""
    model = realistic(model, seed)
    example = inputs[0] if len(inputs) == 1 else inputs
    found = units(model, example)
    chosen = choose(found, share, seed)
    masked = masked_like(model, chosen)
    before = sum(p.numel() for p in model.parameters())
    report = shrink(model, example, units=chosen)
    with torch.no_grad():
        for given_ in (inputs, *others):
            torch.testing.assert_close(model(*given_), masked(*given_), rtol=1e-9, atol=1e-9)
    removed = 1 - sum(p.numel() for p in model.parameters()) / before
    assert removed >= least, removed
    return report


def image(batch=2, channels=3, size=8):
    return torch.rand(batch, channels, size, size, dtype=torch.float64)
