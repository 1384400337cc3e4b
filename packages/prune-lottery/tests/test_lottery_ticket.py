"""`LotteryTicket`: the loop, the ways to rewind, and what happens when something goes wrong."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from prune_core import ConfigError, PruneError, PruneWarning, hookimpl
from prune_core.masking import PrunerModuleWrapper
from prune_core.registry import registered
from prune_lottery import EarlyBird, LotteryResult, LotteryTicket, RoundRecord
from prune_lottery.module_state import take_module


@pytest.fixture
def make(net, config):
    def lottery(**settings):
        settings = {"rounds": 3, "pruning_algorithm": "tiny_level", **settings}
        return LotteryTicket(net, config, **settings)

    return lottery


def weights(model):
    tensors = take_module(model)["tensors"]
    return {name: tensor for name, tensor in tensors.items() if name.endswith("weight")}


def plain(model):
    return not any(isinstance(m, PrunerModuleWrapper) for m in model.modules())


def test_sparsity_is_counted_and_grows_as_the_formula_says(make, trainer, accuracy):
    result = make().run(train=trainer(), evaluate=accuracy)
    for record in result.rounds:
        wanted = 1 - 0.25 ** (record.index / 3)
        assert record.layers["first"] == int(wanted * 48 + 1e-9) / 48
        assert record.layers["second"] == int(wanted * 24 + 1e-9) / 24
        assert record.sparsity == pytest.approx(wanted, abs=1 / 36)
        assert isinstance(record.score, float)
    assert result.rounds[-1].sparsity == 0.75


def test_masks_are_nested_and_those_in_force_are_the_last(make, trainer):
    lottery = make()
    lottery.run(train=trainer())
    masks = [lottery.masks(index)["first"]["weight"] for index in range(4)]
    for one, next_one in pairwise(masks):
        assert (one | ~next_one).all()
    assert torch.equal(lottery.wrappers["first"].masks["weight"], masks[-1])


def test_all_layers_can_be_ranked_together(net, trainer):
    rules = [{"op_types": ["Linear"], "total_sparsity": 0.75}]
    lottery = LotteryTicket(
        net, rules, rounds=2, pruning_algorithm="tiny_level", pruning_params={"mode": "global"}
    )
    last = lottery.run(train=trainer()).rounds[-1]
    assert last.sparsity == 0.75
    assert last.layers["first"] != last.layers["second"]


def test_the_criterion_can_be_a_class(net, config, level, trainer):
    assert LotteryTicket(net, config, rounds=1, pruning_algorithm=level).run(train=trainer())


def test_a_ticket_can_be_put_into_the_model_later(make, net, trainer):
    before = weights(net)
    lottery = make()
    lottery.run(train=trainer())
    lottery.ticket(2)
    mask = lottery.masks(2)["first"]["weight"]
    now = weights(lottery.model)["first.weight"]
    assert torch.equal(now, before["first.weight"] * mask)


@pytest.mark.parametrize("rewind", ["learning_rate", "none"])
def test_weights_can_stay_trained(make, net, trainer, rewind):
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    train, starts, ends = trainer(optimizer, scheduler), [], []

    def watched(model, this_round):
        starts.append((weights(model), optimizer.param_groups[0]["lr"], len(optimizer.state)))
        train(model, this_round)
        ends.append(weights(model))

    lottery = make(rewind=rewind, optimizer=optimizer, lr_scheduler=scheduler, rounds=1)
    lottery.run(train=watched)
    mask = lottery.masks(1)["first"]["weight"]
    assert torch.equal(starts[1][0]["first.weight"], ends[0]["first.weight"] * mask)
    assert torch.equal(starts[1][0]["norm.weight"], ends[0]["norm.weight"])
    _, rate, remembered = starts[1]
    if rewind == "learning_rate":
        assert (rate, remembered) == (0.1, 0)
    else:
        assert rate < 0.1
        assert remembered
        momentum = optimizer.state[lottery.wrappers["first"].module.weight]["momentum_buffer"]
        assert (momentum[~mask] == 0).all()


def test_late_rewinding_goes_on_at_the_step_that_it_returns_to(make, trainer):
    seen = []
    make(rewind="early:4", rounds=1).run(train=trainer(seen=seen, total=6))
    assert [step for index, step in seen if index == 0] == [0, 1, 2, 3, 4, 5]
    assert [step for index, step in seen if index == 1] == [4, 5]


def test_late_rewinding_to_the_very_end_is_a_training_without_steps(make, trainer):
    with pytest.raises(ConfigError, match=r"steps\(6\) is to go on at step 6"):
        make(rewind="early:6", rounds=1).run(train=trainer(total=6))


def test_a_training_that_is_too_short_is_told_after_the_first_round(make, trainer):
    with pytest.raises(PruneError, match="the first training did not get to step 9"):
        make(rewind="early:9").run(train=trainer(total=6))


def test_a_training_that_does_not_count_is_told_at_once(make):
    with pytest.raises(ConfigError, match=r"rewind='early:4' has to know where .*steps\(total\)"):
        make(rewind="early:4").run(train=lambda model: None)


def test_what_train_returns_is_kept(make):
    result = make().run(train=lambda model: [1, 2.5])
    assert [record.log for record in result.rounds] == [[1, 2.5]] * 4


def test_an_early_bird_stops_a_training_whose_masks_have_settled(make, trainer):
    seen = []
    lottery = make(rounds=1, rewind="none", early_bird=EarlyBird(distance=1.0, window=2))
    dense, ticket = lottery.run(train=trainer(seen=seen, total=6)).rounds
    assert dense.stopped
    assert not ticket.stopped, "the last round is trained to its end"
    assert [step for index, step in seen if index == 0] == [0, 1, 2], "two before, and the newest"
    assert [step for index, step in seen if index == 1] == [0, 1, 2, 3, 4, 5]
    assert ticket.sparsity == 0.75


def test_masks_that_still_move_are_trained_on(make, trainer):
    lottery = make(rounds=1, early_bird=EarlyBird(distance=1e-9, window=1))
    seen = []
    images_stay = trainer(seen=seen, total=3)
    lottery.run(train=images_stay)
    assert len([1 for index, _ in seen if index == 1]) == 3


def test_early_bird_settings_are_checked():
    with pytest.raises(ConfigError, match=r"distance=0\)"):
        EarlyBird(distance=0)
    with pytest.raises(ConfigError, match=r"window=0\)"):
        EarlyBird(window=0)


# --- when something goes wrong ----------------------------------------------------------------


class Break(Exception):
    pass


def breaking_in(round_index, error=Break):
    calls = []

    def evaluate(model):
        calls.append(1)
        if len(calls) == round_index + 1:
            raise error
        return 1.0 if len(calls) < 3 else 0.5

    return evaluate


def test_a_failing_evaluation_costs_the_round_and_nothing_else(make, trainer, net, accuracy):
    whole = make()
    wanted = whole.run(train=trainer(), evaluate=accuracy)
    masks, trained = whole.masks(3), weights(net)
    whole.restart()
    whole.unwrap()
    lottery = make()
    with pytest.raises(Break):
        lottery.run(train=trainer(), evaluate=breaking_in(2))
    assert len(lottery.records) == 2
    assert lottery.wrappers["first"].masked_count("weight") == round(48 * wanted.rounds[1].sparsity)
    lottery.run(train=trainer(), evaluate=accuracy)
    assert all(
        torch.equal(mask, lottery.masks(3)[module][name])
        for module, tensors in masks.items()
        for name, mask in tensors.items()
    )
    now = weights(net)
    assert all(torch.equal(now[name], tensor) for name, tensor in trained.items())


def test_a_failure_in_the_first_round_gives_the_model_back_as_it_was(make, trainer, net):
    before = take_module(net)["tensors"]
    lottery = make()
    with pytest.raises(Break):
        lottery.run(train=trainer(), evaluate=breaking_in(0))
    now = take_module(net)["tensors"]
    assert all(torch.equal(now[name], tensor) for name, tensor in before.items())
    assert plain(lottery.unwrap())


def test_ctrl_c_ends_with_the_best_so_far(make, trainer):
    lottery = make()
    result = lottery.run(train=trainer(), evaluate=breaking_in(3, KeyboardInterrupt))
    assert result.interrupted
    assert [record.score for record in result.rounds] == [1.0, 1.0, 0.5]
    assert result.best.index == 1
    in_force = lottery.wrappers["first"].masks["weight"]
    assert torch.equal(in_force, lottery.masks(1)["first"]["weight"])


def test_ctrl_c_before_anything_is_finished_is_passed_on(make, trainer):
    with pytest.raises(KeyboardInterrupt):
        make().run(train=trainer(), evaluate=breaking_in(0, KeyboardInterrupt))


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "returned a NoneType; it must return one number"),
        (float("nan"), "returned nan, with which no round can be compared"),
        (float("inf"), "returned inf, with which no round can be compared"),
        (True, "returned a bool; it must return one number"),
        ("0.9", "returned a str; it must return one number"),
        (torch.ones(2), "returned a Tensor; it must return one number"),
    ],
)
def test_scores_are_checked(make, returned, message):
    with pytest.raises(PruneError, match=message):
        make().run(train=lambda model: None, evaluate=lambda model: returned)


def test_train_must_take_a_model(make):
    lottery = make()
    with pytest.raises(ConfigError, match="given as train, must take the model"):
        lottery.run(train=lambda: None)
    with pytest.raises(ConfigError, match="given as train, requires 'c'; it is called with model"):
        lottery.run(train=lambda a, b, c: None)
    with pytest.raises(ConfigError, match="train is 3; it must be a function"):
        lottery.run(train=3)
    with pytest.raises(ConfigError, match="given as evaluate, requires 'loader'"):
        lottery.run(train=lambda model: None, evaluate=lambda model, loader: 0.5)


def test_optional_parameters_are_the_users(make):
    seen = []

    def train(model, epochs=3, *, rate=0.1):
        seen.append((epochs, rate))

    make(rounds=1).run(train=train)
    assert seen == [(3, 0.1)] * 2


def test_each_finished_round_is_told_of_while_the_model_holds_it(make):
    lottery, seen = make(rounds=2), []

    def note(number):
        seen.append((number, lottery.records[-1].index, round(lottery._sparsity(), 2)))

    result = lottery.run(train=lambda model: None, after_round=note)
    assert [number for number, _, _ in seen] == [0, 1, 2]
    assert seen == [(r.index, r.index, round(r.sparsity, 2)) for r in result.rounds]


def test_settings_are_checked_before_the_model_is_wrapped(make, net):
    with pytest.raises(ConfigError, match="optimizer is a str"):
        make(optimizer="adam")
    with pytest.raises(ConfigError, match="ema is a int, which has no state_dict"):
        make(ema=3)
    with pytest.raises(ConfigError, match="Say after how many steps: 'early:500'"):
        make(rewind="early")
    with pytest.raises(ConfigError, match="pruning_algorithm is <class 'int'>"):
        make(pruning_algorithm=int)
    assert plain(net)


def test_values_that_a_criterion_would_bring_back_stay_pruned(make, level, trainer):
    class Fickle(level):
        calls = 0

        def compress(self):
            self.calls += 1
            for wrapper in self._wrappers.values():
                mask = torch.ones_like(wrapper.module.weight, dtype=torch.bool)
                mask[:, self.calls] = False
                wrapper.set_masks({"weight": mask})
            return self.bound_model, self.masks

    with pytest.warns(PruneWarning, match="Fickle would bring .* pruned values back"):
        make(pruning_algorithm=Fickle).run(train=trainer())


def test_listeners_hear_of_the_masks_of_each_round(make, trainer):
    heard = []

    class Listener:
        @hookimpl
        def prune_masks_made(self, pruner, masks):
            heard.append(sum(int(m["weight"].sum()) for m in masks.values()))

    with registered(Listener(), "listener"):
        make(early_bird=EarlyBird()).run(train=trainer())
    assert heard == sorted(heard, reverse=True)
    assert len(heard) == 3


def test_structured_tickets_become_small(trainer, config):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    rules = [{"op_names": ["0"], "sparsity": 0.75}]
    lottery = LotteryTicket(model, rules, rounds=2, pruning_algorithm="tiny_rows")
    lottery.run(train=trainer())
    x = torch.randn(5, 6)
    masked = model(x)
    report = lottery.shrink(x)
    assert model[0].out_features == 4
    assert torch.allclose(model(x), masked, atol=1e-6)
    assert report.parameters == (6 * 16 + 16 + 16 * 3 + 3, 6 * 4 + 4 + 4 * 3 + 3)


# --- results -------------------------------------------------------------------------------------


def result_of(*scores, tolerance=0.0):
    rounds = tuple(RoundRecord(i, i / 10, {}, score) for i, score in enumerate(scores))
    return LotteryResult(rounds, tolerance=tolerance)


def test_the_winner_is_the_sparsest_that_keeps_up():
    assert result_of(0.9, 0.8, 0.91, 0.89).winner.index == 2
    assert result_of(0.9, 0.8, 0.91, 0.89, tolerance=0.02).winner.index == 3
    assert result_of(0.9, 0.8).winner is None
    assert result_of(0.9, 0.8).best.index == 0
    assert result_of(None, None).best.index == 1
    with pytest.raises(PruneError, match="There are no scores"):
        _ = result_of(None, None).winner


def test_a_result_prints_as_a_table():
    assert str(result_of(0.9, None)).splitlines()[1] == "    0     0.00%    0.9000"
