"""New values for old tickets: Zhou's variants and the controls, against written-out numbers."""

import pytest
import torch
from torch import nn

from prune_core import ConfigError, PruneError
from prune_lottery import CONTROLS, LotteryTicket, run_control
from prune_lottery.module_state import take_module
from prune_lottery.redraw import constant, reinitialise, reshuffled, with_signs
from prune_lottery.shuffle import shuffled

INITIAL = torch.tensor([3.0, -1.0, 2.0, -4.0, 0.5])
MASK = torch.tensor([True, True, False, True, False])


def generator():
    return torch.Generator().manual_seed(0)


def test_constant_has_one_magnitude_and_random_signs():
    values = constant(INITIAL.repeat(20), generator())
    assert values.abs().allclose(INITIAL.std(correction=0))
    assert 20 < (values > 0).sum() < 80


def test_signs_are_those_of_the_beginning():
    assert with_signs(torch.tensor([1.0, 2.0, -3.0]), torch.tensor([-1.0, 1.0, 1.0])).tolist() == [
        -1.0,
        2.0,
        3.0,
    ]


def test_numbers_are_drawn_alike_whatever_the_default_device():
    expected = constant(INITIAL, generator()), reshuffled(INITIAL, MASK, generator())
    with torch.device("meta"):  # which has no numbers
        found = constant(INITIAL, generator()), reshuffled(INITIAL, MASK, generator())
    assert all(a.equal(b) for a, b in zip(found, expected, strict=True))


def test_only_survivors_change_places():
    values = reshuffled(INITIAL, MASK, generator())
    assert sorted(values[MASK].tolist()) == sorted(INITIAL[MASK].tolist())
    assert torch.equal(values[~MASK], INITIAL[~MASK])


def test_what_cannot_be_reset_is_named_before_anything_is_reset():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.ones(2))

    model = nn.Sequential(nn.Linear(2, 2), Scale())
    before = model[0].weight.clone()
    with pytest.raises(PruneError, match="'1', a Scale, has parameters and no reset_parameters"):
        reinitialise(model, None)
    assert torch.equal(model[0].weight, before)
    reinitialise(model, lambda m: nn.init.zeros_(m[1].factor))
    assert (model[1].factor == 0).all()


@pytest.fixture
def done(net, config, trainer, accuracy):
    lottery = LotteryTicket(net, config, rounds=2, pruning_algorithm="tiny_level")
    lottery.run(train=trainer(), evaluate=accuracy)
    return lottery


@pytest.mark.parametrize("kind", CONTROLS)
def test_a_control_changes_one_thing(done, trainer, accuracy, kind):
    initial = done.rewind_points.initial["model"]["tensors"]["first.weight"]
    ticket = done.masks(2)["first"]["weight"]
    started, before = {}, take_module(done.model)["tensors"]

    def train(model, this_round):
        started["weight"] = done.wrappers["first"].module.weight.detach().clone()
        started["mask"] = done.wrappers["first"].masks["weight"].clone()
        trainer()(model, this_round)

    (record,) = run_control(done, kind, train=train, evaluate=accuracy, rounds=[2])
    weight, mask = started["weight"], started["mask"]
    assert record.layers["first"] == (~ticket).sum() / ticket.numel()
    assert (weight[~mask] == 0).all()
    if kind == "random_mask":
        assert not torch.equal(mask, ticket)
        assert torch.equal(weight[mask], initial[mask])
    else:
        assert torch.equal(mask, ticket)
        assert not torch.equal(weight[mask], initial[mask])
        if kind.startswith("sign:"):
            assert torch.equal(weight[mask].sign(), initial[mask].sign())
    if "constant" in kind:
        assert weight[mask].abs().allclose(initial.std(correction=0))
    if "reshuffle" in kind:
        assert torch.equal(weight[mask].abs().sort()[0], initial[mask].abs().sort()[0])
    after = take_module(done.model)["tensors"]
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_controls_are_not_trained_twice(done, trainer):
    calls = []

    def train(model, this_round):
        calls.append(this_round.index)
        trainer()(model, this_round)

    first = run_control(done, "reinit", train=train)
    assert run_control(done, "reinit", train=train) == first
    assert calls == [1, 2]


def test_an_unknown_control_is_told(done, trainer):
    with pytest.raises(ConfigError, match="kind is 'reinnit'.* Did you mean 'reinit'"):
        run_control(done, "reinnit", train=trainer())
    with pytest.raises(ConfigError, match="Round 7 is not finished"):
        run_control(done, "reinit", train=trainer(), rounds=[7])


def test_whole_channels_are_shuffled_as_whole_channels(rows):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    rules = [{"op_names": ["0"], "sparsity": 0.5}]
    lottery = LotteryTicket(model, rules, rounds=1, pruning_algorithm=rows)
    lottery.run(train=lambda model: None)
    masks = shuffled(lottery.masks(1), lottery.wrappers, seed=1)["0"]
    kept = masks["weight"].any(1)
    assert torch.equal(masks["weight"].all(1), kept)
    assert kept.sum() == 4
    assert torch.equal(masks["bias"], kept)


@pytest.mark.parametrize("rewind", ["reinit", "reshuffle", "constant", "sign:reinit"])
def test_what_is_drawn_depends_on_the_seed_alone(net, config, rewind):
    def start(seed, noise):
        lottery = LotteryTicket(
            net, config, rounds=1, rewind=rewind, pruning_algorithm="tiny_level", seed=seed
        )
        torch.manual_seed(noise)
        started = []
        lottery.run(train=lambda model: started.append(take_module(model)["tensors"]) or None)
        lottery.restart()
        lottery.unwrap()
        return started[1]["first.weight"]

    assert torch.equal(start(0, 1), start(0, 2))
    assert not torch.equal(start(0, 1), start(1, 1))
