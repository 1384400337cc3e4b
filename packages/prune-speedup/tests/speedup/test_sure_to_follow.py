"""With `verify=False`, a forward in which nothing can depend on a width is not even tried."""

import copy
import functools
import os
import pickle
import warnings
from contextlib import suppress
from enum import Enum
from os import getenv

import exactness
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from branching import half
from exactness import image
from torch import nn
from torch.utils.checkpoint import checkpoint

from prune_core import shrink
from prune_core.errors import SpeedupError
from prune_speedup.torch.record.any_width import noticing_widths
from prune_speedup.torch.resize import as_it_is, search


@pytest.fixture
def trials(monkeypatch):
    """The trial runs that were made."""
    made, follows = [], search.follows_as_it_is
    monkeypatch.setattr(search, "follows_as_it_is", lambda *args: made.append(1) or follows(*args))
    return made


class Ends(nn.Module):
    """A layer, something that is done to its features, and another layer."""

    def __init__(self, between):
        super().__init__()
        self.first, self.between, self.head = nn.Linear(3, 16), between, nn.Linear(16, 2)

    def forward(self, x):
        return self.head(self.between(self.first(x).relu()))


def cut(model, x=None):
    """Remove every second unit, unproved; some cannot follow, as a trial finds."""
    model.eval()
    x = torch.rand(4, 3) if x is None else x
    with suppress(SpeedupError):
        shrink(model, x, units=half(model, x), verify=False)
    return model


CONVOLUTIONS = (
    *(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU6(inplace=True)),
    *(nn.Conv2d(16, 16, 3, groups=16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2)),
)


def test_layers_of_torch_are_cut_without_a_trial(trials):
    model = cut(nn.Sequential(*copy.deepcopy(CONVOLUTIONS)), image().float())
    assert not trials
    assert (model[0].out_channels, model[3].groups, model[6].in_features) == (8, 8, 8)
    assert model(image().float()).shape == (2, 2)


@pytest.mark.parametrize("between", [torch.tanh, F.silu, lambda x: (x + x * 0.5).flatten(1)])
def test_what_does_the_same_to_any_width_is_not_tried(trials, between):
    assert cut(Ends(between)).first.out_features == 8
    assert not trials


def width(x: torch.Tensor) -> int:
    return x.size(1)


def by_width(x: torch.Tensor) -> torch.Tensor:
    if x.size(1) == 16:
        return x.tanh()
    return x.sigmoid()


with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    scripted_width, scripted = torch.jit.script(width), torch.jit.script(by_width)


class Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.tanh() if x.shape[1] == 16 else x.sigmoid()


class Fails(nn.Module):
    """Does something else where adding does not fail."""

    def __init__(self):
        super().__init__()
        self.register_buffer("eight", torch.ones(8))

    def forward(self, x):
        try:
            return x + self.eight
        except RuntimeError:
            return x.tanh()


class Asks(nn.Module):
    def forward(self, x: torch.Tensor) -> int:
        return x.size(1)


class ByScript(nn.Module):
    def __init__(self):
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            self.asks = torch.jit.script(Asks())

    def forward(self, x):
        return x.tanh() if self.asks(x) == 16 else x


ASKED = {
    "len": lambda x: x.tanh() if len(x) else x,
    "shape": lambda x: x.tanh() if x.shape[1] == 16 else x,
    "size": lambda x: x.tanh() if x.size(1) == 16 else x,
    "stride": lambda x: x.tanh() if x.stride(0) == 16 else x,
    "numel": lambda x: x.tanh() if torch.numel(x) == 64 else x,
    "rows": lambda x: torch.stack([row.tanh() for row in x]),
    "an operator": lambda x: x.tanh() if torch.ops.aten.sym_size.int(x, 1) == 16 else x,
    "an array": lambda x: x.tanh() if np.asarray(x.detach()).shape[1] == 16 else x,
    "a list": lambda x: x.tanh() if len(x.tolist()[0]) == 16 else x,
    "what is printed": lambda x: x.tanh() if len(repr(x)) else x,
    "an attribute": lambda x: x.tanh() if x.T.shape[0] == 16 else x,
    "another shape": lambda x: x.view_as(torch.zeros(4, 16)),
    "text": lambda x: x.tanh() if len(f"{x}") else x,
    "a pickle": lambda x: x.tanh() if len(pickle.dumps(x)) else x,
    "an attribute without a name": lambda x: (
        x.tanh() if hasattr(x, "__cuda_array_interface__") else x
    ),
    "a failure": Fails(),
    "scripted code": lambda x: x.tanh() if scripted_width(x) == 16 else x,
    "a scripted module": ByScript(),
    "a scripted layer": scripted,
    "a function of autograd": Function.apply,
    "a checkpoint": lambda x: checkpoint(by_width, x, use_reentrant=False),
    "vmap": lambda x: torch.vmap(lambda row: row.tanh() if len(row) == 16 else row)(x),
}


