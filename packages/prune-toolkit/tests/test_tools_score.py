"""Scores beside their formulas, and selections among few scores beside those among many."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

from prune_core import BasicPruner
from prune_toolkit import (
    DistMetricsCalculator,
    NMSparsityAllocator,
    NormMetricsCalculator,
    StraightMetricsCalculator,
    WeightDataCollector,
    score,
)
from prune_toolkit.allocate import per_layer
from prune_toolkit.allocate.per_layer import keep_mask


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_norms_in_pieces_are_norms(p, dtype, monkeypatch):
    data = torch.randn(7, 3, 2, generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = data.double().abs().pow(p).sum((1, 2)).pow(1 / p)
    for piece in (1, 8, 1 << 20):
        monkeypatch.setattr(score, "_PIECE", piece)
        [norm] = NormMetricsCalculator(dim=0, p=p).calculate_metrics({"a": data}).values()
        assert norm.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        torch.testing.assert_close(norm.double(), expected, rtol=1e-5, atol=1e-6)


def test_norms_that_keep_a_later_axis():
    data = torch.randn(4, 5)
    [norm] = NormMetricsCalculator(dim=1, p=1).calculate_metrics({"a": data}).values()
    torch.testing.assert_close(norm, data.abs().sum(0))


def test_distances_keep_the_digits_of_float64():
    data = torch.tensor([[1.0], [1.0 + 1e-12], [3.0]], dtype=torch.float64)
    [sums] = DistMetricsCalculator().calculate_metrics({"a": data}).values()
    torch.testing.assert_close(sums, torch.tensor([2.0, 2.0, 4.0], dtype=torch.float64))
    assert sums[0] > sums[1]


def test_the_data_itself_or_a_copy():
    data = {"a": torch.ones(2)}
    assert StraightMetricsCalculator(copy=False).calculate_metrics(data)["a"] is data["a"]
    assert StraightMetricsCalculator().calculate_metrics(data)["a"] is not data["a"]


@given(
    scores=st.lists(st.sampled_from([-1.0, -0.0, 0.0, 0.5, 2.0]), min_size=1, max_size=12),
    share=st.floats(0, 1),
    alive=st.lists(st.booleans(), min_size=12, max_size=12),
    absolute=st.booleans(),
)
def test_few_scores_are_chosen_as_many_are(scores, share, alive, absolute):
    values, count = torch.tensor(scores), int(share * len(scores))
    transform = torch.abs if absolute else None
    for mask in (None, torch.tensor(alive[: len(scores)])):
        few = keep_mask(values, count, mask, transform)
        many, per_layer.FEW = per_layer.FEW, -1
        try:
            assert torch.equal(few, keep_mask(values, count, mask, transform))
        finally:
            per_layer.FEW = many


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_few_scores_of_any_type(dtype):
    values = torch.tensor([[3, 1], [2, 1]]).to(dtype)
    assert keep_mask(values.T, 2).tolist() == [[True, True], [False, False]]


class NOfM(BasicPruner):
    def reset_tools(self):
        self.data_collector = WeightDataCollector(self)
        self.metrics_calculator = StraightMetricsCalculator()
        self.sparsity_allocator = NMSparsityAllocator(self, 1, 2)


@pytest.mark.parametrize(
    ("layer", "axis"), [(nn.Linear(4, 3), 1), (nn.ConvTranspose1d(4, 3, 1), 0)]
)
def test_groups_lie_along_the_input_unless_told_otherwise(layer, axis):
    _, masks = NOfM(nn.Sequential(layer), [{"sparsity": 0.5, "op_names": ["0"]}]).compress()
    groups = masks["0"]["weight"].movedim(axis, -1).unflatten(-1, (-1, 2))
    assert (groups.sum(-1) == 1).all()


def test_a_wrapped_model_is_a_function_of_its_parameters():
    torch.manual_seed(0)
    model, _ = NOfM(
        nn.Sequential(nn.Linear(4, 3)), [{"sparsity": 0.5, "op_names": ["0"]}]
    ).compress()
    state = {name: value.detach() for name, value in model.named_parameters()}

    def loss(state):
        return functional_call(model, state, (torch.ones(1, 4),)).sum()

    gradient = torch.func.grad(loss)(state)["0.module.weight"]
    assert torch.equal(gradient.bool(), model[0].weight_mask)


def test_distances_by_a_matrix_product_are_those_of_differences_to_the_last_digits():
    """Filters far from zero that differ little, some of them copies of each other."""
    torch.manual_seed(0)
    data = 1000 * torch.randn(1, 50) + 1e-2 * torch.randn(64, 50)
    data[5], data[20], data[30] = data[9], data[21], data[21]
    [sums] = DistMetricsCalculator().calculate_metrics({"a": data}).values()
    wide = data.double()
    expected = (wide[:, None] - wide).norm(dim=2).sum(1)
    torch.testing.assert_close(sums, expected, rtol=1e-12, atol=0)
    assert torch.equal(sums.argsort(stable=True), expected.argsort(stable=True))
    assert sums[5] == sums[9]
    assert sums[20] == sums[21] == sums[30]


def test_many_filters_that_are_all_alike_have_one_score():
    [sums] = DistMetricsCalculator().calculate_metrics({"a": torch.ones(100, 7)}).values()
    assert torch.equal(sums, torch.zeros_like(sums))
