"""A schedule in steps counts those that change weights, whatever is around the optimizer."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from prune_core import ConfigError
from prune_schedule import AGPPruner, LinearPruner

RULES = [{"final_sparsity": 0.8, "end_step": 5, "op_types": ["Linear"]}]


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=1e-9)


class Around:
    """What libraries do: it looks like an optimizer, and sometimes steps the real one."""

    def __init__(self, optimizer, every=1):
        self.optimizer, self.every, self.calls = optimizer, every, 0

    @property
    def param_groups(self):
        return self.optimizer.param_groups

    def zero_grad(self):
        self.optimizer.zero_grad()

    def state_dict(self):
        return self.optimizer.state_dict()

    def step(self):
        self.calls += 1
        if self.calls % self.every == 0:
            self.optimizer.step()


class Posing(torch.optim.Optimizer):
    """An optimizer by its class alone: it takes hooks and never calls them (as Accelerate's)."""

    def __init__(self, optimizer):
        self.base, self.param_groups, self.state = optimizer, optimizer.param_groups, {}

    def step(self, closure=None):
        self.base.step(closure)

    def zero_grad(self, set_to_none=True):
        self.base.zero_grad(set_to_none)


WRAPPERS = {
    "as it is": lambda optimizer: optimizer,
    "around": Around,
    "posing": Posing,
    "twice": lambda optimizer: Around(Posing(optimizer)),
    "in a list": lambda optimizer: SimpleNamespace(
        optimizers=[optimizer], step=optimizer.step, zero_grad=optimizer.zero_grad
    ),
}


@pytest.mark.parametrize("form", ["position", "name", "later"])
@pytest.mark.parametrize("around", WRAPPERS)
def test_each_step_counts_once(around, form, tape):
    optimizer = WRAPPERS[around](sgd(tape))
    if form == "position":
        pruner = LinearPruner(tape, RULES, optimizer, pruning_algorithm="smallest")
    else:
        given = {"optimizer": optimizer} if form == "name" else {}
        pruner = LinearPruner(tape, RULES, pruning_algorithm="smallest", **given)
        pruner.optimizer = optimizer
    pruner.compress()
    for _ in range(6):
        tape(torch.ones(2, 25)).sum().backward()
        optimizer.step()
    assert pruner.steps == 6
    assert pruner.sparsities == {"fc": 0.8}


def test_accumulated_gradients_are_no_step(tape):
    optimizer = Around(sgd(tape), every=4)
    pruner = LinearPruner(tape, RULES, optimizer, pruning_algorithm="smallest")
    pruner.compress()
    for _ in range(8):
        tape(torch.ones(2, 25)).sum().backward()
        optimizer.step()
    assert pruner.steps == 2


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_a_gradient_scaler_skips_is_no_step(fused, tape):
    optimizer = torch.optim.Adam(tape.parameters(), lr=1e-9, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    pruner = AGPPruner(tape, RULES, optimizer, pruning_algorithm="smallest")
    pruner.compress()
    for number in range(6):
        optimizer.zero_grad()
        loss = tape(torch.ones(2, 25)).sum() * (float("inf") if number in (2, 3) else 1.0)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    assert pruner.steps == 4


def test_what_holds_no_optimizer_is_refused_at_once(tape):
    nothing = SimpleNamespace(step=lambda: None, zero_grad=lambda: None)
    with pytest.raises(ConfigError, match="there is no torch.optim.Optimizer.*pruner.step"):
        LinearPruner(tape, RULES, nothing, pruning_algorithm="smallest")
    two = SimpleNamespace(a=sgd(tape), b=sgd(tape), step=lambda: None, zero_grad=lambda: None)
    with pytest.raises(ConfigError, match="in which there are 2 optimizers"):
        LinearPruner(tape, RULES, two, pruning_algorithm="smallest")
    assert isinstance(tape.fc, nn.Linear)
