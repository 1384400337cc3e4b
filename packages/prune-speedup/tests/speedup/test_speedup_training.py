"""What training needs of a model that has become smaller."""

import torch
from torch import nn

from prune_core.speedup import shrink


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def masks():
    keep = torch.arange(8) >= 4
    return {"0": {"weight": keep[:, None].expand(8, 6), "bias": keep}}


def test_it_trains_while_an_older_loss_is_still_in_scope():
    model, x = net(), torch.randn(5, 6)
    loss = model(x).square().sum()
    loss.backward()
    still_alive = model(x).sum()
    shrink(model, x, masks())
    model.zero_grad()
    model(x).square().sum().backward()
    assert model[0].weight.grad.shape == (4, 6)
    assert still_alive.requires_grad


def test_an_optimizer_made_before_goes_on():
    model, x = net(), torch.randn(5, 6)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    shrink(model, x, masks())
    known = {id(parameter) for parameter in optimizer.param_groups[0]["params"]}
    assert {id(parameter) for parameter in model.parameters()} == known
    before = model(x).detach()
    model(x).square().sum().backward()
    optimizer.step()
    assert not torch.equal(model(x), before)
