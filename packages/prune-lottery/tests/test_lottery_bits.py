"""After a rewind every tensor is, bit by bit, what it was; masked positions are zero."""

import copy
import random

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from prune_core import PruneError
from prune_lottery import LotteryTicket
from prune_lottery.module_state import put_module, take_module
from prune_lottery.training import Training

FIXTURES = {
    "suppress_health_check": [HealthCheck.function_scoped_fixture],
    "deadline": None,
    # A failing example is small already, and to look for a smaller one takes minutes.
    "phases": [Phase.explicit, Phase.reuse, Phase.generate],
}

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1),
    "momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=1e-2),
    "adam": lambda p: torch.optim.Adam(p, 0.01, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.5),
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.1),
}
SCHEDULERS = {
    "none": lambda o: None,
    "step": lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [2, 4], 0.3),
    "cosine": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 6),
    "cycle": lambda o: torch.optim.lr_scheduler.OneCycleLR(
        o, 0.5, total_steps=100, cycle_momentum=False
    ),
    "sequence": lambda o: torch.optim.lr_scheduler.SequentialLR(
        o,
        [
            torch.optim.lr_scheduler.LinearLR(o, total_iters=2),
            torch.optim.lr_scheduler.ExponentialLR(o, 0.9),
        ],
        [2],
    ),
}


def bits(tensor):
    return tensor.detach().contiguous().view(-1).view(torch.uint8)


def same_bits(one, other):
    return one.dtype == other.dtype and torch.equal(bits(one), bits(other))


def flat(state, path=()):
    """Every leaf of nested dicts and lists, by its path."""
    if isinstance(state, dict):
        return {p: v for k, s in state.items() for p, v in flat(s, (*path, k)).items()}
    if isinstance(state, list | tuple):
        return {p: v for k, s in enumerate(state) for p, v in flat(s, (*path, k)).items()}
    return {path: state}


def assert_same(now, then, masked=None):
    """Compare states of a `Training` leaf by leaf; masked positions are to be zero."""
    now, then = flat(now), flat(then)
    assert now.keys() == then.keys()
    for path, value in then.items():
        if not isinstance(value, torch.Tensor):
            assert now[path] == value, path
        elif masked is not None and masked(path) is not None:
            mask = masked(path)
            assert same_bits(now[path][mask], value[mask]), path
            assert (now[path][~mask] == 0).all(), path
        else:
            assert same_bits(now[path], value), path


def masks_by_path(lottery):
    """Return which mask, if any, belongs to a leaf of the state."""
    by_name = {
        f"{name}.{tensor}": mask
        for name, wrapper in lottery.wrappers.items()
        for tensor, mask in wrapper.masks.items()
    }
    names = list(take_module(lottery.model)["trained"])

    def masked(path):
        if path[:2] in (("model", "tensors"), ("ema", "tensors")):
            return by_name.get(path[2].removeprefix("module."))
        if path[:2] == ("optimizer", "state") and path[3] != "step":
            return by_name.get(names[path[2]])
        return None

    return masked


@pytest.mark.filterwarnings("ignore:The epoch parameter")  # torch 2.8 of its own schedulers
@settings(max_examples=20, **FIXTURES)
@given(
    optimizer=st.sampled_from(sorted(OPTIMIZERS)),
    scheduler=st.sampled_from(sorted(SCHEDULERS)),
    with_ema=st.booleans(),
    warm=st.integers(0, 3),
    step=st.sampled_from([0, 2, 5]),
    rounds=st.integers(1, 3),
    mode=st.sampled_from(["normal", "global"]),
)
def test_a_round_begins_with_the_bits_that_it_promises(
    net, trainer, optimizer, scheduler, with_ema, warm, step, rounds, mode
):
    model = copy.deepcopy(net)
    optimizer = OPTIMIZERS[optimizer](model.parameters())
    scheduler = SCHEDULERS[scheduler](optimizer)
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9)) if with_ema else None
    train = trainer(optimizer, scheduler, ema)
    for _ in range(warm):  # whoever comes with a trained optimizer gets that one back
        train(model, None)
    whole = Training(model, optimizer=optimizer, lr_scheduler=scheduler, ema=ema)
    begun, taken = whole.take(), []
    lottery = LotteryTicket(
        model,
        [{"op_types": ["Linear"], "total_sparsity": 0.75}],
        rounds=rounds,
        rewind=f"early:{step}" if step else "init",
        pruning_algorithm="tiny_level",
        pruning_params={"mode": mode},
        optimizer=optimizer,
        lr_scheduler=scheduler,
        ema=ema,
    )

    def watched(model, this_round):
        if this_round.index:
            promised = taken[0] if step else begun
            assert_same(whole.take(), promised, masks_by_path(lottery))
            assert all(p.grad is None for p in model.parameters())
        else:
            assert_same(whole.take(), begun)
        watching = this_round.steps

        def steps(total):
            for number in watching(total):
                if number == step and not taken:
                    taken.append(whole.take())
                yield number

        this_round.steps = steps
        train(model, this_round)

    result = lottery.run(train=watched)
    assert [record.index for record in result.rounds] == list(range(rounds + 1))
    # What was remembered has not been trained along.
    assert_same(lottery.rewind_points.initial, begun)
    lottery.restart()
    assert_same(whole.take(), begun)


