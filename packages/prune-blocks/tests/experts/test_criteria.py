"""The scores of experts, by hand; and what the pruners refuse."""

import copy

import pytest
import torch
from torch import nn

import prune_core
from prune_blocks.experts.criteria import ReapPruner
from prune_blocks.experts.statistics import gather
from prune_core import ConfigError, PruneWarning


class Scale(nn.Module):
    """An expert that multiplies by a number."""

    def __init__(self, factor):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(float(factor)))

    def forward(self, x):
        return x * self.factor


class Sparse(nn.Module):
    """The router reads its logits off the input, so that everything can be worked out by hand."""

    def __init__(self, factors=(1.0, 4.0, 2.0), top_k=1):
        super().__init__()
        self.top_k = top_k
        self.router = nn.Linear(3, len(factors), bias=False)
        self.router.weight.data = torch.eye(len(factors), 3)
        self.experts = nn.ModuleList(map(Scale, factors))

    def forward(self, x):
        weights, chosen = self.router(x).softmax(-1).topk(self.top_k, dim=-1)
        out = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            token, slot = (chosen == number).nonzero(as_tuple=True)
            out = out.index_add(0, token, expert(x[token]) * weights[token, slot, None])
        return out


class Soft(Sparse):
    """Every token goes to every expert."""

    def forward(self, x):
        gates = self.router(x).softmax(-1)
        return sum(gates[:, at, None] * expert(x) for at, expert in enumerate(self.experts))


class Told(nn.Module):
    """The experts of one tensor, told which tokens they get and how these are weighed."""

    def __init__(self, factors):
        super().__init__()
        self.factors = nn.Parameter(torch.tensor(factors)[:, None, None] * torch.eye(3))

    def forward(self, x, chosen, weights):
        made = torch.einsum("td,tkde->tke", x, self.factors[chosen])
        return (made * weights[..., None]).sum(1)


class Fused(nn.Module):
    def __init__(self, factors=(1.0, 4.0, 2.0), top_k=1):
        super().__init__()
        self.top_k = top_k
        self.router = nn.Linear(3, len(factors), bias=False)
        self.router.weight.data = torch.eye(len(factors), 3)
        self.experts = Told(factors)

    def forward(self, x):
        weights, chosen = self.router(x).softmax(-1).topk(self.top_k, dim=-1)
        return self.experts(x, chosen, weights)


class InOne(Fused):
    """The same, with nothing told to another module."""

    def __init__(self, factors=(1.0, 4.0, 2.0), top_k=1):
        super().__init__(factors, top_k)
        self.factors = self.experts.factors
        del self.experts

    def forward(self, x):
        weights, chosen = self.router(x).softmax(-1).topk(self.top_k, dim=-1)
        made = torch.einsum("td,tkde->tke", x, self.factors[chosen])
        return (made * weights[..., None]).sum(1)


X = torch.tensor([[3.0, 0.0, 0.0], [2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 4.0]])
"""Two tokens for expert 0, one for each of the others."""


def by_hand(top_k):
    """Tokens, sums of norms and sums of weighted norms of each expert, in plain loops."""
    factors, routed, norms, added = (1.0, 4.0, 2.0), [0] * 3, [0.0] * 3, [0.0] * 3
    for x in X:
        gates = x.softmax(-1)
        for expert in gates.topk(top_k).indices.tolist():
            size = factors[expert] * x.norm().item()
            routed[expert] += 1
            norms[expert] += size
            added[expert] += gates[expert].item() * size
    return routed, norms, added


@pytest.mark.parametrize("kind", [Sparse, Fused, InOne])
@pytest.mark.parametrize("top_k", [1, 2])
def test_what_is_gathered_is_what_one_counts_by_hand(kind, top_k):
    model = kind(top_k=top_k)
    before = copy.deepcopy(model.state_dict())
    seen = gather(model, prune_core.experts(model, X), lambda m: (m(X[:3]), m(X[3:])))[""]
    routed, norms, added = by_hand(top_k)
    assert seen.tokens == 4
    assert seen.routed.tolist() == routed
    assert seen.added.tolist() == pytest.approx(added, rel=1e-5)
    if kind is InOne:
        assert seen.norms is None
    else:
        assert seen.norms.tolist() == pytest.approx(norms, rel=1e-5)
    assert all(torch.equal(before[name], each) for name, each in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "goes"),
    [
        # Each of experts 1 and 2 gets one token, expert 0 two: of equals the first goes.
        ("expert_frequency", 1),
        # The sums of the norms are 3 + 2, 4 and 8.
        ("expert_activation", 1),
        # By tokens and gates, 0.95 · 3 and 0.79 · 2, 0.58 · 4 and 0.96 · 8: means 2.2, 2.3, 7.7.
        ("reap", 0),
    ],
)
@pytest.mark.parametrize("kind", [Sparse, Fused])
def test_the_expert_that_matters_least_goes(kind, name, goes):
    model = kind()
    kept = [at for at in range(3) if at != goes]
    weight = model.router.weight.detach().clone()
    model, report = prune_core.prune(model, name, sparsity=0.34, data=[X], example_inputs=X)
    assert report.removed == 1
    assert torch.equal(model.router.weight, weight[kept])


