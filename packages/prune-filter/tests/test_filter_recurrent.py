"""Recurrent layers lose hidden units: scored over all of their tensors, masked, and removed."""

import copy

import pytest
import torch
from torch import nn

import prune_core
from prune_core import ConfigError, PruneError, shrink
from prune_filter import (
    ActivationMeanRankPruner,
    FPGMPruner,
    GroupTaylorPruner,
    L1NormPruner,
    LevelPruner,
    TaylorFOWeightPruner,
)

X = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(0))
KINDS = [nn.LSTM, nn.GRU, nn.RNN]
FORMS = [
    {},
    {"num_layers": 2},
    {"bidirectional": True},
    {"num_layers": 2, "bidirectional": True, "bias": False},
]


class Tagger(nn.Module):
    def __init__(self, kind=nn.LSTM, **form):
        super().__init__()
        torch.manual_seed(0)
        self.rnn = kind(6, 8, batch_first=True, **form)
        width = form.get("proj_size") or 8 * (1 + form.get("bidirectional", False))
        self.head = nn.Linear(width, 4)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


class Stepper(nn.Module):
    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(0)
        self.cell, self.head = kind(6, 8), nn.Linear(8, 4)

    def forward(self, x):
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.head(state[0] if isinstance(state, tuple) else state)


