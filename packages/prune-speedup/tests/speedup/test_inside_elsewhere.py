"""Where a forward does the same to any input, the look inside is at a smaller one than the example.

Of the example, what is returned is compared. Here all that a mistake does to that is hidden.
"""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from prune_core import SpeedupError, shrink
from prune_speedup.torch.proof.inside import Inside
from prune_speedup.torch.record.operators import operator_of


class Between(nn.Module):
    """Two layers, something between them, and an output that shows nothing of it."""

    def __init__(self, between):
        super().__init__()
        self.first, self.between, self.head = nn.Linear(3, 8), between, nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.between(self.first(x))).round(decimals=-3)


def halved(between, *, faint=False):
    torch.manual_seed(0)
    model = Between(between).eval()
    with torch.no_grad():
        for parameter in model.first.parameters():
            parameter[:4] = 0
        if faint:  # beside the bias nothing is seen of what the last layer is given
            model.head.weight.mul_(1e-9)
    return model


class Scaled(nn.Module):
    def __init__(self, *scales):
        super().__init__()
        self.scales = nn.ParameterList(scales)

    def forward(self, y):
        return y * self.scales[0]


class Either(Scaled):
    def forward(self, y):
        return y * (self.scales[0] if self.training else self.scales[-1])


class ByMode(Scaled):
    """Reads its parameters by the same code, in another order."""

    def forward(self, y):
        one, other = self.scales if self.training else reversed(self.scales)
        return y * one * other


class ByCode(Scaled):
    def forward(self, y):
        return y * self.scales[0] if self.training else self.scales[0] * y


class Twice(Scaled):
    def forward(self, y):
        for _ in range(2):
            y = y * self.scales[0] if self.training else self.scales[0] * y
        return y


class Turned(nn.Module):
    def forward(self, y):
        return y.flip(0).flip(0)


class Scripted(nn.Module):
    """Calls what nobody sees."""

    def __init__(self, module):
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            self.script = torch.jit.script(module)

    def forward(self, y):
        return self.script(y)


class Normed(nn.Module):
    """Divides by something else as it trains."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(8)
        self.norm.weight.data[:4] = 0
        self.norm.bias.data[4:] = 0.1

    def forward(self, y):
        return self.norm(y.flatten(0, 1 if self.training else -2))


class Flat(Scaled):
    """Views what it is given by its size, and never asks for that."""

    def forward(self, y):
        return y.unsqueeze(-1).flatten(1) * self.scales[0 if self.training else -1]


class OutOfStep(nn.Module):
    """Makes one more call as it trains, before all others."""

    def __init__(self, after):
        super().__init__()
        self.after = after

    def forward(self, y):
        return self.after(y + 0 if self.training else y)


class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.pool = nn.MaxPool2d(1)

    def forward(self, y):
        return self.pool(y[..., None, None]).flatten(1)


class Wide(nn.Module):
    """A layer that views what it is given, and what it makes: the same call in two places."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, y):
        return self.layer(y.sin()[:, None, None]).flatten(1)


ONE, TWO, ROWS = torch.ones(1), torch.full((1,), 2.0), torch.ones(3, 1)
COMPARED = {  # on each input two layers and what is between them
    "follows from what is compared": (lambda y: y.relu() + y, 2),
    "follows from what is spread": (lambda y: y * y.sum(1, keepdim=True), 3),
    "reads a parameter": (Scaled(TWO), 3),
    "trains with a view": (Flat(TWO), 3),
    "trains alike": (Either(TWO), 3),
    "trains by parameters in another order": (ByMode(ONE, TWO), 2 * 4),
    "trains by other code": (ByCode(TWO), 2 * 3),
    "trains by other code, twice": (Twice(TWO), 2 * 4),
    "trains out of step with a maximum": (OutOfStep(Pooled()), 3),
    "trains out of step with a layer": (OutOfStep(Wide()), 4),
    "calls a script": (Scripted(Turned()), 2 * 5),  # which may ask for sizes
    "refuses other inputs": (Scaled(ROWS), 3),
}


@pytest.mark.parametrize(("between", "results"), COMPARED.values(), ids=COMPARED)
def test_results_are_compared_on_one_input_if_that_tells_all(between, results):
    assert shrink(halved(between), torch.rand(3, 3)).inside == results


@pytest.mark.filterwarnings("ignore:4 of 4 masked channels stay")
def test_a_norm_may_be_told_how_many_channels_there_are():
    assert shrink(halved(nn.LayerNorm(8)), torch.rand(3, 3)).inside == 3