@pytest.mark.parametrize("between", ASKED.values(), ids=ASKED)
def test_what_learns_a_size_from_a_tensor_is_tried(trials, between):
    cut(Ends(between))
    assert trials


TOLD = {
    "view": lambda x: x.view(-1, 16),
    "chunk": lambda x: torch.cat(x.chunk(2, 1), 1),
    "shuffle": lambda x: F.channel_shuffle(x[:, :, None, None], 4).flatten(1),
    "roll": lambda x: x.roll(5, 1),
    "a number": lambda x: x.tanh() if x.sum() > -1e9 else x,
}


@pytest.mark.parametrize("between", TOLD.values(), ids=TOLD)
def test_what_is_told_a_number_or_decides_by_one_is_tried(trials, between):
    cut(Ends(between))
    assert trials


class Attends(nn.Module):
    """Hands widths to a function of torch that makes views by them."""

    def __init__(self):
        super().__init__()
        self.first, self.packed = nn.Linear(8, 16), nn.Parameter(torch.rand(48, 16))
        self.last, self.wide, self.heads = nn.Linear(16, 2), 16, 4

    def forward(self, x):
        y = self.first(x)
        given = (self.packed, torch.zeros(48), None, None, False, 0.0)
        args = (y, y, y, self.wide, self.heads, *given, self.last.weight, self.last.bias)
        return F.multi_head_attention_forward(*args, training=False, need_weights=False)[0]


class Grouped(nn.Module):
    """Convolves each of its channels, as many as it was made with, by a call of its own."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 2, 3)
        self.weight, self.count = nn.Parameter(torch.rand(16, 1, 3, 3)), 16

    def forward(self, x):
        return self.last(F.conv2d(self.first(x), self.weight, groups=self.count))


@pytest.mark.parametrize(
    ("model", "x"), [(Attends(), torch.rand(5, 2, 8)), (Grouped(), image().float())]
)
def test_sizes_within_a_call_of_torch_are_tried(trials, model, x):
    cut(model, x)
    assert trials


def by_decorator(forward):
    @functools.wraps(forward)
    def decorated(self, x):
        y = forward(self, x)
        return y if getattr(self.first, "out_" + "features") == 16 else y.sigmoid()

    return decorated


class Decorated(Ends):
    forward = by_decorator(Ends.forward)


def hooked():
    model = Ends(torch.tanh)
    model.first.register_forward_hook(
        lambda layer, _, made: made if layer.out_features == 16 else made.sigmoid()
    )
    return model


class Named(Ends):
    """Does something by what a layer says of itself."""

    def forward(self, x):
        return super().forward(x) if "16" in str(self.first) else x


@pytest.mark.parametrize("make", [lambda: Decorated(torch.tanh), hooked, lambda: Named(torch.tanh)])
def test_what_learns_a_width_from_a_layer_is_tried(trials, make):
    model = cut(make())
    assert trials
    assert model.first.out_features == 16


class Counting(nn.Linear):
    """Has its width in an attribute of its class as well, behind which nobody sees it read."""

    out_features = 0

    def __init__(self):
        super().__init__(3, 16)


def counted():
    model = Ends(lambda x: x.tanh() if model.first.out_features == 16 else x)
    model.first = Counting()
    return model


class Backbone(nn.Module):
    """Has its width written down under a name that is corrected wherever it stands."""

    def __init__(self):
        super().__init__()
        self.first, self.head, self.num_features = nn.Conv2d(3, 16, 3), nn.Linear(16, 2), 16

    def forward(self, x):
        y = F.adaptive_avg_pool2d(self.first(x), 1).flatten(1)
        return self.head(y.tanh() if self.num_features == 16 else y)


def convolutions(after=lambda layer, _, made: made, at=3):
    """A model with a depthwise convolution, and a hook of one of its layers."""
    model = nn.Sequential(*copy.deepcopy(CONVOLUTIONS))
    model[at].register_forward_hook(after)
    return model


def by_pattern(layer, _, made):
    match layer:
        case nn.Conv2d(groups=16):
            return made.tanh()
    return made


def with_a_weight_of_its_own():
    model, weight = convolutions(), nn.Parameter(torch.rand(16, 1, 3, 3))
    model.weight = weight
    model[3].register_forward_pre_hook(lambda _, given: F.conv2d(*given, weight, groups=16))
    return model


def with_another_forward():
    model = convolutions()
    model[3]._conv_forward = lambda x, weight, bias: F.conv2d(x, weight, bias, groups=16)
    return model


ELSEWHERE = {
    "a class": (counted, torch.rand(4, 3)),
    "an attribute": (Backbone, image().float()),
    "groups": (lambda: convolutions(lambda c, _, y: y.tanh() if c.groups == 16 else y), None),
    "getattr": (
        lambda: convolutions(lambda c, _, y: y.relu() if getattr(c, "groups", 1) else y),
        None,
    ),
    "a pattern": (lambda: convolutions(by_pattern), None),
    "text": (lambda: convolutions(lambda c, _, y: y.tanh() if "16" in str(c) else y), None),
    "text of a norm": (lambda: convolutions(lambda b, _, y: y if f"{b}" else y.relu(), 1), None),
    "a call": (with_a_weight_of_its_own, None),
    "a method": (with_another_forward, None),
}


@pytest.mark.parametrize(("make", "x"), ELSEWHERE.values(), ids=ELSEWHERE)
def test_a_width_that_is_also_somewhere_else_is_tried(trials, make, x):
    cut(make(), image().float() if x is None else x)
    assert trials


def test_a_hook_that_learns_nothing_is_not_tried(trials):
    cut(convolutions(), image().float())
    assert not trials


class Mode:
    tanh = True


MODE, MODES = Mode(), {"tanh": True}


class Said:
    tanh = True


class Kind(Enum):
    FIRST = 1

    def said(self, name):
        return getattr(self, name, True)


def by_method(said, x):
    return x.tanh() if said("tanh") else x.sigmoid()


def by_import(x):
    import random

    return x.tanh() if random.getstate() else x.sigmoid()


READ = {
    "an object": lambda x: x.tanh() if MODE.tanh else x.sigmoid(),
    "a class": lambda x: x.tanh() if Said.tanh else x.sigmoid(),
    "a dict": lambda x: x.tanh() if MODES["tanh"] else x.sigmoid(),
    "the environment": lambda x: x.tanh() if os.environ.get("NO_TANH") is None else x.sigmoid(),
    "another file": lambda x: x.tanh() if x.dtype != image().dtype else x.sigmoid(),
    "a function of the system": lambda x: x.tanh() if getenv("NO_TANH") is None else x.sigmoid(),
    "another module": lambda x: x.tanh() if exactness.image else x.sigmoid(),
    "a module that it imports": by_import,
    "a method of a dict": functools.partial(by_method, MODES.get),
    "an enumeration": functools.partial(by_method, Kind.FIRST.said),
    "globals": lambda x: x.tanh() if globals().get("NO_TANH") is None else x.sigmoid(),
    "scripted code": lambda x: scripted_width and x.tanh(),
}


@pytest.mark.parametrize("between", READ.values(), ids=READ)
def test_what_reads_something_that_nobody_looks_at_is_tried(trials, between):
    model = cut(Ends(between))
    assert model.first.out_features == 8
    assert trials


def test_attributes_of_layers_are_what_they_were():
    said = nn.Linear.extra_repr
    with noticing_widths(lambda: None):
        assert nn.Linear.extra_repr is not said
    assert nn.Linear.extra_repr is said
    cut(Ends(torch.tanh))
    assert "out_features" not in vars(nn.Linear)
    with pytest.raises(AttributeError):
        nn.Linear.out_features  # noqa: B018


class Typed(torch.Tensor):
    """Has a say in what is done to it."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        with torch._C.DisableTorchFunctionSubclass():
            made = func(*args, **(kwargs or {}))
            return made * 2 if func is torch.tanh and made.shape[-1] == 16 else made