def test_padding_does_not_count():
    class Padded(nn.Module):
        def __init__(self):
            super().__init__()
            self.mixture = Sparse()

        def forward(self, x, attention_mask=None):
            return self.mixture(x.reshape(-1, 3)).reshape(x.shape)

    model, x = Padded(), X.reshape(2, 2, 3)
    mask = torch.tensor([[1, 1], [0, 1]])
    found = prune_core.experts(model, x)
    seen = gather(model, found, lambda m: m(x, attention_mask=mask))["mixture"]
    assert (seen.tokens, seen.routed.tolist()) == (3, [2, 0, 1])


def test_where_every_token_goes_to_every_expert():
    model = Soft()
    gates = X.softmax(-1)
    norms = X.norm(dim=1, keepdim=True) * torch.tensor([1.0, 4.0, 2.0])
    seen = gather(model, prune_core.experts(model, X), lambda m: m(X))[""]
    assert seen.routed.tolist() == [4, 4, 4]
    assert seen.norms.tolist() == pytest.approx(norms.sum(0).tolist())
    assert seen.added.tolist() == pytest.approx((gates * norms).sum(0).tolist(), rel=1e-5)


def test_experts_that_no_token_reached_are_named():
    with pytest.warns(PruneWarning, match=r"sent to the experts 1, 2 of ''"):
        model, _ = prune_core.prune(Sparse(), "reap", sparsity=0.34, data=[X[:2]])
    assert [each.factor.item() for each in model.experts] == [1.0, 2.0]


def test_all_mixtures_together_lose_what_matters_least_of_all():
    even, uneven = Sparse((2.0, 2.0, 2.0)), Sparse((9.0, 0.1, 0.1))
    model = nn.Sequential(even, uneven)
    x = torch.eye(3).repeat(2, 1)
    model, report = prune_core.prune(model, "reap", sparsity=0.34, data=[x], mode="global")
    assert report.removed == 2
    assert [len(each.experts) for each in model] == [3, 1]


def test_a_budget_of_parameters():
    model = nn.Sequential(Sparse(), nn.Linear(3, 3))  # 12 of 24 parameters in three experts
    model, report = prune_core.prune(model, "reap", target={"parameters": 0.7}, data=[X])
    assert report.parameters == (24, 16)


def test_a_multiple_of_experts_is_left():
    model = Sparse((1.0, 2.0, 3.0, 4.0, 5.0, 6.0))
    model.router.weight.data = torch.cat([torch.eye(3), -torch.eye(3)])
    x = torch.cat([torch.eye(3), -torch.eye(3)]) + torch.tensor([0.03, 0.02, 0.01])
    model, _ = prune_core.prune(model, "reap", sparsity=0.6, round_to=4, data=[x])
    assert len(model.experts) == 4


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sparsity": 0.7, "data": [X]}, "leaves 1 of the 3 experts"),
        ({"sparsity": 0.5}, "give data="),
        ({"sparsity": 0.1, "data": [X]}, "takes no whole expert"),
        ({"target": {"flops": 0.5}, "data": [X]}, "share of the parameters"),
        ({"target": {"parameters": 0.1}, "data": [X]}, "leaves 0."),
        ({"sparsity": 0.5, "data": [X], "targets": "moe"}, "no mixture of experts 'moe'"),
        ({"sparsity": 0.5, "data": [X], "exclude": ""}, "is excluded"),
        ({"sparsity": 0.5, "data": [X], "mode": "dependency_aware"}, "mode is"),
    ],
)
def test_what_cannot_be_is_refused_and_the_model_is_untouched(options, said):
    model = Sparse(top_k=2)
    with pytest.raises(ConfigError, match=said):
        prune_core.prune(model, "reap", **options)
    assert len(model.experts) == model.router.out_features == 3


def test_a_model_without_mixtures_is_told_so():
    with pytest.raises(ConfigError, match="no mixture of experts"):
        prune_core.prune(nn.Linear(3, 3), "reap", sparsity=0.5, data=[X])


def test_how_often_says_nothing_where_all_are_always_chosen():
    with pytest.raises(ConfigError, match="Every token goes to every expert"):
        prune_core.prune(Soft(), "expert_frequency", sparsity=0.5, data=[X])


def test_the_form_with_a_config_list():
    pruner = ReapPruner(Sparse(), [{"sparsity": 0.34, "op_types": ["Sparse"]}], data=[X])
    model, masks = pruner.compress()
    assert masks == {}
    assert len(model.experts) == 2
    assert pruner.scores[""].argmin() == 0
    assert pruner.report.removed == 1
