"""One analysis of a model and its inputs; an outdated one is never used."""

import copy
import gc
import pickle
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import prune_core
from prune_speedup.torch import analysis
from prune_speedup.torch.analysis import analysis_of
from prune_speedup.torch.fingerprint import fingerprint

pytestmark = pytest.mark.usefixtures("toys")

WIDE = 2
"""A global that a forward reads."""


def scaled(x: torch.Tensor) -> torch.Tensor:
    """A function of this file that a forward calls, and that reads a global."""
    return x * WIDE if WIDE > 1 else x


class Net(nn.Module):
    """A small network whose forward reads an attribute, an object, a global and a function."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 4)
        self.norm = nn.BatchNorm1d(8)
        self.act: Callable[..., torch.Tensor] = torch.relu
        self.twice = False
        self.options = SimpleNamespace(deep={"flat": [True]})
        self.register_buffer("shift", torch.zeros(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.act(scaled(self.norm(self.first(x))) + self.shift)
        if self.twice:
            y = self.act(y)
        return self.second(y if self.options.deep["flat"][0] else y.flip(1))


def other_forward(self: Net, x: torch.Tensor) -> torch.Tensor:
    """A forward that somebody puts in the place of the class's own."""
    return self.second(self.first(x).relu())


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a forward was recorded, and how often a recording was labelled."""
    count: Counter[str] = Counter()

    def counting(name: str) -> None:
        original = getattr(analysis, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            count[name] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(analysis, name, call)

    counting("trace")
    counting("labelled")
    return count


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    """Each test begins with an empty memory."""
    analysis._memory.clear()
    yield
    analysis._memory.clear()


def inputs() -> torch.Tensor:
    return torch.randn(3, 6, generator=torch.Generator().manual_seed(0))


def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


def test_pruning_and_shrinking_record_once_and_label_once(counted: Counter[str]) -> None:
    model, x = net(), inputs()
    wrapped, masks = prune_core.prune(model, "toy_l1", sparsity=0.5, example_inputs=x)
    report = prune_core.shrink(prune_core.unwrap(wrapped), x, masks)
    assert counted == {"trace": 1, "labelled": 1}
    assert model.first.out_features == 4
    assert report.comparison is not None


def test_a_budget_analyses_once(counted: Counter[str]) -> None:
    model, x = net(), inputs()
    wrapped, masks = prune_core.prune(model, "toy_l1", target={"flops": 0.6}, example_inputs=x)
    prune_core.shrink(prune_core.unwrap(wrapped), x, masks)
    assert counted == {"trace": 1, "labelled": 1}


def test_a_hundred_candidates_are_analysed_once(counted: Counter[str]) -> None:
    model, x = net(), inputs()
    weights = [p.detach().clone() for p in model.parameters()]
    prune_core.units(model, x)
    for candidate in range(100):
        trial = copy.deepcopy(model)
        ratio = 0.2 + 0.6 * candidate / 100
        wrapped, masks = prune_core.prune(trial, "toy_l1", sparsity=ratio, example_inputs=x)
        prune_core.shrink(prune_core.unwrap(wrapped), x, masks, verify=False)
    assert counted == {"trace": 1, "labelled": 1}
    assert all(map(torch.equal, weights, model.parameters()))


def test_numbers_may_change_where_no_call_depends_on_them(counted: Counter[str]) -> None:
    model, x = net(), inputs()
    first = analysis_of(model, x)
    with torch.no_grad():
        model.first.weight.zero_()
    assert analysis_of(model, x + 1) is first


CHANGES: dict[str, Callable[[Net, pytest.MonkeyPatch], object]] = {
    "a module of another width": lambda m, _: setattr(m, "second", nn.Linear(8, 5)),
    "a module of another class": lambda m, _: setattr(m, "norm", nn.LayerNorm(8)),
    "the same shapes, another module": lambda m, _: setattr(m, "norm", nn.Identity()),
    "an attribute": lambda m, _: setattr(m, "twice", True),
    "an attribute of the same value and another type": lambda m, _: setattr(m, "twice", 0),
    "a list in a dict in an object": lambda m, _: m.options.deep["flat"].__setitem__(0, False),
    "a function": lambda m, _: setattr(m, "act", torch.tanh),
    "a forward of this object": lambda m, _: setattr(m, "forward", other_forward.__get__(m, Net)),
    "a forward of the class": lambda m, patch: patch.setattr(Net, "forward", other_forward),
    "a forward of torch's class": lambda m, patch: patch.setattr(
        nn.Linear, "forward", lambda self, x: x @ self.weight.T
    ),
    "a global that a called function reads": lambda m, patch: patch.setitem(globals(), "WIDE", 1),
    "a function of this file": lambda m, patch: patch.setitem(globals(), "scaled", lambda x: x),
    "a hook": lambda m, _: m.first.register_forward_hook(lambda *a: a[2] * 2),
    "a hook before": lambda m, _: m.first.register_forward_pre_hook(lambda *a: None),
    "a mode": lambda m, _: m.train(),
    "the mode of a part": lambda m, _: m.norm.train(),
    "a tie": lambda m, _: setattr(m.norm, "weight", m.norm.bias),
    "a type": lambda m, _: m.double(),
    "an order in memory": lambda m, _: setattr(
        m.first.weight, "data", m.first.weight.data.T.contiguous().T
    ),
    "a gradient that is not wanted": lambda m, _: m.first.requires_grad_(False),
    "a bias that is gone": lambda m, _: setattr(m.first, "bias", None),
    "a buffer of another shape": lambda m, _: setattr(m, "shift", torch.zeros(1)),
    "a rule": lambda m, patch: _register(patch),
}


def _register(patch: pytest.MonkeyPatch) -> None:
    from prune_speedup.torch.rules import registry

    patch.setattr(registry, "_RULES", dict(registry._RULES))
    registry.rule("aten.relu")(lambda flow, call: flow.get(call.args[0]))


@pytest.mark.parametrize("change", CHANGES)
def test_what_has_changed_is_analysed_again(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = net(), inputs()
    first = analysis_of(model, x)
    assert analysis_of(model, x) is first
    CHANGES[change](model, monkeypatch)
    before = fingerprint(model, x)
    assert before is not None, "or nothing would be remembered at all"
    try:
        assert analysis_of(model, x.to(model.first.weight.dtype)) is not first
    finally:
        nn.modules.module._global_forward_hooks.clear()


@pytest.mark.parametrize(
    "other",
    [
        torch.zeros(4, 6),
        torch.zeros(3, 6, 1).squeeze(-1).T.contiguous().T,
        (torch.zeros(3, 6),),
        {"x": torch.zeros(3, 6)},
        torch.zeros(3, 6, requires_grad=True),
    ],
    ids=["a batch", "an order in memory", "a tuple", "a dict", "a gradient"],
)
def test_other_inputs_are_analysed_by_themselves(other: Any) -> None:
    model = net()
    first = analysis_of(model, torch.zeros(3, 6))
    assert analysis_of(model, other) is not first


def test_a_global_hook_is_seen() -> None:
    model, x = net(), inputs()
    first = analysis_of(model, x)
    handle = nn.modules.module.register_module_forward_hook(lambda *a: None)
    try:
        assert analysis_of(model, x) is not first
    finally:
        handle.remove()
    assert analysis_of(model, x) is first


class Deciding(nn.Module):
    """A network whose weights, or inputs, decide what it does."""

    def __init__(self, by: str) -> None:
        super().__init__()
        self.line, self.by = nn.Linear(6, 6), by

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        number = (self.line.weight if self.by == "weight" else x).sum()
        if self.by == "numpy":
            number = self.line.weight.detach().numpy().sum()
        return self.line(x).relu() if number > 0 else self.line(x).tanh()


@pytest.mark.parametrize("by", ["weight", "numpy"])
def test_a_forward_that_is_decided_by_weights_is_recorded_every_time(by: str) -> None:
    model, x = Deciding(by), inputs()
    first = analysis_of(model, x)
    model.line.weight.data.neg_()  # which no counter of versions tells
    again = analysis_of(model, x)
    assert {call.name for call in first.graph.calls} != {call.name for call in again.graph.calls}


def test_a_forward_that_is_decided_by_its_inputs_is_known_for_those_alone() -> None:
    model, x = Deciding("inputs"), inputs().abs()
    first = analysis_of(model, x)
    assert analysis_of(model, x.clone()) is first
    again = analysis_of(model, -x)
    assert "tanh" in {call.name for call in again.graph.calls}


class Counting(nn.Module):
    """A network that keeps something each time that it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(6, 6)
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.steps.add_(1)
        return self.line(x)


