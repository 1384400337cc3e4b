"""Training for a while in one call."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import prune_core
from prune_core import hookimpl
from prune_core.errors import ConfigError, OptionError, PruneError, PruneWarning
from prune_core.masking import PrunerModuleWrapper, replace_modules
from prune_core.registry import registered
from prune_recover import recover

GENERATOR = torch.Generator().manual_seed(1)
X = torch.randn(64, 6, generator=GENERATOR)
Y = X[:, :3].argmax(1)
PAIRS = list(zip(X.split(16), Y.split(16), strict=True))
INPUTS = list(X.split(16))


def net(width=16, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(6, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, 3)
    )


@pytest.fixture(scope="module")
def teacher():
    model = net()
    recover(model, PAIRS, epochs=100)
    return model.eval()


def state(model):
    return copy.deepcopy(model.state_dict())


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


def accuracy(model):
    return (model(X).argmax(1) == Y).float().mean()


def test_a_small_model_learns_what_the_whole_one_says(teacher):
    small = net(width=6, seed=3)
    report = recover(small, INPUTS, teacher=teacher, epochs=60, evaluate=accuracy)
    assert report.model is small
    assert report.steps == len(report.losses) == 240
    assert report.loss_after < report.loss_before / 2
    assert report.terms_after.keys() == {"logits"}
    assert report.quality_after > report.quality_before + 0.2
    assert f"{report.quality_after:.4g} in 240 steps" in str(report)


def test_it_is_the_recover_of_prune_core():
    assert prune_core.recover is recover


def test_a_training_that_makes_it_worse_on_validation_is_taken_back(teacher):
    small = copy.deepcopy(teacher)
    before = state(small)
    known, unknown = INPUTS[:1], INPUTS[1:]
    optimizer = torch.optim.SGD(small.parameters(), lr=10.0, momentum=0.9)
    with pytest.warns(PruneWarning, match="taken back: with it the loss on validation is"):
        report = recover(
            small, known, teacher=teacher, epochs=5, optimizer=optimizer, validation=unknown
        )
    assert report.taken_back
    assert report.loss_after > report.loss_before
    assert str(report).endswith("; taken back")
    assert same(before, small.state_dict())
    assert not optimizer.state_dict()["state"]
    small = net(width=6, seed=3)
    report = recover(small, INPUTS[:3], teacher=teacher, epochs=60, validation=INPUTS[3:])
    assert not report.taken_back
    assert report.loss_after < 0.7 * report.loss_before


def test_validation_that_is_none():
    for wrong, says in (([], "validation is empty"), (X, "validation is a Tensor, one batch")):
        with pytest.raises(ConfigError, match=says):
            recover(net(), PAIRS, validation=wrong)


def test_labels_alone_will_do():
    report = recover(net(), PAIRS, epochs=60)
    assert report.terms_after.keys() == {"labels"}
    assert report.loss_after < 0.8 * report.loss_before


@pytest.mark.parametrize(
    "batch",
    [
        {"input": X, "labels": Y},
        ({"input": X}, Y),
        ((X,), Y),
        [X, Y],
    ],
    ids=["dict", "dict and labels", "tuple and labels", "list"],
)
def test_batches_of_any_form(batch):
    plain, other = net(), net()
    recover(plain, [(X, Y)], epochs=2)
    recover(other, [batch], epochs=2)
    assert same(state(plain), state(other))


def test_a_loss_of_one_s_own_stands_for_that_of_the_labels(teacher):
    plain, other = net(seed=3), net(seed=3)

    def loss(model, batch):
        return nn.functional.cross_entropy(model(batch["x"]), batch["y"])

    recover(plain, PAIRS, teacher=teacher, epochs=2)
    recover(other, [{"x": x, "y": y} for x, y in PAIRS], teacher=teacher, loss=loss, epochs=2)
    for one, two in zip(plain.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two)


def test_hidden_states_of_other_widths_are_learned_with_batches_of_any_form(teacher):
    small = net(width=6, seed=3)

    def loss(model, batch):
        return nn.functional.cross_entropy(model(batch["x"]), batch["y"])

    batches = [{"x": x, "y": y} for x, y in PAIRS]
    hidden = {"hidden": ["0"], "project": True}
    report = recover(small, batches, teacher=teacher, loss=loss, epochs=20, **hidden)
    assert report.terms_after.keys() == {"logits", "hidden", "labels"}
    assert report.terms_after["hidden"] < report.terms_before["hidden"]
    with pytest.raises(ConfigError, match="'0' is 6 wide in the student, and '0' is 16 wide"):
        recover(net(width=6), batches, teacher=teacher, loss=loss, hidden=["0"])


def test_the_seed_decides_and_nobody_else_s_numbers_change(teacher):
    loader = DataLoader(TensorDataset(X, Y), 16, shuffle=True)
    states = []
    for seed in (0, 0, 1):
        model = net(seed=3)
        torch.manual_seed(len(states))  # whatever was drawn before
        before = torch.get_rng_state()
        recover(model, loader, teacher=teacher, steps=10, seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        states.append(state(model))
    assert same(states[0], states[1])
    assert not same(states[0], states[2])


def test_the_mode_of_each_module_is_as_before(teacher):
    model = net(seed=3).train()
    model[1].eval()
    recover(model, INPUTS, teacher=teacher, steps=2)
    assert [module.training for module in model] == [True, False, True, True, True]
    assert all(parameter.grad is None for parameter in model.parameters())


def test_batch_norms_follow_a_short_training(teacher):
    model = net(seed=3)
    model[1].momentum = 0.001
    with torch.no_grad():
        model[1].running_mean += 100  # as if other channels had been there before
    recover(model, INPUTS, teacher=teacher, steps=60)
    assert model[1].momentum == 0.001
    assert model[1].running_mean.abs().max() < 2


def test_zeros_stay(teacher):
    model = net(seed=3)
    with torch.no_grad():
        model[0].weight[:, ::2] = 0
    report = recover(model, INPUTS, teacher=teacher, steps=20)
    assert report.zeros == 16 * 3
    assert not model[0].weight[:, ::2].any()
    assert model[0].weight[:, 1::2].all()
    recover(model, INPUTS, teacher=teacher, steps=20, keep=False)
    assert model[0].weight.all()


def test_masks_stay_in_force(teacher):
    model = net(seed=3)
    wrapper = PrunerModuleWrapper(model[0], "0", {})
    wrapper.set_masks({"weight": torch.arange(96).reshape(16, 6) % 2})
    replace_modules(model, {model[0]: wrapper})
    before = model[0].weight.detach().clone()
    recover(model, INPUTS, teacher=teacher, steps=20)
    prune_core.unwrap(model)
    assert torch.equal(model[0].weight == 0, before == 0)
    assert not torch.equal(model[0].weight, before)


@pytest.mark.parametrize(
    ("limits", "steps"),
    [({}, 4), ({"steps": 7}, 7), ({"epochs": 3}, 12), ({"epochs": 3, "steps": 5}, 5)],
)
def test_where_it_stops(limits, steps):
    assert recover(net(), PAIRS, **limits).steps == steps


def test_it_stops_when_the_time_is_over():
    report = recover(net(), PAIRS, seconds=0.2)
    assert report.steps > 1
    assert report.seconds < 2


def test_data_without_an_end():
    def endless():
        while True:
            yield from PAIRS

    assert recover(net(), endless(), steps=9).steps == 9


def test_data_that_end_early():
    with pytest.warns(PruneWarning, match="ended after 4 batches, before the 9 steps"):
        assert recover(net(), iter(PAIRS), steps=9).steps == 4


# --- optimizers -------------------------------------------------------------------------------


def test_an_optimizer_of_one_s_own():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    recover(model, PAIRS, epochs=2, optimizer=optimizer)
    assert optimizer.param_groups[0]["lr"] == 0.05
    assert len(optimizer.state) == 6
    assert (
        recover(net(), PAIRS, epochs=40, optimizer=partial(torch.optim.SGD, lr=0.1)).loss_after < 1
    )


def test_an_optimizer_of_another_model():
    with pytest.raises(ConfigError, match="holds no parameter of the model"):
        recover(net(), PAIRS, optimizer=torch.optim.SGD(net().parameters(), 0.1))


# --- what goes wrong leaves the model as it was -------------------------------------------------


@pytest.mark.parametrize("after", [0, 3])
def test_nan_stops_and_restores(after):
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    before, calls = state(model), []

    def loss(model, batch):
        calls.append(1)
        found = nn.functional.cross_entropy(model(batch[0]), batch[1])
        # The loss is measured on four batches first.
        return found * float("nan") if len(calls) > 4 + after else found

    with pytest.raises(PruneError, match=f"loss is nan in step {after + 1}.*learning_rate"):
        recover(model, PAIRS, loss=loss, steps=9, optimizer=optimizer)
    assert same(before, state(model))
    assert not optimizer.state


def test_weights_that_overflow_in_the_last_step_are_found():
    model = net()
    before = state(model)
    with pytest.raises(PruneError, match=r"holds NaN or infinity after the training"):
        recover(
            model, PAIRS, steps=1, clip=None, optimizer=partial(torch.optim.SGD, lr=float("inf"))
        )
    assert same(before, state(model))


def test_an_error_of_the_user_s_restores():
    model = net()
    before = state(model)

    def judge(model):
        if not same(before, state(model)):
            raise ZeroDivisionError
        return 1.0

    with pytest.raises(ZeroDivisionError):
        recover(model, PAIRS, steps=1, evaluate=judge)
    assert same(before, state(model))


@pytest.mark.parametrize(
    ("data", "options", "said"),
    [
        ([], {}, "data is empty"),
        (X, {}, "data is a Tensor, one batch"),
        (3, {}, "data is a int"),
        ([(X, Y, Y)], {}, "A batch is a tuple of 3"),
        (["text"], {}, "A batch is a str"),
        (INPUTS, {}, "nothing to learn from"),
        (PAIRS, {"steps": 0}, "steps is 0"),
        (PAIRS, {"steps": 1.5}, "steps is 1.5"),
        (PAIRS, {"seconds": -1}, "seconds is -1"),
        (PAIRS, {"learning_rate": 0}, "learning_rate is 0"),
        (PAIRS, {"optimizer": "adam"}, "optimizer is 'adam'"),
        (PAIRS, {"optimizer": lambda parameters: None}, "returned None, not an optimizer"),
        (PAIRS, {"evaluate": lambda model: "good"}, "evaluate returned 'good'"),
        (PAIRS, {"loss": lambda model, batch: 1.0}, "it must return one number"),
        (PAIRS, {"loss": lambda model, batch: torch.ones(())}, "The student has not been called"),
        (PAIRS, {"loss": lambda m, b: m(b[0]).sum().detach()}, "nothing that can be trained"),
        (PAIRS, {"seed": "a"}, "seed is 'a'"),
        ([(X, Y[:5])], {}, r"shape \(5,\)"),
    ],
)
def test_what_does_not_fit(data, options, said):
    model = net()
    before = state(model)
    with pytest.raises(ConfigError, match=said):
        recover(model, data, **options)
    assert same(before, state(model))
    assert not model._forward_hooks


def test_an_argument_that_nobody_takes():
    with pytest.raises(OptionError, match=r"takes no 'temprature'.*Did you mean 'temperature'"):
        recover(net(), PAIRS, temprature=3)


def test_a_frozen_model():
    with pytest.raises(ConfigError, match="No parameter of the model has requires_grad"):
        recover(net().requires_grad_(False), PAIRS)


# --- and is seen --------------------------------------------------------------------------------


def test_how_far_it_is():
    seen = []

    class Listener:
        @hookimpl
        def prune_progress(self, task):
            seen.append((task.title, task.state, task.done, task.total))

    with registered(Listener()):
        recover(net(), PAIRS, steps=3)
    assert seen[0] == ("recover", "begun", 0, 3)
    assert seen[-1] == ("recover", "ended", 3, 3)
