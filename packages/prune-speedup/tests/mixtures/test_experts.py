"""Experts of mixtures that people write themselves: found, removed, and nothing else changed."""

import copy
import pickle

import pytest
import torch
from hand_written import Fused, Looped, Model, Soft
from torch import nn

import prune_core
from prune_core import ConfigError, SpeedupError

MIXTURES = {"looped": Looped, "soft": Soft, "fused": Fused}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def never_chosen(mixture, gone):
    """Let nobody choose some experts, by hand: in the router itself."""

    def forward(module, args, output):
        return output.index_fill(-1, torch.tensor(gone), float("-inf"))

    return mixture.router.register_forward_hook(forward)


@pytest.mark.parametrize("kind", MIXTURES)
def test_a_mixture_is_found_with_all_that_belongs_to_it(kind):
    model = Model(MIXTURES[kind](), MIXTURES[kind]())
    found = prune_core.experts(model, torch.randn(2, 7, 4))
    assert [mixture.name for mixture in found] == ["mixtures.0", "mixtures.1"]
    first = found["mixtures.0"]
    if kind == "looped":
        assert (first.experts, first.top_k, first.lists) == (5, 2, ("mixtures.0.experts",))
        assert {*first.router} == {("mixtures.0.router.weight", 0), ("mixtures.0.router.bias", 0)}
    elif kind == "soft":
        assert (first.experts, first.top_k, first.lists) == (4, None, ("mixtures.0.experts",))
    else:
        # Of the square router the experts are the columns.
        assert first.router == (("mixtures.0.router", 1),)
        assert first.corrections == (("mixtures.0.balance", 0),)
        assert {*first.tensors} == {("mixtures.0.up", 0), ("mixtures.0.down", 0)}
    assert "mixtures.0: " in str(found)


@pytest.mark.parametrize("kind", ["looped", "soft"])
@pytest.mark.parametrize("gone", [[0], [1, 3]])
def test_a_model_without_experts_is_the_one_that_never_chooses_them(kind, gone):
    model, x = Model(MIXTURES[kind]()), torch.randn(2, 7, 4)
    dense = copy.deepcopy(model)
    never_chosen(dense.mixtures[0], gone)
    more = torch.randn(5, 3, 4)
    report = prune_core.remove_experts(model, x, {"mixtures.0": gone})
    left = len(dense.mixtures[0].experts) - len(gone)
    assert len(model.mixtures[0].experts) == model.mixtures[0].router.out_features == left
    for inputs in (x, more):
        torch.testing.assert_close(model(inputs), dense(inputs))
    assert report.removed == len(gone)
    assert len(report.verified) >= 4
    assert report.difference < 1e-5
    assert report.parameters[1] == sum(each.numel() for each in model.parameters())


def test_a_bias_that_only_the_choice_sees_goes_with_its_expert():
    model, x = Fused(), torch.randn(8, 6)
    model.balance[1] = 5.0  # chosen by every token, as long as it is there
    dense = copy.deepcopy(model)
    prune_core.remove_experts(model, x, {"": [1]})
    assert model.router.shape == (6, 5)
    assert model.up.shape[0] == model.down.shape[0] == len(model.balance) == 5
    assert model.num_experts == 5
    dense.balance[1] = -torch.inf
    torch.testing.assert_close(model(x), dense(x))


def test_the_number_of_experts_follows_under_any_name():
    model = Model(Looped())
    prune_core.remove_experts(model, torch.randn(2, 7, 4), {"mixtures.0": [0]})
    assert (model.mixtures[0].n, model.mixtures[0].k) == (4, 2)


def test_a_number_that_only_looks_like_that_of_experts_stays():
    class Chunked(Looped):
        def __init__(self):
            super().__init__(width=6, experts=6)
            self.width = 6

        def forward(self, x):
            return super().forward(x.reshape(-1, self.width)).reshape(x.shape)

    model, x = Chunked(), torch.randn(4, 6)
    prune_core.remove_experts(model, x, {"": [2]})
    assert (model.n, model.width) == (5, 6)


def test_it_is_saved_loaded_copied_and_pickled(tmp_path):
    model, x = Model(Looped(), Fused()), torch.randn(2, 7, 4)
    dense = copy.deepcopy(model)
    report = prune_core.remove_experts(model, x, {"mixtures.0": [0, 2], "mixtures.1": [5]})
    report.save(tmp_path / "small")
    loaded = prune_core.load_pruned(dense, tmp_path / "small")
    for other in (loaded, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x), model(x))
    again = prune_core.remove_experts(model, x, {"mixtures.0": [1]})
    again.save(tmp_path / "smaller")
    dense = Model(Looped(), Fused())
    assert torch.equal(prune_core.load_pruned(dense, tmp_path / "smaller")(x), model(x))


