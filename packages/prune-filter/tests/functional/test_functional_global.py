"""Global pruning on tensors small enough to check by hand."""

import pytest
import torch
from torch import nn

import prune_core.functional as prune
from prune_core import PruneError


@pytest.fixture
def pairs():
    a, b = nn.Linear(4, 2), nn.Linear(3, 1)
    a.weight.data = torch.tensor([[1.0, 2.0, 3.0, 4.0], [-4.0, -3.0, -2.0, -1.0]])
    b.weight.data = torch.tensor([[0.0, 0.1, -2.0]])
    return [(a, "weight"), (b, "weight")]


def weights(pairs):
    return [module.weight.tolist() for module, _ in pairs]


def test_the_smallest_anywhere(pairs):
    prune.global_unstructured(pairs, prune.L1Unstructured, amount=4)
    assert weights(pairs) == [[[0, 2, 3, 4], [-4, -3, -2, 0]], [[0, 0, -2]]]
    assert all(type(m._forward_pre_hooks.popitem()[1]) is prune.CustomFromMask for m, _ in pairs)


def test_exactly_as_many_as_asked_for_where_many_are_equal(pairs):
    for module, _ in pairs:
        module.weight.data.fill_(0.5)
    prune.global_unstructured(pairs, prune.L1Unstructured, amount=9)
    assert [m.weight_mask.tolist() for m, _ in pairs] == [[[0] * 4, [0] * 4], [[0, 1, 1]]]


def test_again_on_what_is_left(pairs):
    for _ in range(2):
        prune.global_unstructured(iter(pairs), prune.L1Unstructured, amount=2)
    assert weights(pairs) == [[[0, 2, 3, 4], [-4, -3, -2, 0]], [[0, 0, -2]]]


def test_importance_scores_decide(pairs):
    scores = {pairs[1]: torch.tensor([[9.0, 9.0, 0.5]])}
    prune.global_unstructured(pairs, prune.L1Unstructured, scores, amount=1)
    assert weights(pairs)[1] == [[0, torch.tensor(0.1).item(), 0]]


def test_a_method_of_ones_own_sees_all_entries_in_a_row(pairs):
    class EveryThird(prune.BasePruningMethod):
        PRUNING_TYPE = "unstructured"

        def compute_mask(self, t, default_mask):
            assert t.dim() == 1
            mask = default_mask.clone()
            mask[::3] = 0
            return mask

    prune.l1_unstructured(pairs[0][0], "weight", amount=2)
    prune.global_unstructured(pairs, EveryThird)
    assert weights(pairs)[0] == [[0, 0, 3, 4], [0, -3, -2, 0]]
    assert [m.weight_mask.tolist() for m, _ in pairs][1] == [[0, 1, 1]]


def test_a_subclass_that_computes_otherwise_is_asked(pairs):
    class Largest(prune.L1Unstructured):
        def compute_mask(self, t, default_mask):
            return super().compute_mask(-1 / t.abs().clamp(min=0.01), default_mask)

    prune.global_unstructured(pairs, Largest, amount=2)
    assert weights(pairs)[0] == [[1, 2, 3, 0], [0, -3, -2, -1]]


def test_nan_is_named(pairs):
    pairs[1][0].weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"parameters\[1\] \('weight' of Linear\) contains NaN"):
        prune.global_unstructured(pairs, prune.L1Unstructured, amount=1)
    assert not any(prune.is_pruned(module) for module, _ in pairs)


def test_half_precision_next_to_single(pairs):
    pairs[1][0].half()
    prune.global_unstructured(pairs, prune.L1Unstructured, amount=2)
    assert pairs[1][0].weight_mask.dtype == torch.float16
    assert pairs[1][0].weight_mask.tolist() == [[0, 0, 1]]


def test_no_pairs_and_no_pairs_at_all_are_refused(pairs):
    with pytest.raises(PruneError, match="parameters is empty"):
        prune.global_unstructured([], prune.L1Unstructured, amount=1)
    with pytest.raises(PruneError, match="parameters has a Linear; it must be an iterable of"):
        prune.global_unstructured([pairs[0][0]], prune.L1Unstructured, amount=1)
