"""`LotteryTicketPruner`: the two forms that users of older tools know."""

import pytest
import torch
from torch import nn

import prune_core
from prune_core import ConfigError
from prune_core.testing import check_pruner
from prune_lottery import LotteryTicketPruner
from prune_lottery.module_state import take_module

CONFIG = [{"prune_iterations": 3, "sparsity": 0.75, "op_types": ["default"]}]


@pytest.fixture
def optimizer(net):
    return torch.optim.Adam(net.parameters(), 0.01)


def go(pruner, train, after=lambda: None):
    for _ in pruner.get_prune_iterations():
        pruner.prune_iteration_start()
        train(pruner.bound_model, None)
        after()


def test_it_is_had_by_its_name():
    assert prune_core.get_pruner("lottery_ticket") is LotteryTicketPruner


def test_the_loop_prunes_and_resets(net, optimizer, trainer):
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    initial = take_module(net)["tensors"]
    pruner = LotteryTicketPruner(net, CONFIG, optimizer, scheduler, pruning_algorithm="tiny_level")
    assert pruner.compress()[0] is net
    assert pruner.get_prune_iterations() == range(4)
    train, sparsities = trainer(optimizer, scheduler), []
    for index in pruner.get_prune_iterations():
        pruner.prune_iteration_start()
        mask = pruner.masks["first"]["weight"]
        sparsities.append(1 - float(mask.float().mean()))
        now = take_module(net)["tensors"]
        assert torch.equal(now["first.weight"], initial["first.weight"] * mask)
        assert torch.equal(now["norm.running_mean"], initial["norm.running_mean"])
        assert not optimizer.state
        assert optimizer.param_groups[0]["lr"] == 0.01
        assert scheduler.last_epoch == 0
        assert index == pruner.curr_prune_iteration
        train(net, None)
    wanted = [1 - 0.25 ** (t / 3) for t in range(4)]
    assert sparsities == pytest.approx([int(s * 48) / 48 for s in wanted], abs=1e-6)
    with pytest.raises(ConfigError, match="All 3 rounds have begun already"):
        pruner.prune_iteration_start()


def test_weights_go_on_where_they_are_not_reset(net, trainer):
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    pruner = LotteryTicketPruner(
        net, CONFIG, optimizer, reset_weights=False, pruning_algorithm="tiny_level"
    )
    pruner.prune_iteration_start()
    trainer(optimizer)(net, None)
    trained = take_module(net)["tensors"]["first.weight"]
    pruner.prune_iteration_start()
    mask = pruner.masks["first"]["weight"]
    assert torch.equal(take_module(net)["tensors"]["first.weight"], trained * mask)


def test_the_optimizer_must_not_be_forgotten(net):
    with pytest.raises(ConfigError, match="optimizer is missing.*reset_weights=False"):
        LotteryTicketPruner(net, CONFIG)
    assert type(net.first) is nn.Linear


def test_a_later_form_does_everything_in_one_call(net, trainer, accuracy):
    rules = [{"sparsity": 0.75, "op_types": ["Linear"]}]
    pruner = LotteryTicketPruner(
        net, rules, "tiny_level", 3, finetuner=trainer(), evaluator=accuracy, reset_weight=True
    )
    with pytest.raises(ConfigError, match=r"call compress\(\) first"):
        pruner.get_best_result()
    model, masks = pruner.compress()
    assert model is net
    assert int(masks["first"]["weight"].sum()) == 12
    index, model, masks, score, config_list = pruner.get_best_result()
    assert index == 3
    assert config_list[0] == {
        "op_names": ["first"], "op_types": ["Linear"], "total_sparsity": 0.75,
    }  # fmt: skip
    assert int(masks["second"]["weight"].sum()) == 6
    assert score == pytest.approx(accuracy(net))
    assert type(model.first) is nn.Linear
    assert int(model.first.weight.count_nonzero()) == 12
    assert pruner.is_wrapped, "what is returned is a copy"


RULES = [{"sparsity": 0.5, "op_names": ["first"]}]


def all_by_position(net, folder, train):
    example, score = torch.randn(2, 6), lambda model: 0.5
    kept = (str(folder), True)
    return LotteryTicketPruner(
        net, RULES, "tiny_rows", 2, *kept, train, True, example, score, False, {}
    )


def by_name(net, folder, train):
    return LotteryTicketPruner(
        net,
        RULES,
        pruning_algorithm="tiny_rows",
        total_iteration=2,
        log_dir=folder,
        keep_intermediate_result=True,
        finetuner=train,
        speed_up=True,
        dummy_input=torch.randn(2, 6),
        evaluator=lambda model: 0.5,
        reset_weight=False,
    )


