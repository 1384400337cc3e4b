"""ADMM, on numbers that can be checked by hand."""

import functools

import pytest
import torch
from torch import nn

from prune_core import ConfigError, PruneError
from prune_core.testing import check_pruner
from prune_schedule import ADMMPruner
from prune_schedule.run import delegating

RULES = [{"sparsity": 0.5, "op_types": ["Linear"], "rho": 0.5}]


def line(values=(1.0, 2.0, 3.0, 4.0)):
    model = nn.Sequential(nn.Linear(len(values), 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([values]))
    return model


def weight_of(model):
    return getattr(model[0], "module", model[0]).weight


def with_gradient(value):
    """Return a training step of plain SGD, in which the loss alone has this gradient."""

    def train(model):
        weight = weight_of(model)
        (weight * value).sum().backward()
        with torch.no_grad():
            weight -= weight.grad

    return train


def prepare(model=None, train=None, rho=0.5, **arguments):
    arguments = {"iterations": 1, "training_epochs": 1, **arguments}
    return ADMMPruner(
        model or line(),
        [{**RULES[0], "rho": rho}],
        finetune=train or with_gradient(0.0),
        pruning_algorithm="smallest",
        **arguments,
    )


def test_two_iterations_by_hand():
    model = line()
    pruner = prepare(model, iterations=2)
    pruner.compress()
    # At first Z = W and U = 0, so there is no penalty; then Z = (0, 0, 3, 4) and U = W − Z.
    # In the second iteration the gradient is ½ · (W − Z + U) = (1, 2, 0, 0).
    assert weight_of(model).tolist() == [[0.0, 0.0, 3.0, 4.0]]
    first, second = pruner.trials
    assert first["gap"] == pytest.approx((5 / 30) ** 0.5)
    assert second["gap"] == 0.0
    assert pruner.state_dict()["u"]["0"].tolist() == [[1.0, 2.0, 0.0, 0.0]]


def test_the_gradient_of_the_loss_is_kept():
    model = line()
    prepare(model, with_gradient(1.0)).compress()
    assert weight_of(model).tolist() == [[0.0, 1.0, 2.0, 3.0]]


def test_weights_move_to_where_pruning_does_not_hurt():
    torch.manual_seed(0)
    x = torch.randn(200, 8)
    y = x @ torch.tensor([3.0, -2.0, 1.5, 1.0, 0.5, 0.4, 0.3, 0.2])[:, None]

    def loss(model):
        return (model(x) - y).square().mean()

    def train(model):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        for _ in range(10):
            optimizer.zero_grad()
            loss(model).backward()
            optimizer.step()

    pruner = prepare(line([0.5] * 8), train, rho=4.0, iterations=15)
    _, masks = pruner.compress()
    assert int(masks["0"]["weight"].sum()) == 4
    gaps = [trial["gap"] for trial in pruner.trials]
    assert gaps[-1] < gaps[0] / 10


def test_the_call_of_older_releases():
    seen = []

    def trainer(model, optimizer, criterion, epoch, callback):
        seen.append((type(optimizer).__name__, epoch))
        optimizer.zero_grad()
        criterion(model(torch.ones(2, 4)), torch.zeros(2, dtype=torch.long)).backward()
        callback()
        optimizer.step()

    rules = [{"sparsity": 0.5, "op_types": ["Linear"]}]
    pruner = ADMMPruner(
        line(), rules, trainer=trainer, num_iterations=2, epochs=3, base_algo="smallest"
    )
    pruner.compress()
    assert seen == [("Adam", epoch) for epoch in range(6)]


def in_the_first_order(model, criterion, optimizer, epoch, callback):
    return model, optimizer, criterion


def in_the_later_order(model, optimizer, criterion, epoch):
    return model, optimizer, criterion


def under_other_names(network, opt, loss):
    return network, opt, loss


@pytest.mark.parametrize("form", [in_the_first_order, in_the_later_order, under_other_names])
def test_a_trainer_gets_each_thing_where_it_expects_it(form):
    seen = []
    model = line()

    @functools.wraps(form)
    def trainer(*args, **kwargs):
        seen.append(form(*args, **kwargs))

    criterion = nn.MSELoss()
    pruner = ADMMPruner(
        model, RULES, trainer, None, criterion, num_iterations=1, epochs=1, base_algo="smallest"
    )
    pruner.compress()
    assert seen == [(model, pruner.optimizer, criterion)]
    assert isinstance(pruner.optimizer, torch.optim.Adam)


def test_a_trainer_of_the_model_may_have_options():
    seen = []

    def trainer(model, epochs=3, *, rate=0.1):
        seen.append((model, epochs, rate))

    model = line()
    ADMMPruner(model, RULES, trainer, num_iterations=1, epochs=1, base_algo="smallest").compress()
    assert seen == [(model, 3, 0.1)]


def test_older_names_mean_what_they_meant(toys, monkeypatch):
    asked = []

    def get_pruner(name, **_):
        asked.append(name)
        return toys.Channels

    monkeypatch.setattr(delegating, "get_pruner", get_pruner)
    rules = [{"sparsity": 0.5, "op_types": ["Linear"]}]
    pruner = ADMMPruner(line(), rules, finetune=len, num_iterations=1, row=0.25)
    assert (set(asked), pruner._rho) == ({"l1"}, {"0": 0.25})
    pruner = ADMMPruner(line(), [{**rules[0], "rho": 0.5}], finetune=len, row=0.25)
    assert pruner._rho == {"0": 0.5}
    asked.clear()
    ADMMPruner(line(), rules, finetune=len, iterations=1)
    assert set(asked) == {"level"}


def test_the_call_of_newer_releases():
    model = line()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    seen = []

    def trainer(model, optimizer, criterion):
        seen.append((optimizer, criterion))
        model(torch.ones(1, 4)).sum().backward()
        optimizer.step()

    criterion = nn.MSELoss()
    ADMMPruner(
        model, RULES, trainer, optimizer, criterion, 2, 1, pruning_algorithm="smallest"
    ).compress()
    assert seen == [(optimizer, criterion)] * 2


def test_it_goes_on_where_it_was(tmp_path):
    def noisy(calls):
        left = iter(range(calls))

        def train(model):
            if next(left, None) is None:
                raise SystemExit
            with_gradient(0.1 * torch.rand(()))(model)

        return train

    torch.manual_seed(0)
    whole = prepare(train=noisy(100), iterations=6)
    whole.compress()
    torch.manual_seed(0)
    arguments = {"iterations": 6, "checkpoint": tmp_path / "run.pt"}
    for calls in (2, 3):
        with pytest.raises(SystemExit):
            prepare(train=noisy(calls), **arguments).compress()
    again = prepare(train=noisy(100), **arguments)
    again.compress()
    assert torch.equal(weight_of(again.bound_model), weight_of(whole.bound_model))
    assert torch.equal(again.masks["0"]["weight"], whole.masks["0"]["weight"])
    with pytest.raises(ConfigError, match="whose iterations is 6; here it is 7"):
        prepare(**{**arguments, "iterations": 7}).compress()


def test_ctrl_c_prunes_what_has_been_trained():
    calls = []

    def train(model):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        with_gradient(0.0)(model)

    pruner = prepare(train=train, iterations=9)
    _, masks = pruner.compress()
    assert masks["0"]["weight"].tolist() == [[False, False, True, True]]
    assert pruner.get_best_result()[0] == 1
    assert not weight_of(pruner.bound_model)._backward_hooks


@pytest.mark.parametrize(
    ("said", "arguments"),
    {
        "give finetune=": {"finetune": None},
        "granularity is 'fine'": {"granularity": "fine"},
        "iterations is -1": {"iterations": -1},
        "iterations is 0": {"iterations": 0},
        "training_epochs is 0": {"epochs": 0},
        "row is 0; it must be": {"row": 0},
        "traced_optimizer is 30; it must be an optimizer. Give numbers by": {
            "traced_optimizer": 30
        },
        "'rho' is -1; it must be a number greater than 0": {"rho": -1},
    }.items(),
)
def test_a_mistake_is_named(said, arguments):
    rules = [{**RULES[0], "rho": arguments.pop("rho", 0.1)}]
    arguments = {"finetune": len, "pruning_algorithm": "smallest", **arguments}
    with pytest.raises(ConfigError) as caught:
        ADMMPruner(line(), rules, **arguments)
    assert said in str(caught.value)


def test_there_is_no_result_before_there_is_one():
    with pytest.raises(PruneError, match="no result yet"):
        prepare().get_best_result()
    with pytest.raises(ConfigError, match="The state has no 'z'"):
        prepare().load_state_dict({})


@pytest.mark.parametrize("algorithm", ["smallest", "channels"])
def test_it_keeps_what_every_pruner_promises(algorithm):
    check_pruner(
        ADMMPruner,
        pruning_algorithm=algorithm,
        finetune=lambda model: None,
        iterations=2,
        training_epochs=1,
        granularity="channels" if algorithm == "channels" else "weights",
    )
