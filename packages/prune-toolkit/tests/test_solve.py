"""The least squares behind reconstruction, against numpy's."""

import numpy as np
import pytest
import torch

from prune_core import PruneError
from prune_toolkit.reconstruct.solve import damped, factor, refitted


def problem(outputs=5, features=8, groups=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(groups, 60, features, generator=generator)
    x = x @ torch.randn(groups, features, features, generator=generator)
    weight = torch.randn(groups, outputs, features, generator=generator)
    return x, weight, (x.transpose(1, 2) @ x).double() / 60


def by_numpy(x, weight, support, damping):
    """Minimise ‖X v − X w‖² / n + λ ‖v − w‖² over what may differ from zero, one row at a time."""
    fitted = np.zeros_like(weight.numpy(), dtype=np.float64)
    for g, o in np.ndindex(*weight.shape[:2]):
        rows, w, kept = x[g].double().numpy(), weight[g, o].double().numpy(), support[g, o].numpy()
        strength = damping * (rows**2).sum() / rows.size
        design = np.vstack(
            [rows[:, kept] / np.sqrt(len(rows)), np.sqrt(strength) * np.eye(kept.sum())]
        )
        target = np.concatenate([rows @ w / np.sqrt(len(rows)), np.sqrt(strength) * w[kept]])
        fitted[g, o, kept] = np.linalg.lstsq(design, target, rcond=None)[0]
    return torch.from_numpy(fitted)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("damping", [0.01, 1.0])
def test_columns_that_go_for_all_rows(groups, damping):
    x, weight, gram = problem(groups=groups)
    support = torch.ones_like(weight, dtype=torch.bool)
    support[..., [1, 4, 6]] = False
    found = refitted(weight, support, gram, damping)
    expected = by_numpy(x, weight, support, damping)
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-4)
    assert not found[~support].any()


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("damping", [0.01, 1.0])
def test_each_row_with_places_of_its_own(groups, damping):
    x, weight, gram = problem(groups=groups)
    support = torch.rand(weight.shape, generator=torch.Generator().manual_seed(1)) > 0.4
    support[0, 0] = False  # a row of which nothing is left
    found = refitted(weight, support, gram, damping)
    expected = by_numpy(x, weight, support, damping)
    torch.testing.assert_close(found.double(), expected, atol=2e-3, rtol=2e-3)
    assert not found[~support].any()


def test_the_example_of_two_equal_inputs():
    gram = torch.tensor([[[1.0, 1.0], [1.0, 1.0]]], dtype=torch.float64)
    weight, support = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[True, False]]])
    found = refitted(weight, support, gram, 1e-6)
    torch.testing.assert_close(found, torch.tensor([[[3.0, 0.0]]]), atol=1e-4, rtol=0)


def test_nothing_to_fit_and_nothing_left():
    _, weight, gram = problem()
    every = torch.ones_like(weight, dtype=torch.bool)
    assert torch.equal(refitted(weight, every, gram, 0.01), weight)
    assert not refitted(weight, ~every, gram, 0.01).any()


def test_inputs_that_are_always_zero_do_no_harm():
    x, weight, _ = problem()
    x[..., 2] = 0
    gram = (x.transpose(1, 2) @ x).double() / 60
    support = torch.ones_like(weight, dtype=torch.bool)
    support[..., 1] = False
    assert refitted(weight, support, gram, 0.01).isfinite().all()
    assert refitted(weight, support, torch.zeros_like(gram), 0.01).isfinite().all()


def test_more_features_than_rows_give_a_singular_matrix_that_is_solved():
    x = torch.randn(1, 3, 8, generator=torch.Generator().manual_seed(0))
    gram, weight = (x.transpose(1, 2) @ x).double() / 3, torch.randn(1, 2, 8)
    support = torch.ones_like(weight, dtype=torch.bool)
    support[..., :5] = False
    found = refitted(weight, support, gram, 1e-6)
    # Three rows can be met exactly with three features.
    torch.testing.assert_close(
        x @ found.transpose(1, 2), x @ weight.transpose(1, 2), atol=1e-2, rtol=1e-2
    )


def test_damping_is_a_share_of_the_mean_diagonal():
    gram = torch.diag_embed(torch.tensor([[1.0, 3.0]]))
    assert damped(gram, 0.5).tolist() == [[[2, 0], [0, 4]]]
    assert damped(torch.zeros(1, 2, 2), 0.5).tolist() == [[[1, 0], [0, 1]]]


def test_a_matrix_a_little_below_positive_is_factored():
    matrix = torch.diag_embed(torch.tensor([[1.0, -1e-8]], dtype=torch.float64))
    lower = factor(matrix)
    torch.testing.assert_close(lower @ lower.mT, matrix, atol=1e-5, rtol=0)
    with pytest.raises(PruneError, match="larger damping"):
        factor(torch.diag_embed(torch.tensor([[1.0, -1.0]])))