def test_a_forward_that_keeps_something_is_recorded_every_time() -> None:
    model, x = Counting(), inputs()
    assert analysis_of(model, x) is not analysis_of(model, x)


class Opaque(nn.Module):
    """A network with something that cannot be looked into."""

    def __init__(self) -> None:
        super().__init__()
        self.line, self.random = nn.Linear(6, 6), torch.Generator()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.line(x)


def test_what_cannot_be_looked_into_has_no_fingerprint() -> None:
    assert fingerprint(Opaque(), inputs()) is None


def test_an_analysis_dies_with_its_model_and_is_not_copied_with_it() -> None:
    model, x = net(), inputs()
    first = weakref.ref(analysis_of(model, x))
    text = str(vars(model))
    analysis_of(model, x)
    assert str(vars(model)) == text
    assert len(pickle.dumps(copy.deepcopy(model).first)) < 2000
    assert first() is not None
    del model
    gc.collect()
    analysis_of(nn.Linear(6, 6), x)  # whoever asks next clears up
    gc.collect()
    assert first() is None


class Unseen(nn.Module):
    """A network that reads what no fingerprint sees: the inside of a generator."""

    def __init__(self, source: Any) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 6)
        self._source = source

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        return self.second(y.flip(1) if self._source.__name__ == "flip" else y.relu())


@pytest.mark.parametrize("verify", [True, False])
def test_nothing_stays_or_is_refused_because_of_what_is_remembered(
    verify: bool, counted: Counter[str]
) -> None:
    def numbers() -> Iterator[int]:
        yield 1

    source = numbers()
    model, x = Unseen(source), inputs()
    wrapped, masks = prune_core.prune(model, "toy_l1", sparsity=0.5, example_inputs=x)
    model = prune_core.unwrap(wrapped)
    source.__name__ = "flip"
    expected = model(x)
    report = prune_core.shrink(model, x, masks, verify=verify)
    assert counted["trace"] >= 2
    assert not report.returned
    assert torch.allclose(model(x), expected, atol=1e-6)


def test_units_of_two_calls_are_the_callers_own() -> None:
    model, x = net(), inputs()
    first = prune_core.units(model, x)
    first.groups.clear()
    for classes in first.axes.values():
        classes[:] = 0
    assert len(prune_core.units(model, x)) > 0
    assert any(classes.any() for classes in prune_core.units(model, x).axes.values())