def rules(kind, sparsity=0.5):
    return [{"op_types": [kind.__name__], "sparsity": sparsity}]


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("aware", [False, True])
def test_hidden_units_are_masked_and_removed(kind, form, aware):
    model = Tagger(kind, **form).eval()
    options = {"mode": "dependency_aware", "dummy_input": X} if aware else {}
    pruner = L1NormPruner(model, rules(kind), **options)
    model, masks = pruner.compress()
    masked = model(X)
    states = model.rnn(X)[0].unflatten(-1, (-1, 8))
    assert int((states == 0).all(0).all(0).all(0).sum()) == 4, "masked units are zero throughout"
    assert set(masks["rnn"]) == {
        name for name, _ in pruner._wrappers["rnn"].module.named_parameters()
    }
    prune_core.unwrap(model)
    report = shrink(model, X, masks)
    assert model.rnn.hidden_size == 4
    assert not report.kept
    torch.testing.assert_close(model(X), masked, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_cells(kind):
    model = Stepper(kind).eval()
    _, masks = L1NormPruner(model, rules(kind)).compress()
    masked = model(X)
    shrink(prune_core.unwrap(model), X, masks)
    assert model.cell.hidden_size == 4
    torch.testing.assert_close(model(X), masked, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_projected_units():
    model = Tagger(proj_size=4).eval()
    _, masks = L1NormPruner(model, rules(nn.LSTM, 0.25)).compress()
    masked = model(X)
    shrink(prune_core.unwrap(model), X, masks)
    assert (model.rnn.hidden_size, model.rnn.proj_size) == (6, 4)
    torch.testing.assert_close(model(X), masked, rtol=1e-4, atol=1e-5)
    # torch takes a projection to as many as there are units for none, and cannot run it.
    model = Tagger(proj_size=4).eval()
    _, masks = L1NormPruner(model, rules(nn.LSTM)).compress()
    with pytest.raises(PruneError, match="does not follow smaller tensors"):
        shrink(prune_core.unwrap(model), X, masks)
    with pytest.raises(PruneError, match="projects its hidden units"):
        ActivationMeanRankPruner(
            Tagger(proj_size=4), rules(nn.LSTM), calibrate=lambda model: model(X)
        ).compress()


def test_a_unit_is_scored_by_its_rows_in_every_gate():
    model = nn.Sequential(nn.LSTM(2, 3))
    gates = torch.tensor([[1.0, 2, 3], [0, 5, 0], [4, 0, 0], [1, 1, 1]]).reshape(12, 1)
    with torch.no_grad():
        model[0].weight_ih_l0.copy_(gates / 2)
        model[0].weight_hh_l0.copy_(gates / 3)
    pruner = L1NormPruner(model, rules(nn.LSTM))
    # Twice the column sums [6, 8, 4], once from each of the two weights.
    torch.testing.assert_close(pruner.score()["0"], torch.tensor([12.0, 16, 8]))
    _, masks = pruner.compress()
    assert masks["0"]["bias_ih_l0"].tolist() == [True, True, False] * 4


def loss(model):
    model(X).square().mean().backward()


@pytest.mark.parametrize("joint", [False, True])
def test_taylor_terms_of_all_tensors(joint):
    model = Tagger(num_layers=2)
    plain = copy.deepcopy(model)
    loss(plain)
    terms = [
        (p * p.grad).view(4, 8, -1).transpose(0, 1).flatten(1)
        for name, p in plain.rnn.named_parameters()
        if name.startswith("weight")
    ]
    terms = torch.cat(terms, 1)
    expected = terms.sum(1).square() if joint else terms.square().sum(1)
    kind = GroupTaylorPruner if joint else TaylorFOWeightPruner
    scores = kind(model, rules(nn.LSTM), calibrate=loss).score()["rnn"]
    torch.testing.assert_close(scores, expected.detach())


def test_activations_are_those_of_the_last_layer_in_both_directions():
    model = Tagger(bidirectional=True).eval()
    expected = model.rnn(X)[0].relu().unflatten(-1, (2, 8)).mean((0, 1, 2)).detach()
    pruner = ActivationMeanRankPruner(
        model, rules(nn.LSTM), calibrate=lambda model: model.eval()(X)
    )
    torch.testing.assert_close(pruner.score()["rnn"].float(), expected)


def test_a_packed_sequence():
    model = Tagger().eval()
    packed = nn.utils.rnn.pack_padded_sequence(X, [5, 3, 2], batch_first=True)
    pruner = ActivationMeanRankPruner(
        model, rules(nn.LSTM), calibrate=lambda model: model.rnn(packed) and model(X)
    )
    _, masks = pruner.compress()
    assert masks["rnn"]["bias_hh_l0"].sum() == 16
    assert model.rnn(packed)[0].data.shape == (10, 8)


@pytest.mark.parametrize("pruner", [L1NormPruner, FPGMPruner])
def test_by_default_and_by_budget(pruner):
    name = {L1NormPruner: "l1", FPGMPruner: "fpgm"}[pruner]
    model = Tagger().eval()
    asked = {"example_inputs": X}
    _, masks = prune_core.prune(model, name, target={"parameters": 0.5}, **asked)
    masked = model(X)
    report = shrink(prune_core.unwrap(model), X, masks)
    before, after = report.parameters
    assert after <= before / 2
    torch.testing.assert_close(model(X), masked, rtol=1e-4, atol=1e-5)


def test_it_trains_is_saved_and_pruned_on():
    model = Tagger().train()
    pruner = L1NormPruner(model, rules(nn.LSTM, 0.25))
    _, masks = pruner.compress()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    loss(model)
    optimizer.step()
    state = copy.deepcopy(model.state_dict())
    again = Tagger()
    other = L1NormPruner(again, rules(nn.LSTM, 0.25))
    again.load_state_dict(state)
    torch.testing.assert_close(again(X), model(X))
    for wrapper in other.get_modules_wrapper().values():
        wrapper.config.update(sparsity=0.5)
    _, more = other.compress()
    assert not (more["rnn"]["bias_hh_l0"] & ~masks["rnn"]["bias_hh_l0"]).any()
    assert more["rnn"]["bias_hh_l0"].sum() == 16
    assert "rnn" in str(other.summary())


def test_single_weights_are_not_pruned_there_and_it_is_said_why():
    with pytest.raises(ConfigError, match="'rnn' loses whole hidden units only.*such as 'l1'"):
        LevelPruner(Tagger(), rules(nn.LSTM))
    _, masks = LevelPruner(Tagger(), [{"op_types": ["default"], "sparsity": 0.5}]).compress()
    assert set(masks) == {"head"}
