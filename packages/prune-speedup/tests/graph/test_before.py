"""What a forward leaves behind in a model is seen, and put back, whatever it is."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

from prune_speedup.torch.record.isolation import Before


class Keeping(nn.Module):
    """A module with something of everything that a module may keep."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm = nn.Linear(2, 3), nn.BatchNorm1d(3)
        self.rows, self.none_yet, self.many = [1, 2], [], list(range(400))
        self.cache, self.names, self.kinds = {}, {"x": 1}, {1, 2}
        self.order = OrderedDict(a=1, b=2)
        self.step, self.numbers = 1, torch.zeros(2)


def swapped(model):
    model.kinds.remove(1)
    model.kinds.add(7)


def turned_over(model):
    """Neither what the keys are in their order tells of it, nor the values in that of a dict."""
    one, other = model.order.pop("a"), model.order.pop("b")
    model.order["b"], model.order["a"] = one, other
    model.order.move_to_end("b")


CHANGES = {
    "values of keys": (turned_over, ["order"]),
    "another type": (lambda m: setattr(m, "step", True), ["step"]),
    "another list that is equal": (lambda m: setattr(m, "rows", [1, 2]), []),
    "one more": (lambda m: m.rows.append(3), ["rows"]),
    "one of many": (lambda m: m.many.__setitem__(300, 5000), ["many"]),
    "the first of a list": (lambda m: m.none_yet.append(1), ["none_yet"]),
    "the first of a dict": (lambda m: m.cache.update(a=1), ["cache"]),
    "another value": (lambda m: m.names.update(x=2), ["names"]),
    "another key": (lambda m: m.names.update(y=m.names.pop("x")), ["names"]),
    "another element": (swapped, ["kinds"]),
    "numbers": (lambda m: m.numbers.add_(1), ["numbers"]),
    "numbers of a buffer": (lambda m: m.norm.running_mean.add_(1), ["norm.running_mean"]),
    "another buffer": (
        lambda m: setattr(m.norm, "running_mean", torch.ones(3)),
        ["norm.running_mean"],
    ),
    "a new attribute": (lambda m: setattr(m, "new", 1), ["new"]),
    "one attribute less": (lambda m: delattr(m, "step"), []),
    "another mode": (lambda m: m.eval(), []),
    "a hook": (lambda m: m.layer.register_forward_hook(lambda *_: None), []),
}


def state(model):
    kept = {name: dict(vars(each)) for name, each in model.named_modules()}
    held = {
        (name, key): list(value.items() if isinstance(value, dict) else value)
        for name, attributes in kept.items()
        for key, value in attributes.items()
        if isinstance(value, dict | list | set)
    }
    numbers = [*model.buffers(), model.numbers]
    return kept, held, [each.tolist() for each in numbers]


@pytest.mark.parametrize(("change", "kept"), CHANGES.values(), ids=CHANGES)
def test_every_change_is_seen_and_put_back(change, kept):
    model = Keeping()
    before, was = Before(model), state(model)
    assert before.changes() == {}
    assert before.still
    change(model)
    assert list(before.changes()) == kept
    assert not before.still
    before.restore()
    now = state(model)
    assert now[1:] == was[1:]
    for name, attributes in was[0].items():
        assert list(now[0][name]) == list(attributes)
        assert all(now[0][name][key] is value for key, value in attributes.items())
