"""Movement pruning beside the algorithm of the paper, written once more without this package."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from prune_filter import MovementPruner

WARM_UP, COOL_DOWN, STEPS, FINAL = 5, 40, 60, 0.8
RULES = [{"sparsity": FINAL, "op_types": ["Linear"]}]


def data():
    torch.manual_seed(1)
    inputs = torch.randn(STEPS, 32, 12)
    labels = (inputs[..., :4].sum(-1) > 0).long() + (inputs[..., 4] > 0.5).long()
    return inputs, labels


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 3))


class TopV(torch.autograd.Function):
    """The mask of the largest scores; its gradient goes to the scores as if it were not there."""

    @staticmethod
    def forward(ctx, scores, kept):
        mask = torch.zeros(scores.numel())
        mask[scores.flatten().argsort(descending=True, stable=True)[:kept]] = 1.0
        return mask.view_as(scores)

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


def fine_pruning(model, lr=0.2):
    """Algorithm of https://arxiv.org/abs/2005.07683, section 4: scores learnt by plain SGD.

    `a = (W ⊙ Top_v(S)) x`, `∂L/∂S = ∂L/∂a · W · x`, `S ← S − α ∂L/∂S`, with α = 1: a factor on all
    scores changes no order.
    """
    model = copy.deepcopy(model)
    layers = [model[0], model[2]]
    scores = [torch.zeros_like(layer.weight, requires_grad=True) for layer in layers]
    optimizer = torch.optim.SGD(model.parameters(), lr)
    masks = []
    for step, (x, y) in enumerate(zip(*data(), strict=True)):
        progress = min(1.0, max(0.0, (step - WARM_UP) / (COOL_DOWN - WARM_UP)))
        sparsity = FINAL * (1 - (1 - progress) ** 3)
        masks = [TopV.apply(s, s.numel() - int(sparsity * s.numel() + 1e-9)) for s in scores]
        hidden = F.relu(F.linear(x, layers[0].weight * masks[0], layers[0].bias))
        loss = F.cross_entropy(F.linear(hidden, layers[1].weight * masks[1], layers[1].bias), y)
        optimizer.zero_grad()
        loss.backward()
        with torch.no_grad():
            for score in scores:
                score -= score.grad
                score.grad = None
        optimizer.step()
    final = [TopV.apply(s, s.numel() - int(FINAL * s.numel() + 1e-9)) for s in scores]
    return [mask.bool() for mask in final], [layer.weight.detach() for layer in layers]


def train(model, lr=0.2):
    optimizer = torch.optim.SGD(model.parameters(), lr)
    for x, y in zip(*data(), strict=True):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()


def ours(**arguments):
    model = network()
    pruner = MovementPruner(
        model,
        RULES,
        warm_up_step=WARM_UP,
        cool_down_beginning_step=COOL_DOWN,
        **{"calibrate": train, **arguments},
    )
    _, masks = pruner.compress()
    weights = [model[place].module.weight.detach() for place in (0, 2)]
    return [masks[name]["weight"] for name in ("0", "2")], weights


def test_masks_and_weights_are_those_of_the_paper():
    masks, weights = ours()
    expected, trained = fine_pruning(network())
    for mask, other in zip(masks, expected, strict=True):
        assert (mask == other).float().mean() > 0.995
    for weight, other in zip(weights, trained, strict=True):
        torch.testing.assert_close(weight, other, rtol=1e-4, atol=1e-5)


def test_what_was_masked_once_can_come_back():
    seen = []

    def watching(model):
        hook = model.register_forward_pre_hook(lambda *_: seen.append(model[0].weight_mask.clone()))
        train(model)
        hook.remove()

    masks, _ = ours(calibrate=watching)
    ever_masked = torch.stack([~mask for mask in seen]).any(0)
    assert (ever_masked & masks[0]).any()


def test_the_gradient_that_a_masked_weight_would_have():
    layer = network()
    pruner = MovementPruner(layer, RULES, calibrate=lambda model: None)
    wrapper = pruner.get_modules_wrapper()["0"]
    mask = torch.rand(24, 12) < 0.5
    wrapper.set_masks({"weight": mask})
    seen = []
    handle = wrapper.watch_gradient("weight", seen.append)
    x = torch.randn(7, 12)
    layer(x).square().sum().backward()
    product = (wrapper.module.weight * mask).detach().requires_grad_()
    hidden = F.relu(F.linear(x, product, wrapper.module.bias))
    F.linear(hidden, layer[2].module.weight, layer[2].module.bias).square().sum().backward()
    torch.testing.assert_close(seen[0], product.grad)
    assert seen[0][~mask].abs().max() > 0
    assert wrapper.module.weight.grad[~mask].abs().max() == 0
    handle.remove()
    layer(x).square().sum().backward()
    assert len(seen) == 1


def test_a_copy_of_the_model_is_not_watched():
    model = network()
    seen = []

    def watching(model):
        copied = copy.deepcopy(model)
        for x, y in zip(*data(), strict=True):
            F.cross_entropy(copied(x), y).backward()
        seen.append(pruner.data_collector.seen)
        seen.append(dict(pruner.data_collector._sums))
        train(model)

    pruner = MovementPruner(model, RULES, calibrate=watching)
    pruner.compress()
    assert seen == [0, {}]


def test_a_step_that_a_gradient_scaler_skips_does_not_count():
    def scaled(model):
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**6)
        optimizer = torch.optim.SGD(model.parameters(), 0.2)
        for number, (x, y) in enumerate(zip(*data(), strict=True)):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            scaler.scale(loss * (float("inf") if number == 30 else 1.0)).backward()
            scaler.step(optimizer)
            scaler.update()

    masks, _ = ours(calibrate=scaled)
    assert [int(mask.sum()) for mask in masks] == [58, 15]


@pytest.mark.parametrize("mode", ["normal", "global"])
def test_movement_in_every_mode_reaches_its_sparsity(mode):
    masks, _ = ours(mode=mode)
    total = sum(int(mask.sum()) for mask in masks)
    assert abs(total - 0.2 * 360) <= 2
