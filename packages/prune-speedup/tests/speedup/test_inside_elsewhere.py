"""Where a forward does the same to any input, the look inside is at a smaller one than the example.

Of the example, what is returned is compared. Here all that a mistake does to that is hidden.
"""

import warnings

import pytest
import torch
from hidden_inside import halved, refused
from torch import nn
from torch.nn import functional as F

from prune_core import shrink


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