def test_a_mean_may_be_of_channels_that_are_last_in_memory():
    torch.manual_seed(0)
    first, mean = nn.Conv2d(3, 8, 3, padding=1), OutOfStep(nn.AdaptiveAvgPool2d(1))
    model = nn.Sequential(first, mean, nn.Flatten(1), nn.Linear(8, 2)).eval()
    model.to(memory_format=torch.channels_last)
    with torch.no_grad():
        first.weight[:4] = first.bias[:4] = 0
    x = torch.rand(1, 3, 6, 6).contiguous(memory_format=torch.channels_last)
    assert shrink(model, x).inside == 4  # of one input; the mean is given other strides


def test_a_norm_may_train():
    assert shrink(halved(Normed()), torch.rand(3, 40, 3)).inside == 3


def test_no_versions_of_tensors_are_needed():
    with torch.inference_mode():
        assert shrink(halved(torch.relu), torch.rand(3, 3)).inside == 2


def test_inputs_are_told_in_the_order_of_the_comparison():
    model, x = halved(torch.relu), torch.rand(3, 3)
    told = shrink(model, x, verify_inputs=[x[:2]]).verified
    assert told[:2] == ["the example", "verify_inputs[0]"]
    assert told[2].startswith("a batch of 4")


@pytest.mark.parametrize("rows", [1, 2, 3, 9])
def test_the_output_of_the_example_is_always_compared(rows):
    report = shrink(halved(Scaled(TWO)), torch.rand(rows, 3))
    assert report.verified[0] == "the example"
    assert len(report.verified) == 2


class Sized(nn.Module):
    """Does one thing after a layer of eight numbers, and another after any other."""

    def __init__(self, before, after):
        super().__init__()
        self.before, self.after = before, after

    def forward(self, y):
        return (self.before if self.layer[0].out_features == 8 else self.after)(y)


WRONG = {
    "a number": (lambda y: F.hardtanh(y, -1e-3, 1e3), lambda y: F.hardtanh(y, -2e-3, 1e3)),
    "an order": (lambda y: y - y.sin(), lambda y: y.sin() - y),
    "a type": (lambda y: y.clamp(min=0), lambda y: y.clamp(min=-0.1)),
    "a slope": (lambda y: F.leaky_relu(y, 0.2), lambda y: F.leaky_relu(y, 0.4)),
    "memory": (lambda y: moved(y, 0), lambda y: moved(y, 1)),
    "a part of it": (lambda y: y.sin() * written(y, 0), lambda y: y.sin() * written(y, 1)),
}
OTHER = {
    "another call": (torch.sin, torch.tanh),
    "more calls": (torch.sin, lambda y: y.sin().sin()),
    "fewer calls": (lambda y: y.sin().sin(), torch.sin),
}


def moved(y, at):
    """Gives a tensor the memory of another one, of which no call tells."""
    both, z = (y.sin(), y.tanh()), y.cos()
    z.data = both[at]
    return z * y


def written(y, row):
    """Writes into a row of a result, past torch's functions; another row, with the same numbers."""
    z = (y * 0).cos()
    torch.ops.aten.select.int(z, 0, row).zero_()
    return z


def refused(model, x):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    says = "Inside, the small model .* on the example|does not follow smaller tensors"
    with pytest.raises(SpeedupError, match=says):
        shrink(model, x)
    return all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(("before", "after"), WRONG.values(), ids=WRONG)
def test_what_follows_from_compared_results_has_to_follow_in_both_models(before, after):
    model = halved(Sized(before, after), faint=True)
    model.between.layer = [model.first]
    assert refused(model, torch.rand(3, 3))


@pytest.mark.parametrize(("before", "after"), OTHER.values(), ids=OTHER)
def test_models_that_make_other_calls_are_compared_where_they_read_a_parameter(before, after):
    model = halved(Sized(before, after))
    model.between.layer = [model.first]
    assert refused(model, torch.rand(3, 3))


