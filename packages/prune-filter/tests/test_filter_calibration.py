"""How a user's own code runs the model, and in what state it finds the model afterwards."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from prune_core import ConfigError, PruneError
from prune_filter import (
    ActivationAPoZRankFilterPruner,
    ActivationAPoZRankPruner,
    ActivationMeanRankPruner,
    GraSPPruner,
    HRankPruner,
    MovementPruner,
    SlimPruner,
    SNIPPruner,
    SynFlowPruner,
    TaylorFOWeightFilterPruner,
    TaylorFOWeightPruner,
)

RULES = [{"sparsity": 0.5, "op_types": ["Conv2d"]}]
BATCHES = [torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(i)) for i in range(6)]
LABELS = torch.arange(8) % 2
STATISTICS = [ActivationAPoZRankPruner, ActivationMeanRankPruner, TaylorFOWeightPruner]


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.0), nn.Flatten(),
        nn.Linear(128, 2),
    )  # fmt: skip


class Trainer:
    """Trains for an epoch in the predecessor's way, and counts its steps."""

    def __init__(self):
        self.steps = 0

    def __call__(self, model, optimizer, criterion):
        model.train()
        for batch in BATCHES:
            optimizer.zero_grad()
            criterion(model(batch), LABELS).backward()
            optimizer.step()
            self.steps += 1


def adam(model):
    return torch.optim.Adam(model.parameters(), 0.01)