def test_what_a_kind_of_tensor_does_is_tried(trials):
    model = Ends(torch.tanh).eval()
    cut(model, torch.rand(4, 3).as_subclass(Typed))
    assert trials


class Trains(Ends):
    """Has a second head in training."""

    def __init__(self):
        super().__init__(torch.tanh)
        self.second = nn.Linear(16, 2)

    def forward(self, x):
        y = super().forward(x)
        return (y, self.second(self.first(x))) if self.training else y


def test_what_runs_in_several_ways_is_tried(trials):
    cut(Trains())
    assert trials


def test_layers_that_a_plugin_may_resize_are_tried(trials, monkeypatch):
    monkeypatch.setattr(as_it_is, "names", lambda kind: {"library.Layer"})
    cut(Ends(torch.tanh))
    assert trials


class Built(nn.Module):
    """Names a class of its own where it is made."""

    def __init__(self):
        super().__init__()
        self.ends = Ends(torch.tanh)

    def forward(self, x):
        return self.ends(x)


def test_what_a_model_was_made_with_and_what_it_was_cut_to_are_no_secrets(trials):
    model = cut(Built())
    assert model.ends.first.out_features == 8
    assert cut(model).ends.first.out_features == 4
    assert not trials


class Handles(Ends):
    """Does with its first layer what can be done with attributes, while it is recorded."""

    def forward(self, x):
        layer = copy.copy(self.first)
        layer.out_features += 1
        assert layer.out_features == self.first.out_features + 1
        del layer.out_features
        with pytest.raises(AttributeError):
            del layer.out_features
        assert not hasattr(layer, "out_features")
        assert not hasattr(nn.Linear, "out_features")
        made = nn.Linear(2, 3)
        assert vars(made)["in_features"] == 2
        return super().forward(x)


def test_attributes_of_layers_are_read_and_written_as_ever_while_they_are_watched():
    assert cut(Handles(torch.tanh)).first.out_features == 8
    with noticing_widths(lambda: None), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        assert torch.jit.script(nn.Linear(2, 3)).out_features == 3