class ByEinsum(nn.Module):
    """Of a single channel, torch computes the product by other calls."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.last = nn.Linear(3, 8), nn.Linear(3, 8), nn.Linear(1, 2)

    def forward(self, x):
        return self.last(torch.einsum("bd,bd->b", self.one(x), self.two(x))[:, None])


def test_other_calls_that_come_to_the_same_are_no_mistake():
    torch.manual_seed(0)
    model, x = ByEinsum().eval(), torch.rand(4, 3)
    with torch.no_grad():
        for parameter in (*model.one.parameters(), *model.two.parameters()):
            parameter[1:] = 0
    expected = model(x)
    assert shrink(model, x).verified[0] == "the example"
    assert model.one.out_features == 1
    torch.testing.assert_close(model(x), expected)


class Beside(nn.Module):
    """Computes something beside a layer that is cut, which it does otherwise after that."""

    def __init__(self, beside):
        super().__init__()
        self.first, self.head, self.last = nn.Linear(3, 8), nn.Linear(8, 3), nn.Linear(3, 2)
        self.beside = beside

    def forward(self, x):
        beside = self.beside(x, int(self.first.out_features < 8))
        return self.last(self.head(self.first(x)) + beside).round(decimals=-3)


def of_two(x, at):
    """Of two results of one call, the difference, this way round or that."""
    both = torch.linalg.slogdet(x @ x.T + torch.eye(3))
    return both[at].exp() - both[1 - at].exp()


def copied(x, at):
    """Copies into a result by a call that returns nothing."""
    z, both = x.cos(), (x.sin(), x.tanh())
    torch._foreach_copy_([z], [both[at]])
    return z * both[0]


def written_elsewhere(x, at):
    """Writes into memory by a tensor that shares it, and no version of it."""
    z, both = x.cos(), (x.sin(), x.tanh())
    z.data.copy_(both[at])
    return z * both[0]


@pytest.mark.parametrize("beside", [of_two, copied, written_elsewhere])
def test_what_is_written_or_chosen_unseen_is_compared(beside):
    torch.manual_seed(0)
    model = Beside(beside).eval()
    with torch.no_grad():
        for parameter in model.first.parameters():
            parameter[:4] = 0
        model.last.weight.mul_(1e-9)
    assert refused(model, torch.rand(3, 3))


def test_what_was_done_is_counted_where_the_same_calls_do_it_in_another_order():
    """The product of three matrices is computed in the order that is cheapest."""
    model, x = (
        halved(lambda y: torch.linalg.multi_dot([y.relu(), y.t(), y.relu()])),
        torch.rand(3, 3),
    )
    with torch.no_grad():
        for parameter in model.first.parameters():
            parameter[:7] = 0
    report = shrink(model, x)
    assert model.first.out_features == 1
    with FlopCounterMode(display=False) as counter:
        model(x)
    assert report.flops[1] == counter.get_total_flops()


@pytest.mark.parametrize("training", [0.2, None])
def test_a_model_that_trains_by_other_numbers_is_looked_at_as_it_does_not(training):
    class Leaky(nn.Module):
        def forward(self, y):
            slope = 0.8 / self.layer[0].out_features
            return F.leaky_relu(y, 0.2 if self.training and training else slope)

    model = halved(Leaky(), faint=True)
    model.between.layer = [model.first]
    assert refused(model, torch.rand(3, 3))


def unseen(x):
    with torch._C.DisableTorchFunction():
        return len(x + 0)


def asked_past_torch(x):
    with torch._C.DisableTorchFunction():
        return len(x)


PAST = {
    "function modes are off": unseen,
    "no call": asked_past_torch,
    "numpy": lambda x: x.numpy().shape[0],
    "a list": lambda x: len(x.tolist()),
    "an operator": lambda x: len(torch.ops.aten.neg.default(x).tolist()),
}


class BySize(nn.Module):
    """Does something else with as many rows as the example has, after a layer that was cut."""

    def __init__(self, ask):
        super().__init__()
        self.ask, self.first, self.head = ask, nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x):
        other = self.ask(x) == 5 and self.first.out_features < 8
        y = self.first(x)
        y = y.tanh() - y if other else y - y.tanh()
        return self.head(y).round(decimals=-3)


@pytest.mark.parametrize("ask", PAST.values(), ids=PAST)
def test_a_forward_that_may_ask_for_a_size_is_looked_at_on_the_example(ask):
    torch.manual_seed(0)
    model = BySize(ask).eval()
    with torch.no_grad():
        for parameter in model.first.parameters():
            parameter[:4] = 0
    assert refused(model, torch.rand(5, 3))


@pytest.mark.parametrize(("other", "compared"), [([0, 1], 2), ([2, 3], 3)])
def test_what_follows_from_other_channels_is_compared(other, compared):
    """Of a sum, the channels that stay have to be those of both terms."""
    stay = [np.array([0, 1]), np.array(other), np.array([0, 1])]
    plan = SimpleNamespace(
        kept_of_value=lambda value: {1: stay[value]},
        labelling=SimpleNamespace(graph=SimpleNamespace(metas=[torch.empty(2, 4)] * 3)),
    )
    aten = torch.ops.aten
    operators = [operator_of(each) for each in (aten.mm.default, aten.mm.default, aten.add.Tensor)]
    inside = Inside(plan, all_results=False)
    one, two = torch.rand(2, 4), torch.rand(2, 4)
    for value, result in enumerate([one, two, total := one + two]):
        told = ((one, two), {}) if result is total else ((), {})
        call = SimpleNamespace(outputs=[value])
        inside.note(operators[value], "", told, result, call)
    small = [one[:, :2], two[:, other]]
    for value, result in enumerate([*small, total := sum(small)]):
        told = (tuple(small), {}) if result is total else ((), {})
        inside.check(operators[value], told, result)
    assert inside.compared == compared
    assert (inside.worst()[0] > 1) == (other == [2, 3])
    assert not inside.lost


class Eager(nn.Module):
    """A network for images of at least some pixels."""

    def __init__(self, least):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, 2), nn.Conv2d(8, 2, 1)
        self.reach = nn.AvgPool2d(least // 2 - 1)

    def forward(self, x):
        return self.last(self.reach(self.first(x).relu()))


class Training(Eager):
    def forward(self, x):
        return super().forward(F.dropout(x, 0.1, self.training))


@pytest.mark.parametrize(
    ("kind", "size", "least", "tried"),
    [
        (Eager, 224, 32, ", 56 along axis 3 where the example has 224"),
        (Eager, 224, 100, ", 112 along axis 3 where the example has 224"),
        (Eager, 224, 200, ""),
        (Eager, 256, 64, ", 64 along axis 3 where the example has 256"),
        (Eager, 100, 20, ", 50 along axis 3 where the example has 100"),
        (Training, 224, 32, ", 112 along axis 3 where the example has 224, in training"),
    ],
)
def test_large_images_are_tried_in_a_quarter_of_their_size(kind, size, least, tried):
    torch.manual_seed(0)
    model = kind(least).eval()
    with torch.no_grad():
        for parameter in model.first.parameters():
            parameter[:4] = 0
    report = shrink(model, torch.rand(1, 3, size, size))
    assert report.verified == ["the example", f"a batch of 2 where the example has 1{tried}"]


class Branches(nn.Module):
    """Norms in one place, of which one is left out in training, or where there are few rows."""

    def __init__(self, few=0):
        super().__init__()
        self.few = few
        self.layers = nn.ModuleList(nn.Linear(3, n) for n in (8, 6))
        self.heads = nn.ModuleList(nn.Linear(n, 2) for n in (8, 6))
        self.scales = nn.ParameterList(torch.rand(n) for n in (8, 6))
        self.shifts = nn.ParameterList(torch.rand(n) for n in (8, 6))

    def forward(self, x):
        x, use = F.dropout(x, 0.1, self.training), [1] if self.training else [0, 1]
        if len(x) < self.few:
            x, use = x + 0, [1]
        ys = [self.layers[i](x) for i in use]
        norms = [(self.scales[i], self.shifts[i]) for i in use]
        ys = [F.layer_norm(y, y.shape[1:], *norm) for y, norm in zip(ys, norms, strict=True)]
        return sum(self.heads[i](y.relu()) for i, y in zip(use, ys, strict=True))


def branches(few=0):
    torch.manual_seed(0)
    model = Branches(few).eval()
    with torch.no_grad():
        for layer, head, scale, shift in zip(
            model.layers, model.heads, model.scales, model.shifts, strict=True
        ):
            layer.weight[:2] = layer.bias[:2] = scale[:2] = shift[:2] = 0
            head.weight[:, :2] = 0
    return model


def test_a_call_is_not_taken_for_another_one_at_its_place():
    model, x = branches(few=3), torch.rand(4, 3)
    assert "verify_inputs[0]" in shrink(model, x, verify_inputs=[x[:2]]).verified
    assert any("training" in name for name in shrink(branches(), x).verified)


def test_a_parameter_that_is_not_registered_brings_models_together_again():
    model = Apart().eval()
    with torch.no_grad():
        model.first.weight[:4] = model.first.bias[:4] = 0
    assert refused(model, torch.rand(3, 3))


class Apart(nn.Module):
    """Does otherwise when it is narrow, before a layer that it keeps in a list."""

    def __init__(self):
        super().__init__()
        self.first, self.head, self.tail = nn.Linear(3, 8), nn.Linear(8, 3), [nn.Linear(3, 2)]

    def forward(self, x):
        y = self.head(self.first(x))
        y = y.sin() if self.first.out_features == 8 else y.tanh()
        return self.tail[0](y).round(decimals=-3)
