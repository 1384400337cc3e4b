"""Units of several groups and of recurrent layers, and what is taken where nothing is named."""

import copy

import pytest
import torch
from torch import nn

import prune_core
from prune_core import ConfigError
from prune_oneshot import ActivationNormPruner, ChannelOBSPruner


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.first = nn.Linear(5, 8)
        self.middle = kind(8, 12, batch_first=True)
        self.last = nn.Linear(12, 3)

    def forward(self, x):
        return self.last(self.middle(self.first(x).relu())[0])


BATCHES = [torch.randn(4, 7, 5, generator=torch.Generator().manual_seed(n)) for n in range(3)]


@pytest.mark.parametrize("algorithm", ["activation_norm", "flap", "channel_obs"])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_hidden_units_of_recurrent_layers_go(kind, algorithm):
    torch.manual_seed(0)
    model = Recurrent(kind).eval()
    model, masks = prune_core.prune(
        model, algorithm, sparsity=0.5, example_inputs=BATCHES[0], data=BATCHES
    )
    masked = model(BATCHES[0])
    prune_core.unwrap(model)
    prune_core.shrink(model, BATCHES[0], masks)
    assert (model.first.out_features, model.middle.hidden_size) == (4, 6)
    torch.testing.assert_close(model(BATCHES[0]), masked)


def test_the_hidden_unit_that_nobody_listens_to_goes_first():
    torch.manual_seed(0)
    model = Recurrent(nn.LSTM).eval()
    silent = [1, 5, 6]
    with torch.no_grad():
        model.last.weight[:, silent] *= 1e-3
    _, masks = prune_core.prune(
        model, "activation_norm", sparsity=0.25, example_inputs=BATCHES[0], data=BATCHES
    )
    gone = ~masks["middle"]["weight_hh_l0"].any(1)
    assert gone.view(4, 12).all(0).nonzero().flatten().tolist() == silent


class Two(nn.Module):
    """Two groups of units; those of the first differ much, those of the second do not."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 10), nn.Linear(6, 10)
        self.of_a, self.of_b = nn.Linear(10, 2), nn.Linear(10, 2)
        with torch.no_grad():
            self.of_a.weight.mul_(torch.logspace(-3, 0, 10))

    def forward(self, x):
        return self.of_a(self.a(x).relu()) + self.of_b(self.b(x).relu())


DATA = [torch.randn(64, 6, generator=torch.Generator().manual_seed(n)) for n in range(3)]


def calibrate(model):
    for batch in DATA:
        model(batch)


def gone(masks):
    return {name: int((~masks[name]["weight"].any(1)).sum()) for name in ("a", "b")}


def test_groups_are_ranked_together_where_that_is_asked_for():
    torch.manual_seed(0)
    rules = [{"total_sparsity": 0.4, "op_names": ["a", "b"]}]
    apart = ActivationNormPruner(Two(), rules, calibrate=calibrate).compress()[1]
    assert gone(apart) == {"a": 4, "b": 4}
    together = ActivationNormPruner(Two(), rules, mode="global", calibrate=calibrate).compress()[1]
    assert gone(together)["a"] > 4 > gone(together)["b"]
    assert sum(gone(together).values()) == 8


def test_places_in_an_order_are_not_compared_between_groups():
    message = "the modes of ChannelOBSPruner are 'dependency_aware'"
    with pytest.raises(ConfigError, match=message):
        ChannelOBSPruner(Two(), [{"sparsity": 0.4}], mode="global", calibrate=calibrate)
    with pytest.raises(ConfigError, match=message):
        prune_core.prune(
            Two(), "channel_obs", sparsity=0.4, mode="global", data=DATA, example_inputs=DATA[0]
        )


def test_with_data_the_best_that_has_the_mode_is_taken():
    torch.manual_seed(0)
    model = Two()
    loss = {}
    for mode, algorithm in ((None, "channel_obs"), ("global", "activation_norm")):
        how = {} if mode is None else {"mode": mode}
        by_default, masks = prune_core.prune(copy.deepcopy(model), sparsity=0.4, data=DATA, **how)
        named, _ = prune_core.prune(
            copy.deepcopy(model),
            algorithm,
            sparsity=0.4,
            data=DATA,
            example_inputs=DATA[0],
            reconstruct="least_squares",
            **how,
        )
        torch.testing.assert_close(by_default(DATA[0]), named(DATA[0]))
        loss[mode] = gone(masks)
    assert loss[None] == {"a": 4, "b": 4} != loss["global"]
