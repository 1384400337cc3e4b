"""What the report says: three figures that have little to do with each other, and what is left."""

import json
import math

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from prune_core import PruneWarning, shrink, units
from prune_speedup.torch.report import SpeedupReport


def net():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    model.register_buffer("unused", torch.zeros(3, dtype=torch.int64))
    return model


def rows_and_a_weight():
    """Masks of two whole rows of the first layer, and of a single weight of the last."""
    rows = torch.ones(6, 4)
    rows[:2] = 0
    single = torch.ones(2, 6)
    single[0, 5] = 0
    return {"0": {"weight": rows, "bias": rows[:, 0]}, "2": {"weight": single}}


def test_zeros_and_bytes_by_hand():
    model = net()
    report = shrink(model, torch.ones(1, 4), rows_and_a_weight())
    values = (4 * 6 + 6 + 6 * 2 + 2, 4 * 4 + 4 + 4 * 2 + 2)
    assert report.parameters == values
    assert report.zeros == (2 * 4 + 2 + 1, 1)
    assert report.bytes == tuple(4 * count + 3 * 8 for count in values)
    table = report.table()
    assert "11 → 1 (25.0% → 3.3%)" in table
    assert "200 → 144 (72.0%)" in table
    assert "latency     not measured; shrink(..., measure=True) does" in table


def test_what_is_measured():
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(4, 512), nn.ReLU(), nn.Linear(512, 2))

        def forward(self, x):
            return self.layers(x)

    model, x = Wide().train(), torch.ones(10, 4)
    found = units(model, x)
    report = shrink(
        model, x, units=[found.unit(label) for label in found.groups[0].labels[:256]], measure=True
    )
    # The activation's input is still held when its result is made; 4 bytes a value.
    assert report.running.activations == (2 * 10 * 512 * 4, 2 * 10 * 256 * 4)
    assert all(seconds > 0 for seconds in report.running.seconds)
    assert model.layers[0].out_features == 256
    assert model.training
    assert "activations" in report.table()
    assert "ms (" in report.table()
    assert json.loads(report.to_json())["running"]["activations"] == [40960, 20480]
    assert "measure" in report.seconds


def test_measuring_leaves_statistics_and_random_numbers_alone():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(), nn.Linear(6, 2))
    x = torch.randn(5, 4)
    found = units(model, x)
    before, state = model[1].running_mean.clone(), torch.get_rng_state()
    shrink(model, x, units=[found.unit(found.groups[0].labels[0])], measure=True)
    assert torch.equal(model[1].running_mean, before[1:])
    assert torch.equal(torch.get_rng_state(), state)


@torch.library.custom_op("prune_tests::mystery", mutates_args=())
def mystery(x: torch.Tensor) -> torch.Tensor:
    return x.flip(-1)


def test_operators_without_a_rule_are_named_with_their_module():
    class Mysterious(nn.Module):
        def forward(self, x):
            return mystery(x)

    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 4), Mysterious(), nn.Linear(4, 2)).eval()
    with pytest.warns(PruneWarning, match="Nothing was removed: there were no masks"):
        report = shrink(model, torch.rand(2, 6, 3))
    [(operator, module)] = report.unknown.items()
    assert module == "2"
    assert f"{operator} in 2: what it touches stays" in report.table()


def test_what_the_proof_does_not_look_into_is_named():
    class Sealed:
        __slots__ = ()

    class Cached(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = net()

        def forward(self, x):
            return self.layers(x), Sealed()

    with pytest.warns(PruneWarning, match="Nothing was removed"):
        report = shrink(Cached(), torch.ones(1, 4))
    assert report.uncompared == ["Sealed"]
    assert "Sealed, which the model returns" in report.table()


def test_a_report_of_nothing_can_be_printed():
    report = SpeedupReport(nn.Identity())
    assert "parameters  0 → 0" in report.table()
    assert "compared    nothing: verify=False" in str(report)
    assert math.isnan(report.difference)


def test_a_parameter_that_is_one_number_counts_as_one():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)
            self.scale = nn.Parameter(torch.tensor(2.0))

        def forward(self, x):
            return self.scale * self.last(self.first(x).relu())

    model, x = Scaled(), torch.ones(2, 4)
    unit = next(iter(units(model, x)))
    report = shrink(model, x, units=[unit])
    assert report.zeros == (0, 0)
    assert report.parameters == (4 * 6 + 6 + 6 * 2 + 2 + 1, 4 * 5 + 5 + 5 * 2 + 2 + 1)


def test_a_bias_that_is_zero_is_no_pruned_channel():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)).eval()
    with torch.no_grad():
        model[0].weight[:4] = model[1].weight[:4] = 0
        model[0].bias.zero_()  # as many are from the first, like those of norms
    report = shrink(model, torch.rand(2, 3))
    assert model[0].out_features == 4
    assert (report.asked, report.kept) == (4, [])


class Tied(nn.Module):
    """A table whose weight another layer has as its own, under a name that comes later."""

    def __init__(self):
        super().__init__()
        self.table, self.last = nn.Embedding(9, 6), nn.Linear(6, 9)
        self.inner, self.back = nn.Linear(6, 6), nn.Linear(6, 6)
        self.last.weight = self.table.weight

    def forward(self, tokens):
        return self.last(self.back(self.inner(self.table(tokens)).relu()))


class Rows(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.rows = nn.Linear(4, 6), nn.GRU(6, 6, batch_first=True)

    def forward(self, x):
        return self.rows(self.inner(x))[0]


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.heads = nn.Linear(4, 6), nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x):
        y = self.inner(x)
        return self.heads(y, y, y, need_weights=False)[0]


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.original = nn.Sequential(weight_norm(nn.Linear(4, 6)))
        self.inner, self.last = nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.last(self.inner(self.original(x)).relu())


class Raw(nn.Module):
    """A layer of the kind that has its inputs in its rows."""

    def __init__(self):
        super().__init__()
        self.unbiased_kernel, self.bias = (
            nn.Parameter(torch.rand(4, 6)),
            nn.Parameter(torch.ones(6)),
        )
        self.last = nn.Linear(6, 2)

    def forward(self, x):
        return self.last(x @ self.unbiased_kernel + self.bias)


def test_a_bias_counts_where_a_kernel_has_zero_columns():
    model = Raw().eval()
    with torch.no_grad():
        model.bias.zero_()
        model.unbiased_kernel[:, :3] = 0
    assert shrink(model, torch.rand(2, 4)).asked == 3


@pytest.mark.parametrize("kind", [Tied, Rows, Heads, Normed])
def test_biases_of_all_layers_are_counted_with_their_weights(kind):
    torch.manual_seed(0)
    model = kind().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bias" in name and not name.startswith("inner"):
                parameter.zero_()
        model.inner.weight[:2] = model.inner.bias[:2] = 0
    x = torch.arange(6).view(2, 3) if kind is Tied else torch.rand(2, 3, 4)
    assert shrink(model, x).asked == 2
