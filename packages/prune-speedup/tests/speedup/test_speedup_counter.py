"""`count_flops_params` gives the figures that the predecessor's users know."""

import pytest
import torch
from torch import nn

from prune_core import ConfigError, PruneWarning, count_flops_params, unwrap
from prune_core.masking import PrunerModuleWrapper
from prune_core.utils import count_flops_params as from_utils


class Twice(nn.Module):
    """A convolution of 2 → 3 channels, one of 3 → 3 that runs twice, and a linear layer."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 3, 3, padding=1)
        self.again = nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(3, 4)

    def forward(self, x):
        x = self.again(self.again(self.first(x)))
        return self.head(self.norm(x).mean((2, 3)))


FIRST, AGAIN, HEAD = 5 * 5 * 3 * 2 * 9, 2 * 5 * 5 * 3 * 3, 3 * 4


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize(
    "form", [lambda *shape: shape, list, lambda *s: torch.rand(s), lambda *s: (torch.rand(s),)]
)
def test_multiply_adds_of_one_sample(batch, form):
    x = [batch, 2, 5, 5] if form is list else form(batch, 2, 5, 5)
    flops, params, results = count_flops_params(Twice(), x, verbose=False)
    assert flops == FIRST + AGAIN + HEAD
    assert params == (2 * 3 * 9 + 3) + (3 * 3 + 3) + 6 + (3 * 4 + 4)
    assert [r["flops"] for r in results] == [FIRST, AGAIN, 0, HEAD]
    assert results[0] == {
        "name": "first",
        "module_type": "Conv2d",
        "weight_shape": (3, 2, 3, 3),
        "flops": FIRST,
        "params": 57,
    }


def test_what_is_masked_is_not_counted():
    model = Twice()
    mask = torch.ones(3, 2, 3, 3, dtype=torch.bool)
    mask[1] = False
    model.first = PrunerModuleWrapper(model.first, "first", {})
    dense = count_flops_params(model, (1, 2, 5, 5), verbose=False)
    assert dense[:2] == count_flops_params(Twice(), (1, 2, 5, 5), verbose=False)[:2]
    model.first.set_masks({"weight": mask, "bias": torch.tensor([1, 0, 1])})
    flops, params, results = count_flops_params(model, (1, 2, 5, 5), verbose=False)
    assert flops == dense.flops - FIRST // 3
    assert params == dense.params - 19
    assert (results[0]["name"], results[0]["module_type"]) == ("first", "Conv2d")
    assert (results[0]["flops"], results[0]["params"]) == (FIRST * 2 // 3, 57 - 19)
    assert count_flops_params(unwrap(model), (1, 2, 5, 5), verbose=False) == count_flops_params(
        Twice(), (1, 2, 5, 5), verbose=False
    )


@pytest.mark.parametrize(("kind", "gates"), [(nn.RNN, 1), (nn.GRU, 3), (nn.LSTM, 4)])
def test_recurrent_layers(kind, gates):
    flops, params, _ = count_flops_params(kind(4, 8), torch.rand(5, 1, 4), verbose=False)
    steps = 5
    # The first axis, steps here, is what counts as the batch.
    assert flops == steps * gates * 8 * (4 + 8) // 5
    assert params == gates * (8 * 4 + 8 * 8 + 2 * 8)


def test_attention_counts_its_products():
    layer = nn.MultiheadAttention(8, 2, batch_first=True)
    x = torch.rand(3, 5, 8)
    flops, _, results = count_flops_params(layer, (x, x, x), verbose=False)
    assert flops == 4 * 5 * 8 * 8 + 2 * 5 * 5 * 8
    assert sum(result["flops"] for result in results) == flops


def test_modes_and_statistics_are_left_alone():
    model = Twice()
    model.norm.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    count_flops_params(model, {"x": torch.rand(2, 2, 5, 5)}, verbose=False)
    assert (model.training, model.norm.training, model.head.training) == (True, False, True)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_it_prints_a_table_unless_told_not_to(capsys):
    count_flops_params(Twice(), (1, 2, 5, 5))
    printed = capsys.readouterr().out
    assert "first  Conv2d" in printed
    assert f"FLOPs total: {FIRST + AGAIN + HEAD:,}" in printed
    count_flops_params(Twice(), (1, 2, 5, 5), verbose=False)
    assert capsys.readouterr().out == ""


def test_the_place_where_scripts_look_for_it():
    assert from_utils is count_flops_params


def test_what_it_cannot_do():
    with pytest.warns(PruneWarning, match="count_flops_params: mode has no effect here"):
        count_flops_params(Twice(), (1, 2, 5, 5), verbose=False, mode="full")
    with pytest.warns(PruneWarning, match="count_flops_params: custom_ops has no effect here"):
        count_flops_params(Twice(), (1, 2, 5, 5), {nn.Conv2d: len}, verbose=False)
    with pytest.raises(ConfigError, match="x is None; count_flops_params needs an input"):
        count_flops_params(Twice(), None)