def test_a_file_that_keeps_what_is_not_there_is_refused(tmp_path):
    model, x = Model(Looped()), torch.randn(2, 7, 4)
    prune_core.remove_experts(model, x, {"mixtures.0": [0]}).save(tmp_path / "small")
    smaller = Model(Looped(experts=3))
    before = copy.deepcopy(smaller.state_dict())
    with pytest.raises(SpeedupError, match=r"keeps the modules \[1, 2, 3, 4\]"):
        prune_core.load_pruned(smaller, tmp_path / "small")
    assert len(smaller.mixtures[0].experts) == 3
    assert all(torch.equal(before[name], each) for name, each in smaller.state_dict().items())


def test_channels_can_be_removed_afterwards():
    model, x = Model(Looped()), torch.randn(2, 7, 4)
    prune_core.remove_experts(model, x, {"mixtures.0": [4]})
    units = prune_core.units(model, x)
    group = next(g for g in units.groups if ".up" in g.name)
    prune_core.shrink(model, x, units=[units.unit(group.labels[0])])
    assert [expert.up.out_features for expert in model.mixtures[0].experts].count(9) == 1


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ({"mixtures.0": [0, 1, 2, 3]}, "1 of its 5 experts left, and it sends each token to 2"),
        ({"mixtures.0": [5]}, "numbered from 0 to 4"),
        ({"mixture.0": [0]}, "Did you mean 'mixtures.0'"),
        ([0], "must say which experts go of which mixture"),
    ],
)
def test_what_cannot_be_is_refused_and_the_model_is_untouched(gone, said):
    model, x = Model(Looped()), torch.randn(2, 7, 4)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ConfigError, match=said):
        prune_core.remove_experts(model, x, gone)
    assert before.keys() == model.state_dict().keys()


def test_a_model_without_mixtures_is_told_so():
    model = nn.Sequential(nn.Linear(4, 4), nn.Softmax(-1))
    assert len(prune_core.experts(model, torch.randn(2, 4))) == 0
    with pytest.raises(ConfigError, match="no mixture of experts"):
        prune_core.remove_experts(model, torch.randn(2, 4), {"": [0]})


def test_an_expert_that_does_more_than_be_chosen_is_refused():
    class Leaky(Soft):
        """The mean of the experts is added, whatever the router says."""

        def forward(self, x):
            mean = torch.stack([expert(x) for expert in self.experts]).mean(0)
            return super().forward(x) + mean

    model, x = Leaky(), torch.randn(5, 6)
    before = model(x)
    with pytest.raises(SpeedupError, match="when nobody chooses them"):
        prune_core.remove_experts(model, x, {"": [1]})
    assert len(model.experts) == 4
    assert torch.equal(model(x), before)


def test_nothing_named_is_no_success():
    model, x = Model(Looped()), torch.randn(2, 7, 4)
    with pytest.warns(prune_core.PruneWarning, match="nothing was removed"):
        prune_core.remove_experts(model, x, {"mixtures.0": []})


@pytest.mark.parametrize("kind", ["looped", "fused"])
def test_an_optimizer_goes_on_with_what_is_left(kind):
    model, x = Model(MIXTURES[kind]()), torch.randn(2, 7, 4)
    optimizer = torch.optim.Adam(model.parameters())
    model(x).square().sum().backward()
    optimizer.step()
    report = prune_core.remove_experts(model, x, {"mixtures.0": [0]})
    prune_core.shrink_optimizer(optimizer, report)
    router = model.mixtures[0].router
    weight = router if kind == "fused" else router.weight
    assert optimizer.state[weight]["exp_avg"].shape == weight.shape
    optimizer.zero_grad()
    model(x).square().sum().backward()
    optimizer.step()


def test_an_optimizer_that_was_forgotten_is_told_of():
    model, x = Model(Fused()), torch.randn(2, 7, 4)
    optimizer = torch.optim.Adam(model.parameters())
    model(x).square().sum().backward()
    optimizer.step()
    prune_core.remove_experts(model, x, {"mixtures.0": [0]})
    model(x).square().sum().backward()
    with pytest.raises(SpeedupError, match="shrink_optimizer"):
        optimizer.step()


def test_a_weight_as_long_as_there_are_experts_is_none_of_theirs():
    """Width, inner width and number of experts are one number."""
    model, x = Model(Fused(width=6, inner=6, experts=6)), torch.randn(2, 7, 4)
    [mixture] = prune_core.experts(model, x)
    assert mixture.router == (("mixtures.0.router", 1),)
    assert {*mixture.tensors} == {("mixtures.0.up", 0), ("mixtures.0.down", 0)}
    prune_core.remove_experts(model, x, {"mixtures.0": [0, 1]})
    assert model.mixtures[0].up.shape == (4, 6, 6)


def test_a_gate_that_is_not_followed_by_experts_is_no_router():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate, self.mixture = nn.Linear(6, 6), Fused(experts=6)

        def forward(self, x):
            return self.mixture(x) * self.gate(x).sigmoid()

    [mixture] = prune_core.experts(Gated(), torch.randn(5, 6))
    assert mixture.name == "mixture"


def test_without_a_comparison_the_number_of_experts_follows_as_well():
    model, x = Model(Looped()), torch.randn(2, 7, 4)
    report = prune_core.remove_experts(model, x, {"mixtures.0": [0]}, verify=False)
    assert report.comparison is None
    assert model.mixtures[0].n == 4
    model(x)
