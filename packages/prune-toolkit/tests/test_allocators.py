"""From scores to masks, on tensors small enough to check by eye."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from prune_core import BasicPruner, ConfigError, PruneError
from prune_core.amount import number_to_prune
from prune_toolkit import (
    BankSparsityAllocator,
    GlobalSparsityAllocator,
    NMSparsityAllocator,
    NormalSparsityAllocator,
    NormMetricsCalculator,
    StraightMetricsCalculator,
    WeightDataCollector,
)


class Weights(nn.Module):
    """Linear layers with the given weights."""

    def __init__(self, **weights) -> None:
        super().__init__()
        for name, rows in weights.items():
            weight = torch.as_tensor(rows, dtype=torch.float32)
            layer = nn.Linear(weight.shape[1], weight.shape[0])
            layer.weight = nn.Parameter(weight)
            setattr(self, name, layer)


def pruner_of(allocator, metrics=NormMetricsCalculator, channels=False):
    """Return a pruner class that uses an allocator, a function of the pruner."""

    class Toy(BasicPruner):
        def reset_tools(self):
            self.data_collector = WeightDataCollector(self, channels=channels)
            self.metrics_calculator = metrics(dim=0) if channels else metrics()
            self.sparsity_allocator = allocator(self)

    return Toy


def masks_of(model, allocator, channels=False, **entry):
    entry = {"op_types": ["Linear"], "sparsity": 0.5, **entry}
    entry = {key: value for key, value in entry.items() if value is not None}
    pruner = pruner_of(allocator, channels=channels)(model, [entry])
    return pruner.compress()[1]


def test_single_weights():
    model = Weights(a=[[1, -2, 3], [-4, 5, -6]])
    masks = masks_of(model, NormalSparsityAllocator)
    assert masks["a"]["weight"].tolist() == [[False, False, False], [True, True, True]]
    assert masks["a"]["bias"].tolist() == [False, True]


def test_channels():
    model = Weights(a=[[1, 1], [3, 3], [2, 2]])
    masks = masks_of(model, lambda p: NormalSparsityAllocator(p, channels=True), channels=True)
    assert masks["a"]["weight"].tolist() == [[False, False], [True, True], [True, True]]
    assert masks["a"]["bias"].tolist() == [False, True, True]


def test_equal_scores_are_taken_in_order_and_exactly():
    model = Weights(a=torch.ones(4, 5))
    masks = masks_of(model, NormalSparsityAllocator, sparsity=0.55)
    assert masks["a"]["weight"].flatten().tolist() == [False] * 11 + [True] * 9


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=40),
    st.floats(0, 0.999),
)
def test_exactly_as_many_as_asked_are_pruned(values, sparsity):
    model = nn.Sequential(Weights(a=[values]))
    masks = masks_of(model, NormalSparsityAllocator, sparsity=sparsity)
    kept = int(masks["0.a"]["weight"].sum())
    assert kept == len(values) - number_to_prune(sparsity, len(values))
    mask, scores = masks["0.a"]["weight"][0], torch.tensor(values)
    if 0 < kept < len(values):
        assert scores[~mask].max() <= scores[mask].min()


def test_what_is_masked_stays_masked_and_counts():
    model = Weights(a=[[1, 2, 3, 4]])
    pruner = pruner_of(NormalSparsityAllocator)(model, [{"op_names": ["a"], "sparsity": 0.5}])
    pruner.load_masks({"a": {"weight": torch.tensor([[1, 1, 1, 0]])}})
    _, masks = pruner.compress()
    assert masks["a"]["weight"].tolist() == [[False, True, True, False]]


def test_masks_may_recover_when_the_allocator_says_so():
    model = Weights(a=[[1, 2, 3, 4]])

    def free(pruner):
        return NormalSparsityAllocator(pruner, continuous_mask=False)

    pruner = pruner_of(free)(model, [{"op_names": ["a"], "sparsity": 0.5}])
    pruner.load_masks({"a": {"weight": torch.tensor([[1, 1, 1, 0]])}})
    assert pruner.compress()[1]["a"]["weight"].tolist() == [[False, False, True, True]]


def test_blocks():
    model = Weights(a=[[1, 1, 9, 9], [1, 1, 9, 9], [5, 5, 2, 2], [5, 5, 2, 2]])

    class Blocks(BasicPruner):
        def reset_tools(self):
            self.data_collector = WeightDataCollector(self)
            self.metrics_calculator = NormMetricsCalculator(p=1, block_sparse_size=[2, 2])
            self.sparsity_allocator = NormalSparsityAllocator(self, block_sparse_size=[2, 2])

    _, masks = Blocks(model, [{"op_names": ["a"], "sparsity": 0.5}]).compress()
    off, on = [False] * 2, [True] * 2
    assert masks["a"]["weight"].tolist() == [off + on, off + on, on + off, on + off]


def test_blocks_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match=r"shape \(2, 3\) cannot be cut into blocks of 2 along"):
        NormMetricsCalculator(block_sparse_size=[2, 2]).calculate_metrics({"a": torch.ones(2, 3)})


def test_bank():
    rows = [[1, 2, 3, 4], [8, 7, 6, 5]]
    masks = masks_of(Weights(a=rows), lambda p: BankSparsityAllocator(p, [2]))
    assert masks["a"]["weight"].tolist() == [[False, True, False, True], [True, False, True, False]]
    masks = masks_of(Weights(a=rows), lambda p: BankSparsityAllocator(p, [2, 2]))
    assert masks["a"]["weight"].tolist() == [[False, False, False, False], [True] * 4]


@pytest.mark.parametrize("sizes", [[3], [1, 1, 1], [2, 3]])
def test_a_bank_that_does_not_fit_is_refused(sizes):
    with pytest.raises(ConfigError, match="cannot be cut into blocks of"):
        masks_of(Weights(a=torch.ones(2, 4)), lambda p: BankSparsityAllocator(p, sizes))


@pytest.mark.parametrize("sizes", [2, [], [0], "ab", [1.5]])
def test_a_bank_of_no_size_is_refused(sizes):
    with pytest.raises(ConfigError, match="balance_gran is .*; it must be a list"):
        masks_of(Weights(a=torch.ones(2, 4)), lambda p: BankSparsityAllocator(p, sizes))


def test_two_of_four():
    model = Weights(a=[[1, 2, 3, 4, -8, -7, 6, 5]])
    masks = masks_of(model, lambda p: NMSparsityAllocator(p, 2, 4))
    assert masks["a"]["weight"].int().tolist() == [[0, 0, 1, 1, 1, 1, 0, 0]]


def test_n_of_m_that_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match=r"'a' has the shape \(1, 6\).*groups of 4"):
        masks_of(Weights(a=torch.ones(1, 6)), lambda p: NMSparsityAllocator(p, 2, 4))
    for n in (4, "2"):
        with pytest.raises(ConfigError, match=f"n is {n!r} and m is 4"):
            masks_of(Weights(a=torch.ones(1, 8)), lambda p, n=n: NMSparsityAllocator(p, n, 4))


# --- ranking modules together --------------------------------------------------------------


def test_global_takes_the_smallest_wherever_they_are():
    model = Weights(a=[[1, 2, 3, 4]], b=[[5, 6, 7, 8]])
    masks = masks_of(model, GlobalSparsityAllocator, sparsity=None, total_sparsity=0.25)
    assert masks["a"]["weight"].int().tolist() == [[0, 0, 1, 1]]
    assert masks["b"]["weight"].int().tolist() == [[1, 1, 1, 1]]


def test_a_cap_sends_the_rest_elsewhere():
    model = Weights(a=[[1, 2, 3, 4]], b=[[5, 6, 7, 8]])
    masks = masks_of(model, GlobalSparsityAllocator, max_sparsity_per_layer=0.5)
    assert masks["a"]["weight"].int().tolist() == [[0, 0, 1, 1]]
    assert masks["b"]["weight"].int().tolist() == [[0, 0, 1, 1]]


def test_no_layer_loses_everything_unless_asked():
    rows = {"a": [[1, 2, 3, 4]], "b": [[5, 6, 7, 8]]}
    masks = masks_of(Weights(**rows), GlobalSparsityAllocator)
    assert masks["a"]["weight"].int().tolist() == [[0, 0, 0, 1]]
    assert masks["b"]["weight"].int().tolist() == [[0, 1, 1, 1]]
    masks = masks_of(Weights(**rows), GlobalSparsityAllocator, max_sparsity_per_layer=1)
    assert masks["a"]["weight"].sum() == 0


def test_every_layer_can_reach_its_cap():
    model = Weights(a=[[1, 2, 3, 4, 5]], b=[[1], [2], [3], [4], [5]])
    entry = {"sparsity": None, "total_sparsity": 0.5, "max_sparsity_per_layer": 0.5}
    masks = masks_of(model, GlobalSparsityAllocator, **entry)
    assert [int(mask["weight"].sum()) for mask in masks.values()] == [3, 3]


def test_each_entry_is_a_group_of_its_own():
    model = Weights(a=[[1, 2]], b=[[3, 4]], c=[[5, 6]])
    entries = [
        {"op_names": ["a", "b"], "total_sparsity": 0.5, "max_sparsity_per_layer": 1},
        {"op_names": ["c"], "total_sparsity": 0.5},
    ]
    _, masks = pruner_of(GlobalSparsityAllocator)(model, entries).compress()
    assert {n: int(m["weight"].sum()) for n, m in masks.items()} == {"a": 0, "b": 2, "c": 1}


def test_channels_are_ranked_with_the_weights_that_they_cost():
    # a's channels have 4 weights each, b's 1; half of 12 weights are 6.
    model = Weights(a=[[1, 1, 1, 1], [4, 4, 4, 4]], b=[[3], [5], [6], [7]])
    masks = masks_of(
        model,
        lambda p: GlobalSparsityAllocator(p, channels=True),
        channels=True,
        sparsity=None,
        total_sparsity=0.5,
        max_sparsity_per_layer=1,
    )
    assert masks["a"]["weight"][:, 0].tolist() == [False, True]
    assert masks["b"]["weight"][:, 0].tolist() == [False, False, True, True]


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=20), min_size=1, max_size=4),
    st.floats(0, 0.98),
)
def test_global_reaches_the_ratio_exactly(rows, sparsity):
    model = Weights(**{f"l{i}": [row] for i, row in enumerate(rows)})
    masks = masks_of(
        model,
        GlobalSparsityAllocator,
        sparsity=None,
        total_sparsity=sparsity,
        max_sparsity_per_layer=1,
    )
    n = sum(map(len, rows))
    assert sum(int(m["weight"].sum()) for m in masks.values()) == n - number_to_prune(sparsity, n)


def test_a_ratio_per_layer_and_a_ranking_over_layers_contradict():
    model = Weights(a=[[1, 2]])
    with pytest.raises(ConfigError, match="'a' has 'sparsity_per_layer'.*write 'total_sparsity'"):
        masks_of(model, GlobalSparsityAllocator, sparsity=None, sparsity_per_layer=0.5)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("allocator", [NormalSparsityAllocator, GlobalSparsityAllocator])
@pytest.mark.parametrize("metrics", [NormMetricsCalculator, StraightMetricsCalculator])
def test_weights_that_cannot_be_ordered_are_refused_by_name(allocator, metrics, value):
    model = Weights(a=[[1, 2]], b=[[1, value]])
    pruner = pruner_of(allocator, metrics)(model, [{"op_types": ["Linear"], "sparsity": 0.5}])
    with pytest.raises(PruneError, match="'b' contain (NaN|infinite values)"):
        pruner.compress()
    assert all(wrapper.weight_mask.all() for wrapper in pruner.get_modules_wrapper().values())


@pytest.mark.parametrize(
    ("scored", "allocated", "says"),
    [
        ({"dim": 0}, {"dim": 1}, r"have the shape \(2,\).*\(2, 4\), along dim \[1\]"),
        ({"dim": 0}, {}, r"along dim \[0, 1\] in blocks of 1"),
        ({"dim": [0, 1], "block_sparse_size": [2, 2]}, {}, r"the shape \(1, 2\)"),
        ({"dim": 5}, {"dim": 5}, r"dim is \[5\], and a tensor of shape \(2, 4\)"),
        ({}, {"dim": 5}, r"along dim \[5\]"),
    ],
)
def test_scores_that_do_not_fit_the_allocator_are_refused(scored, allocated, says):
    class Mismatched(BasicPruner):
        def reset_tools(self):
            self.data_collector = WeightDataCollector(self)
            self.metrics_calculator = NormMetricsCalculator(**scored)
            self.sparsity_allocator = NormalSparsityAllocator(self, **allocated)

    model = Weights(a=[[1, 2, 3, 4], [5, 6, 7, 8]])
    with pytest.raises(ConfigError, match=says):
        Mismatched(model, [{"sparsity": 0.5, "op_types": ["Linear"]}]).compress()


def test_a_module_without_scores_is_named():
    class Forgetful(NormMetricsCalculator):
        def calculate_metrics(self, data):
            return {"a": super().calculate_metrics(data)["a"]}

    pruner = pruner_of(NormalSparsityAllocator, metrics=Forgetful)
    with pytest.raises(PruneError, match=r"no scores for 'b'; WeightDataCollector and Forgetful"):
        pruner(Weights(a=[[1]], b=[[2]]), [{"sparsity": 0, "op_types": ["Linear"]}]).compress()