@settings(max_examples=10, **FIXTURES)
@given(seed=st.integers(0, 2**32 - 1), draws=st.integers(0, 5))
def test_every_source_of_random_numbers_starts_over(net, config, seed, draws):
    generator = torch.Generator().manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    lottery = LotteryTicket(
        copy.deepcopy(net),
        config,
        rounds=2,
        pruning_algorithm="tiny_level",
        generators=[generator],
    )

    def train(model):
        values = [random.gauss(0, 1), float(np.random.randn()), float(torch.rand(()))]
        values.append(float(torch.rand((), generator=generator)))
        for _ in range(draws):
            random.gauss(0, 1), np.random.randn(), torch.rand(3)
        return values

    logs = [record.log for record in lottery.run(train=train).rounds]
    assert logs[0] == logs[1] == logs[2]


def test_random_numbers_go_on_if_wanted(net, config):
    lottery = LotteryTicket(
        net, config, rounds=1, pruning_algorithm="tiny_level", rewind_random=False
    )
    first, second = lottery.run(train=lambda model: float(torch.rand(()))).rounds
    assert first.log != second.log


def test_a_half_precision_network_keeps_its_wide_optimizer_state():
    parameter = nn.Linear(2, 2).bfloat16()
    optimizer = torch.optim.SGD(parameter.parameters(), 0.1)
    exact = torch.tensor([[1.0 + 2**-20, 2.0], [3.0, 4.0]])
    optimizer.state[parameter.weight]["average"] = exact.clone()
    training = Training(parameter, optimizer=optimizer)
    state = training.take()
    training.put(state)
    assert same_bits(optimizer.state[parameter.weight]["average"], exact)
    optimizer.state[parameter.weight]["average"].zero_()
    assert same_bits(state["optimizer"]["state"][0]["average"], exact), "it is a copy"


def test_modes_freezing_gradients_and_identity_are_put_back(net):
    parameters = list(net.parameters())
    net.second.eval()
    net.first.bias.requires_grad_(False)
    state = take_module(net)
    net.train()
    net.first.bias.requires_grad_(True)
    net.norm.running_mean = torch.ones(8)  # replaced, not written into
    net(torch.randn(4, 6)).sum().backward()
    put_module(net, state)
    assert (net.first.training, net.second.training) == (True, False)
    assert not net.first.bias.requires_grad
    assert all(now is then for now, then in zip(net.parameters(), parameters, strict=True))
    assert all(p.grad is None for p in parameters)
    assert net.seen == 0, "a buffer that is not in the state dict"
    assert_same(take_module(net), state)


def test_extra_state_is_put_back():
    class Counter(nn.Linear):
        calls = 0

        def get_extra_state(self):
            return {"calls": self.calls}

        def set_extra_state(self, state):
            self.calls = state["calls"]

    model = nn.Sequential(Counter(2, 2))
    state = take_module(model)
    model[0].calls = 5
    put_module(model, state)
    assert model[0].calls == 0


def test_a_changed_model_is_refused_as_it_is(net):
    state = take_module(net)
    net.third = nn.Linear(3, 3)
    with pytest.raises(PruneError, match=r"has 'third\.bias', which it had not"):
        put_module(net, state)
    del net.third
    net.second.weight = nn.Parameter(torch.zeros(3, 9))
    with pytest.raises(PruneError, match=r"'second\.weight' is \(3, 9\).* and was \(3, 8\)"):
        put_module(net, state)


def test_a_grown_optimizer_is_refused(net):
    optimizer = torch.optim.SGD([net.first.weight], 0.1)
    training = Training(net, optimizer=optimizer)
    state = training.take()
    optimizer.add_param_group({"params": [net.second.weight]})
    with pytest.raises(PruneError, match="Add parameter groups before the lottery is made"):
        training.put(state)