def everything(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("pruner", STATISTICS)
def test_gathering_statistics_leaves_no_trace(pruner):
    model = network().eval()
    model[5].train()
    optimizer, trainer = adam(model), Trainer()
    F.cross_entropy(model(BATCHES[0]), LABELS).backward()
    optimizer.step()
    before, state = everything(model), deepcopy(optimizer.state_dict()["state"])
    gradient = model[0].weight.grad.clone()
    instance = pruner(model, RULES, trainer, optimizer, F.cross_entropy, training_batches=4)
    instance.compress()
    assert trainer.steps == 4
    with instance.plain():
        assert same(everything(model), before)
        assert [module.training for module in model] == [False] * 5 + [True]
        assert torch.equal(model[0].weight.grad, gradient)
        assert optimizer.state_dict()["state"].keys() == state.keys()
        for parameter, values in optimizer.state_dict()["state"].items():
            assert same(values, state[parameter])


@pytest.mark.parametrize("pruner", [*STATISTICS, SNIPPruner, HRankPruner])
def test_calibration_that_trains_leaves_no_trace_either(pruner):
    model = network()
    before = everything(model)
    instance = pruner(model, RULES, calibrate=lambda m: Trainer()(m, adam(m), F.cross_entropy))
    instance.compress()
    with instance.plain():
        assert same(everything(model), before)


def test_the_trainer_and_calibrate_give_the_same_masks():
    results = []
    for mean in (False, True):
        model = network()
        given = (
            {"calibrate": lambda m: Trainer()(m, adam(m), F.cross_entropy), "batches": 3}
            if mean
            else {
                "trainer": Trainer(),
                "traced_optimizer": adam(model),
                "criterion": F.cross_entropy,
                "training_batches": 3,
            }
        )
        results.append(TaylorFOWeightPruner(model, RULES, **given).compress()[1])
    assert torch.equal(results[0]["0"]["bias"], results[1]["0"]["bias"])


@pytest.mark.parametrize("pruner", STATISTICS)
def test_an_error_in_the_calibration_leaves_no_trace(pruner):
    def broken(model):
        model.train()
        model(BATCHES[0]).sum().backward()
        raise OSError("no such data set")

    model = network().eval()
    before = everything(model)
    instance = pruner(model, RULES, calibrate=broken)
    with pytest.raises(OSError, match="no such data set"):
        instance.compress()
    with instance.plain():
        assert same(everything(model), before)
        assert not model.training
        assert not model._forward_pre_hooks
        assert not model[0]._forward_hooks
        assert model[0].weight.grad is None
        assert not model[0].weight._backward_hooks


def test_an_optimizer_made_before_goes_on_training():
    model = network()
    optimizer = adam(model)
    given = {"training_batches": 1}
    TaylorFOWeightPruner(model, RULES, Trainer(), optimizer, F.cross_entropy, **given).compress()
    before = model[0].module.weight.detach().clone()
    Trainer()(model, optimizer, F.cross_entropy)
    assert not torch.equal(model[0].module.weight, before)


def test_inference_mode_will_do_for_activations():
    def calibrate(model):
        with torch.inference_mode():
            for batch in BATCHES:
                model(batch)

    model, masks = ActivationMeanRankPruner(network(), RULES, calibrate=calibrate).compress()
    assert int(masks["0"]["bias"].sum()) == 4
    assert model(BATCHES[0]).requires_grad


def test_no_backward_is_noticed():
    instance = TaylorFOWeightPruner(network(), RULES, calibrate=lambda m: m(BATCHES[0]))
    with pytest.raises(PruneError, match="does calibrate\\(model\\) call backward"):
        instance.compress()


def test_no_run_at_all_is_noticed():
    instance = ActivationMeanRankPruner(network(), RULES, calibrate=lambda model: None)
    with pytest.raises(PruneError, match="never ran the model"):
        instance.compress()


def test_an_unused_module_is_noticed_by_name():
    instance = ActivationMeanRankPruner(network(), RULES, calibrate=lambda m: m(BATCHES[0]))
    instance.compress()
    model = nn.ModuleDict({"used": nn.Linear(2, 2), "not_used": nn.Linear(2, 2)})
    model.forward = lambda inputs: model["used"](inputs)
    rules = [{"sparsity": 0.5, "op_types": ["Linear"]}]
    instance = ActivationMeanRankPruner(model, rules, calibrate=lambda m: m(torch.ones(1, 2)))
    with pytest.raises(PruneError, match="gathered nothing for 'not_used'"):
        instance.compress()


# --- the oldest form: the user's own training is watched -----------------------------------


@pytest.mark.parametrize("pruner", [ActivationAPoZRankFilterPruner, TaylorFOWeightFilterPruner])
def test_without_calibration_the_next_training_is_watched(pruner):
    model = network()
    instance = pruner(model, RULES, statistics_batch_num=2)
    model, masks = instance.compress()
    assert masks["0"]["weight"].all()
    kept = []
    for batch in BATCHES[:4]:
        F.cross_entropy(model(batch), LABELS).backward()
        kept.append(int(instance.masks["0"]["bias"].sum()))
    assert kept == [8, 8, 4, 4]
    assert not model._forward_pre_hooks
    _, expected = pruner(
        network(),
        RULES,
        batches=2,
        calibrate=lambda m: [F.cross_entropy(m(b), LABELS).backward() for b in BATCHES[:2]],
    ).compress()
    assert torch.equal(instance.masks["0"]["bias"], expected["0"]["bias"])


# --- the ones that really train -------------------------------------------------------------

NORMS = [{"total_sparsity": 0.5, "op_types": ["BatchNorm2d"]}]


def sgd(model):
    return torch.optim.SGD(model.parameters(), 0.05)


@pytest.mark.parametrize("scale", [0.0, 0.1])
def test_slim_trains_with_its_penalty_in_both_forms(scale):
    expected = network()
    for _ in range(2):
        for batch in BATCHES:
            optimizer = sgd(expected)
            optimizer.zero_grad()
            penalty = scale * expected[1].weight.abs().sum()
            (F.cross_entropy(expected(batch), LABELS) + penalty).backward()
            optimizer.step()
    old = network()
    SlimPruner(
        old, NORMS, Trainer(), sgd(old), F.cross_entropy, training_epochs=2, scale=scale
    ).compress()

    def train(model):
        for _ in range(2):
            Trainer()(model, sgd(model), F.cross_entropy)

    new = network()
    SlimPruner(new, NORMS, calibrate=train, scale=scale).compress()
    for model in (old, new):
        torch.testing.assert_close(model[1].module.weight, expected[1].weight)
        assert not model[1].module.weight._backward_hooks
    assert not torch.equal(expected[1].weight, network()[1].weight)


def test_movement_trains():
    model, expected = network(), network()
    Trainer()(expected, sgd(expected), F.cross_entropy)
    rules = [{"sparsity": 0.5, "op_types": ["Linear"]}]
    _, masks = MovementPruner(model, rules, Trainer(), sgd(model), F.cross_entropy).compress()
    torch.testing.assert_close(model[5].module.weight, expected[5].weight)
    assert int(masks["5"]["weight"].sum()) == 128


def test_movement_adds_up_over_steps():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6))
    inputs, target = torch.randn(16, 4), torch.randn(16, 6)
    weight, score = model[0].weight.detach().clone(), torch.zeros(6, 4)
    for _ in range(5):
        gradient = 2 * ((inputs @ weight.T + model[0].bias.detach()) - target).T @ inputs / 96
        score -= weight * gradient
        weight = weight - 0.1 * gradient

    def train(model):
        optimizer = torch.optim.SGD([model[0].module.weight], 0.1)
        for _ in range(5):
            optimizer.zero_grad()
            F.mse_loss(model(inputs), target).backward()
            optimizer.step()

    rules = [{"sparsity": 0.5, "op_types": ["Linear"]}]
    _, masks = MovementPruner(model, rules, calibrate=train).compress()
    kept = masks["0"]["weight"]
    torch.testing.assert_close(model[0].module.weight.detach(), weight)
    assert score[kept].min() >= score[~kept].max()