@pytest.mark.parametrize("call", [all_by_position, by_name])
def test_every_argument_of_later_forms(call, net, tmp_path):
    def train(model, epochs=3):
        assert epochs == 3

    pruner = call(net, tmp_path, train)
    assert pruner.reset_weights is False
    pruner.compress()
    number, model, masks, score, _ = pruner.get_best_result()
    assert (number, score) == (2, 0.5)
    assert model.first.out_features == net.first.module.out_features // 2
    assert "first" not in masks, "nothing of it is left to be masked"
    x = torch.randn(5, 6)
    torch.testing.assert_close(model.eval()(x), net.eval()(x))
    left = [
        int(prune_core.load_masks(tmp_path / place / "masks.pth")["first"]["weight"].any(1).sum())
        for place in ("intermediate_result/0", "intermediate_result/1", "best_result")
    ]
    assert left[0] > left[1] > left[2] == 4
    state = torch.load(tmp_path / "best_result/model.pth", weights_only=True)
    assert int(state["first.weight"].any(1).sum()) == 4
    assert '"total_sparsity": 0.5' in (tmp_path / "best_result/config_list.json").read_text()


def test_speedup_needs_an_input(net):
    with pytest.raises(ConfigError, match="dummy_input is missing"):
        LotteryTicketPruner(net, RULES, "tiny_level", 2, finetuner=len, speedup=True)
    assert type(net.first) is nn.Linear


def test_unwrapping_leaves_zeros_and_wrapping_again_goes_on(net, optimizer, trainer):
    pruner = LotteryTicketPruner(net, CONFIG, optimizer, pruning_algorithm="tiny_level")
    go(pruner, trainer(optimizer))
    x = torch.randn(3, 6)
    net.eval()
    masked = net(x)
    pruner.unwrap()
    assert type(net.first) is nn.Linear
    assert int((net.first.weight != 0).sum()) <= 12
    assert torch.equal(net(x), masked)
    pruner.wrap()
    assert torch.equal(net(x), masked)


def test_reset_starts_anew(net, optimizer, trainer):
    pruner = LotteryTicketPruner(net, CONFIG, optimizer, pruning_algorithm="tiny_level")
    go(pruner, trainer(optimizer))
    pruner.reset(net, [CONFIG[0] | {"prune_iterations": 1}])
    assert pruner.get_prune_iterations() == range(2)
    go(pruner, trainer(optimizer))
    assert int(pruner.masks["first"]["weight"].sum()) == 12


def test_masks_and_model_are_exported(net, optimizer, trainer, tmp_path):
    pruner = LotteryTicketPruner(net, CONFIG, optimizer, pruning_algorithm="tiny_level")
    go(pruner, trainer(optimizer))
    pruner.export_model(tmp_path / "model.pth", tmp_path / "masks.safetensors")
    state = torch.load(tmp_path / "model.pth", weights_only=True)
    masks = prune_core.load_masks(tmp_path / "masks.safetensors")
    assert (state["first.weight"][~masks["first"]["weight"]] == 0).all()


@pytest.mark.parametrize("killed_after", range(4))
def test_a_loop_goes_on_from_its_state(net, trainer, tmp_path, killed_after):
    def start():
        torch.manual_seed(0)
        model = type(net)()
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        rules = [CONFIG[0]]
        pruner = LotteryTicketPruner(model, rules, optimizer, pruning_algorithm="tiny_level")
        return pruner, trainer(optimizer)

    def finish(pruner, train, first):
        for _ in range(first, 4):
            pruner.prune_iteration_start()
            train(pruner.bound_model, None)
        return take_module(pruner.bound_model)["tensors"], pruner.masks

    weights, masks = finish(*start(), 0)
    pruner, train = start()
    for _ in range(killed_after + 1):
        pruner.prune_iteration_start()
        train(pruner.bound_model, None)
    torch.save(pruner.state_dict(), tmp_path / "state.pt")
    torch.manual_seed(123)
    pruner, train = start()
    pruner.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    now, new_masks = finish(pruner, train, killed_after + 1)
    assert all(torch.equal(now[name], tensor) for name, tensor in weights.items())
    assert all(torch.equal(new_masks[m][t], masks[m][t]) for m in masks for t in masks[m])


def test_it_keeps_what_every_pruner_promises(level):
    check_pruner(
        LotteryTicketPruner,
        granularity="weights",
        pruning_algorithm=level,
        total_iteration=2,
        finetuner=lambda model: None,
    )


def test_a_function_that_makes_a_pruner_is_as_good_as_a_class(net, rows):
    made = []

    def make(model, config_list):
        made.append(rows(model, config_list))
        return made[0]

    pruner = LotteryTicketPruner(net, RULES, make, 2, finetuner=lambda model: None)
    pruner.compress()
    assert int(pruner.masks["first"]["weight"].any(1).sum()) == 4
    assert [type(one) for one in made] == [rows]
    with pytest.raises(ConfigError, match="makes a list; a lottery needs one that derives from"):
        LotteryTicketPruner(
            nn.Sequential(nn.Linear(2, 2)), [{**RULES[0], "op_names": ["0"]}],
            lambda model, config_list: [], 2, finetuner=len,
        )  # fmt: skip
