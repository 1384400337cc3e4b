"""What goes into layers is gathered as it is, whatever the user's code does around it."""

import pytest
import torch
from torch import nn

from prune_core import ConfigError, PruneError
from prune_toolkit.calibration.watch import InputWatch, padding_of


class Attention(nn.Module):
    """Three layers that read one tensor, and one that reads another."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x, unlike=False):
        y = self.q(x) + self.k(x) * self.v(x + 0 if unlike else x)
        return self.o(y)


def layers_of(model):
    return dict(model.named_children())


def gathered(model, *batches, layers=None, **how):
    with InputWatch(layers or layers_of(model), **how) as watch:
        for batch in batches:
            model(*batch) if isinstance(batch, tuple) else model(batch)
    return watch.gathered()


@pytest.fixture
def rows():
    torch.manual_seed(0)
    return torch.randn(3, 5, 4), torch.randn(2, 5, 4)


def test_everything_is_summed_in_double(rows):
    found = gathered(nn.Sequential(nn.Linear(4, 2)), *rows, products=True)["0"]
    every = torch.cat([x.flatten(0, 1) for x in rows]).double()
    assert found.rows == 25
    assert found.sums.dtype == torch.float64
    torch.testing.assert_close(found.mean[0], every.mean(0))
    torch.testing.assert_close(found.norm[0], every.norm(dim=0))
    torch.testing.assert_close(found.mean_square[0], every.square().mean(0))
    torch.testing.assert_close(found.variance[0], every.var(0))
    torch.testing.assert_close(found.gram[0], every.T @ every / 25, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        found.covariance[0], torch.cov(every.T, correction=0), rtol=1e-5, atol=1e-6
    )


def test_layers_that_read_one_tensor_share_what_is_gathered(rows):
    torch.manual_seed(0)
    found = gathered(Attention(), *rows, *rows, products=True)
    assert found["q"] is found["k"] is found["v"]
    assert found["o"] is not found["q"]
    assert found["q"].rows == 50


def test_layers_that_share_only_at_first_are_told_apart(rows):
    torch.manual_seed(0)
    model, (x, y) = Attention(), rows
    found = gathered(model, (x,), (y, True), (x,), products=True)
    alone = gathered(model, (x,), (y,), (x,), layers={"v": model.v}, products=True)["v"]
    assert found["v"] is not found["q"]
    torch.testing.assert_close(found["v"].products, alone.products)
    assert found["v"].rows == alone.rows == 40


def test_one_batch_used_over_and_over_counts_each_time():
    x = torch.ones(1, 4)
    found = gathered(nn.Sequential(nn.Linear(4, 2)), x, x, x, x)["0"]
    assert found.rows == 4
    assert found.squares.tolist() == [[4, 4, 4, 4]]


def test_a_tensor_that_was_changed_in_place_is_another_one():
    class Doubling(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            y = x.clone()
            self.a(y)
            return self.b(y.mul_(2))

    with torch.no_grad():
        found = gathered(Doubling(), torch.ones(1, 2))
    assert found["a"].sums.tolist() == [[1, 1]]
    assert found["b"].sums.tolist() == [[2, 2]]


def test_neither_autocast_nor_inference_mode_reaches_what_is_gathered(rows):
    model, x = nn.Sequential(nn.Linear(4, 2)), rows[0] * 1000
    plain = gathered(model, x, products=True)["0"]
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        watch = InputWatch(layers_of(model), products=True)
        with watch:
            model(x)
    model(x)  # is not watched any more
    found = watch.gathered()["0"]
    torch.testing.assert_close(found.products, plain.products)
    found.add(plain)  # an ordinary tensor
    assert not model[0]._forward_pre_hooks


def test_half_precision_is_squared_in_single():
    x = torch.full((2, 4), 300.0, dtype=torch.float16)  # its square is beyond float16
    found = gathered(nn.Sequential(nn.Linear(4, 2)).half(), x, products=True)["0"]
    assert found.squares.tolist() == [[180000.0] * 4]
    assert found.products.max() == 180000


def test_nan_and_infinity_are_refused_by_the_name_of_the_layer():
    for value in (float("nan"), float("inf")):
        with pytest.raises(PruneError, match=r"into '0' holds NaN or infinity.*float32"):
            gathered(nn.Sequential(nn.Linear(4, 2)), torch.full((1, 4), value))


def test_what_data_never_reach_is_refused_unless_that_may_be():
    model = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 2))
    watch = InputWatch(layers_of(model))
    with watch:
        model[0](torch.ones(1, 4))
    with pytest.raises(PruneError, match=r"'1'.*never reach.*'exclude': True"):
        watch.gathered()
    assert set(watch.gathered(required=["0"])) == {"0"}


def test_attention_over_different_inputs_is_refused_only_where_it_is_needed():
    model = nn.ModuleDict({"a": nn.MultiheadAttention(4, 2)})
    watch = InputWatch(dict(model.items()))
    with watch:
        model["a"](torch.ones(1, 1, 4), torch.ones(2, 1, 4), torch.ones(2, 1, 4))
    with pytest.raises(PruneError, match="different queries, keys and values"):
        watch.gathered()
    assert watch.gathered(required=()) == {}


def test_what_is_no_layer_is_refused():
    with pytest.raises(ConfigError, match=r"'a' is a LSTM.*Exclude it"):
        InputWatch({"a": nn.LSTM(2, 2)})
    with pytest.raises(ConfigError, match=r"'0' is an embedding"):
        gathered(nn.Sequential(nn.Embedding(4, 2)), torch.tensor([1]), products=True)


def test_the_attention_mask_of_a_call_says_what_is_padding():
    mask = torch.ones(2, 3)
    assert padding_of((), {"attention_mask": mask}) is mask
    assert padding_of((), {"attention_mask": torch.ones(2, 1, 3, 3)}) is None
    assert padding_of((mask,), {}) is None