def test_the_sparsity_of_movement_rises_while_it_trains():
    model, seen = network(), []
    rules = [{"sparsity": 0.8, "op_types": ["Linear"]}]

    def train(model):
        optimizer = sgd(model)
        for _ in range(5):
            model.zero_grad()
            model(torch.randn(4, 3, 6, 6)).square().mean().backward()
            seen.append(pruner.get_modules_wrapper()["5"].masked_count("weight") / 256)
            optimizer.step()

    pruner = MovementPruner(
        model, rules, calibrate=train, warm_up_step=1, cool_down_beginning_step=3
    )
    _, masks = pruner.compress()
    # 0.8 · (1 − 0.5³) = 0.7, and no more than 0.8 afterwards; whole weights of 256.
    assert seen == [0.0, 0.0, 179 / 256, 204 / 256, 204 / 256]
    assert int(masks["5"]["weight"].sum()) == 256 - 204
    assert pruner.get_modules_wrapper()["5"].config["sparsity"] == 0.8
    assert not model._forward_pre_hooks


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ({"warm_up_step": 3, "cool_down_beginning_step": 3}, "first is less than the second"),
        ({"warm_up_step": 3}, "warm_up_step is 3 and cool_down_beginning_step None"),
    ],
)
def test_a_ramp_that_cannot_be_is_refused(steps, says):
    with pytest.raises(ConfigError, match=says):
        MovementPruner(network(), [{"sparsity": 0.5}], calibrate=print, **steps)


# --- second derivatives ---------------------------------------------------------------------


def test_grasp_agrees_with_the_whole_hessian():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    data = [(torch.randn(5, 3), torch.randn(5, 2)) for _ in range(2)]

    def losses(model):
        for inputs, target in data:
            yield F.mse_loss(model(inputs), target)

    names = ["0.weight", "2.weight"]
    weights = [model.get_parameter(name).detach() for name in names]

    def loss(*values):
        state = dict(zip(names, values, strict=True))
        return sum(
            F.mse_loss(torch.func.functional_call(model, state, (inputs,)), target)
            for inputs, target in data
        )

    gradients = torch.autograd.functional.jacobian(loss, tuple(weights))
    _, product = torch.autograd.functional.hvp(loss, tuple(weights), gradients)
    scores = torch.cat([(w * p).flatten() for w, p in zip(weights, product, strict=True)])
    rules = [{"total_sparsity": 0.5, "op_types": ["Linear"]}]
    before = everything(model)
    instance = GraSPPruner(model, rules, calibrate=losses)
    _, masks = instance.compress()
    kept = torch.cat([mask["weight"].flatten() for mask in masks.values()])
    assert int(kept.sum()) == 10
    assert scores[kept].min() > scores[~kept].max()
    with instance.plain():
        assert same(everything(model), before)


def test_grasp_wants_a_loss():
    instance = GraSPPruner(network(), RULES, calibrate=lambda model: None)
    with pytest.raises(PruneError, match="must return the loss, or yield one for each batch"):
        instance.compress()
    instance = GraSPPruner(network(), RULES, calibrate=lambda model: [])
    with pytest.raises(PruneError, match="yielded no loss"):
        instance.compress()


@pytest.mark.parametrize("batches", [0, -1, 2.5, "3"])
def test_batches_are_a_whole_number(batches):
    model = nn.Sequential(nn.Linear(3, 2))
    rules = [{"sparsity": 0.5, "op_types": ["Linear"]}]
    with pytest.raises(ConfigError, match="batches is .*a whole number of at least 1"):
        ActivationMeanRankPruner(model, rules, calibrate=lambda model: None, batches=batches)


@pytest.mark.parametrize(
    ("pruner", "argument"), [(SlimPruner, {"scale": "small"}), (SynFlowPruner, {"rounds": 2.5})]
)
def test_arguments_of_the_wrong_type_are_named(pruner, argument):
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    rules = [{"total_sparsity": 0.5, "op_types": ["default"]}]
    more = {"dummy_input": torch.ones(2, 3)} if pruner is SynFlowPruner else {}
    with pytest.raises(ConfigError, match=f"{next(iter(argument))} is "):
        pruner(model, rules, **more, **argument)


def test_an_input_without_a_batch_will_do():
    model = nn.Sequential(nn.Linear(1, 4, bias=False))
    model[0].weight.data = torch.tensor([[1.0], [3.0], [2.0], [4.0]])
    rules = [{"sparsity": 0.5, "op_types": ["Linear"]}]
    pruner = ActivationMeanRankPruner(model, rules, calibrate=lambda model: model(torch.ones(1)))
    assert pruner.compress()[1]["0"]["weight"].flatten().tolist() == [False, True, False, True]


@pytest.mark.parametrize("amount", [{"sparsity_per_layer": 0.5}, {"total_sparsity": 0.995}])
def test_what_cannot_be_allocated_is_refused_before_anything_is_trained(amount):
    model = network()
    with pytest.raises(ConfigError, match="write 'total_sparsity'|higher .at most 1"):
        SlimPruner(model, [{"op_types": ["BatchNorm2d"], **amount}], calibrate=pytest.fail)
    assert isinstance(model[1], nn.BatchNorm2d)


def test_a_grouped_transposed_convolution_is_refused_before_it_is_run():
    model = nn.Sequential(nn.ConvTranspose2d(4, 8, 3, groups=2))
    rules = [{"sparsity": 0.5, "op_types": ["ConvTranspose2d"]}]
    with pytest.raises(ConfigError, match="'0' is a transposed convolution with 2 groups"):
        ActivationMeanRankPruner(model, rules, calibrate=pytest.fail)
