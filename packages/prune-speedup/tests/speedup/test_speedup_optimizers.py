"""An optimizer that was made before the model became smaller goes on with it."""

import copy
import gc

import pytest
import torch
from torch import nn
from torch.optim.optimizer import _global_optimizer_pre_hooks

import prune_core
from prune_core import SpeedupError, masked_state_dict, shrink, shrink_optimizer
from prune_core.masking import PrunerModuleWrapper

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
GONE = torch.tensor([1, 4, 5])


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


def step(model, optimizer):
    optimizer.zero_grad()
    model(X).square().sum().backward()
    optimizer.step()


OPTIMIZERS = {
    "momentum": lambda p: torch.optim.SGD(p, 0.01, momentum=0.9, weight_decay=0.01),
    "adam": lambda p: torch.optim.Adam(p, 0.01),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01, amsgrad=True),
    "one by one": lambda p: torch.optim.Adam(p, 0.01, foreach=False),
    "fused": lambda p: torch.optim.AdamW(p, 0.01, fused=True),
    "rprop": lambda p: torch.optim.Rprop(p, 0.01),
    "adadelta": lambda p: torch.optim.Adadelta(p),
    "nadam": lambda p: torch.optim.NAdam(p, 0.01),
    "asgd": lambda p: torch.optim.ASGD(p, 0.01),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_small_model_is_trained_on_as_the_masked_one_is(name):
    """What stays has the momentum that it had, so both go the same way."""
    masked = net()
    keep = torch.ones(8, dtype=torch.bool).index_fill(0, GONE, False)
    mask = {"weight": keep[:, None].expand(8, 4), "bias": keep}
    masked[0] = PrunerModuleWrapper(masked[0], "0", {})
    masked[0].set_masks(mask)
    optimizer = OPTIMIZERS[name](masked.parameters())
    for _ in range(4):
        step(masked, optimizer)

    small, state = net(), copy.deepcopy(optimizer.state_dict())
    small.load_state_dict(masked_state_dict(masked))
    its_optimizer = OPTIMIZERS[name](small.parameters())
    its_optimizer.load_state_dict(state)
    report = shrink(small, X, {"0": mask}, optimizer=its_optimizer)
    assert small[0].weight.shape == (5, 4)
    for _ in range(3):
        step(masked, optimizer)
        step(small, its_optimizer)
    kept = keep.nonzero().flatten()
    torch.testing.assert_close(small[0].weight, masked[0].weight[kept])
    torch.testing.assert_close(small[0].bias, masked[0].bias[kept])
    torch.testing.assert_close(small[2].weight, masked[2].weight[:, kept])
    for value in its_optimizer.state[small[2].weight].values():
        if isinstance(value, torch.Tensor) and value.ndim:
            assert value.shape == (3, 5)
            assert value.stride() == small[2].weight.stride()
    shrink_optimizer(its_optimizer, report)
    step(small, its_optimizer)  # telling it twice does nothing


def shrunk(optimizer_of=OPTIMIZERS["adam"], **options):
    model = net()
    optimizer = optimizer_of(model.parameters())
    step(model, optimizer)
    found = prune_core.units(model, X)
    chosen = [found.unit(found.groups[0].labels[i]) for i in GONE.tolist()]
    return model, optimizer, shrink(model, X, units=chosen, **options)


def test_groups_keep_their_options_and_a_gained_bias_is_trained():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 3, bias=False))
    model = nn.Sequential(
        nn.Conv2d(1, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 3, 1, bias=False)
    ).eval()
    x = torch.randn(2, 1, 5, 5)
    nn.init.normal_(model[1].bias)
    optimizer = torch.optim.SGD(
        [{"params": [model[0].weight, model[0].bias], "lr": 0.5},
         {"params": [*model[1].parameters(), *model[2].parameters()], "weight_decay": 0.25}],
        lr=0.1, momentum=0.9,
    )  # fmt: skip
    model(x).sum().backward()
    optimizer.step()
    keep = torch.ones(8, dtype=torch.bool).index_fill(0, GONE, False)
    masks = {"0": {"weight": keep[:, None, None, None], "bias": keep}}
    report = shrink(model, x, masks, constants="fold", optimizer=optimizer)
    assert model[2].weight.shape == (3, 5, 1, 1)
    assert report.gained == ["2.bias"]
    first, second = optimizer.param_groups
    assert (first["lr"], second["lr"], second["weight_decay"]) == (0.5, 0.1, 0.25)
    assert second["params"][-1] is model[2].bias
    before = model[2].bias.clone()
    optimizer.zero_grad()
    model(x).sum().backward()
    optimizer.step()
    assert not torch.equal(model[2].bias, before)


def test_an_optimizer_that_was_forgotten_is_told_of():
    model, optimizer, report = shrunk()
    with pytest.raises(SpeedupError, match=r"This Adam was made before the model became smaller: "
                       r"its 'exp_avg' has the shape \(8, 4\).*shrink_optimizer"):  # fmt: skip
        step(model, optimizer)
    shrink_optimizer(optimizer, report)
    step(model, optimizer)
    step(model, torch.optim.Adam(model.parameters()))  # a new one needs nothing


def test_nothing_is_listened_for_once_the_model_is_gone():
    others = set(_global_optimizer_pre_hooks)  # of models that other tests still have
    model, _, report = shrunk()
    assert set(_global_optimizer_pre_hooks) - others
    del model, _, report
    gc.collect()
    assert not set(_global_optimizer_pre_hooks) - others


def test_several_shrinks_are_followed_one_by_one():
    model, optimizer, first = shrunk()
    found = prune_core.units(model, X)
    second = shrink(model, X, units=[found.unit(found.groups[0].labels[0])])
    with pytest.raises(SpeedupError, match=r"keeps 'exp_avg' for '0.weight'.*of each shrink"):
        shrink_optimizer(optimizer, second)
    shrink_optimizer(optimizer, first)
    shrink_optimizer(optimizer, second)
    step(model, optimizer)
    assert optimizer.state[model[0].weight]["exp_avg"].shape == (4, 4)


def test_what_an_optimizer_keeps_in_another_form_is_refused_before_anything_is_done():
    model = net()
    before = copy.deepcopy(model.state_dict())
    found = prune_core.units(model, X)
    units = [found.unit(found.groups[0].labels[0])]

    def refused(optimizer, says):
        with pytest.raises(SpeedupError, match=says):
            shrink(model, X, units=units, optimizer=optimizer)
        assert all(map(torch.equal, before.values(), model.state_dict().values()))

    factors = torch.optim.Adafactor(model.parameters(), 1e-9)
    step(model, factors)
    before = copy.deepcopy(model.state_dict())
    refused(factors, r"Adafactor keeps 'row_var' for '0.weight', of the shape \(8, 1\)")
    refused(torch.optim.Adam(net().parameters()), "trains no parameter of the model")
    refused(3, "optimizer is a int; it must be an optimizer of torch")


def test_a_graph_has_parameters_of_its_own():
    class Strict(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)

        def forward(self, x):
            x = self.a(x)
            assert x.shape[-1] == 8
            return self.b(x)

    model = Strict()
    found = prune_core.units(model, X)
    optimizer = torch.optim.Adam(model.parameters())
    with pytest.warns(prune_core.PruneWarning, match="is a graph with parameters of its own"):
        report = shrink(model, X, units=[found.unit(found.groups[0].labels[0])], fallback=True,
                        optimizer=optimizer)  # fmt: skip
    assert report.form == "graph"
    with pytest.raises(SpeedupError, match="a report whose model is a graph"):
        shrink_optimizer(optimizer, report)
