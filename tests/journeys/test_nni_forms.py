"""Whole scripts of the predecessor's users, release by release, with nothing changed but imports.

Each is written in our own words around the calls that its examples make.
"""

import contextlib
import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import prune_filter
import prune_lottery
import prune_schedule
from prune_core import PruneWarning

device = torch.device("cpu")
IMAGES = torch.rand(24, 1, 12, 12, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(24) % 4


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 12, 3)
        self.fc = nn.Linear(12 * 4 * 4, 4)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return F.log_softmax(self.fc(x.flatten(1)), dim=1)


def network():
    torch.manual_seed(0)
    return Net().to(device)


def loader():
    return zip(IMAGES.split(8), LABELS.split(8), strict=True)


def train_epoch(model, optimizer, criterion):
    model.train()
    for images, labels in loader():
        optimizer.zero_grad()
        criterion(model(images), labels).backward()
        optimizer.step()


@torch.no_grad()
def test_model(model):
    model.eval()
    return 100.0 * (model(IMAGES).argmax(1) == LABELS).float().mean().item()


test_model.__test__ = False


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


def removes_nothing():
    """What a script sees that masks single weights and then makes the model small."""
    return pytest.warns(PruneWarning, match="Nothing was removed: the masks cover single weights")


def filters(masks, name):
    return int(masks[name]["weight"].flatten(1).any(1).sum())


# --- 1.x: `model = pruner.compress()`, masks in a file ------------------------------------------


@pytest.mark.parametrize("name", ["L1FilterPruner", "L2FilterPruner", "FPGMPruner", "LevelPruner"])
def test_release_1_prune_finetune_and_export(name, tmp_path):
    from prune_core import ModelSpeedup, apply_compression_results, count_flops_params

    model = network()
    optimizer_finetune = sgd(model)
    types = ["default"] if name == "LevelPruner" else ["Conv2d"]
    configure_list = [{"sparsity": 0.5, "op_types": types}]
    pruner = getattr(prune_filter, name)(model, configure_list, optimizer_finetune)
    model = pruner.compress()
    for epoch in range(2):
        pruner.update_epoch(epoch)
        train_epoch(model, optimizer_finetune, F.nll_loss)
        accuracy = test_model(model)
    assert 0 <= accuracy <= 100
    weights, masks = tmp_path / "pruned.pth", tmp_path / "mask.pth"
    pruner.export_model(model_path=weights, mask_path=masks)

    fresh = network()
    fresh.load_state_dict(torch.load(weights, weights_only=True))
    apply_compression_results(fresh, masks, device)
    torch.testing.assert_close(fresh.eval()(IMAGES), model.eval()(IMAGES))
    before, _, _ = count_flops_params(fresh, (1, 1, 12, 12), verbose=False)
    m_speedup = ModelSpeedup(fresh, IMAGES[:1].to(device), str(masks), device)
    with removes_nothing() if name == "LevelPruner" else contextlib.nullcontext():
        m_speedup.speedup_model()
    after, _, _ = count_flops_params(fresh, (1, 1, 12, 12), verbose=False)
    assert after < before or name == "LevelPruner"


@pytest.mark.parametrize("name", ["ActivationAPoZRank", "ActivationMeanRank", "TaylorFOWeight"])
def test_release_1_scores_by_the_training_that_follows(name):
    model = network()
    optimizer = sgd(model)
    config_list = [{"sparsity": 0.5, "op_types": ["Conv2d"]}]
    pruner = getattr(prune_filter, f"{name}FilterPruner")(model, config_list, optimizer)
    model = pruner.compress()
    train_epoch(model, optimizer, F.nll_loss)
    assert (filters(pruner.masks, "conv1"), filters(pruner.masks, "conv2")) == (4, 6)


def test_release_1_agp_in_the_users_own_loop():
    model = network()
    optimizer = sgd(model)
    config_list = [
        {
            "initial_sparsity": 0.0, "final_sparsity": 0.8, "start_epoch": 0, "end_epoch": 4,
            "frequency": 1, "op_types": ["default"],
        }
    ]  # fmt: skip
    pruner = prune_schedule.AGPPruner(model, config_list, optimizer, pruning_algorithm="level")
    model = pruner.compress()
    for epoch in range(4):
        pruner.update_epoch(epoch)
        train_epoch(model, optimizer, F.nll_loss)
    kept = pruner.masks["conv2"]["weight"]
    assert float(kept.float().mean()) == pytest.approx(0.2, abs=0.01)
    pruner.get_pruned_weights()


def test_release_1_lottery_tickets_in_the_users_own_loop(tmp_path):
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=1.2e-3)
    orig_state = copy.deepcopy(model.state_dict())
    configure_list = [{"prune_iterations": 2, "sparsity": 0.75, "op_types": ["default"]}]
    pruner = prune_lottery.LotteryTicketPruner(model, configure_list, optimizer)
    pruner.compress()
    best, best_state = -1.0, None
    for _ in pruner.get_prune_iterations():
        pruner.prune_iteration_start()
        train_epoch(model, optimizer, F.nll_loss)
        if (accuracy := test_model(model)) > best:
            best, best_state = accuracy, copy.deepcopy(model.state_dict())
    pruner.load_model_state_dict(orig_state)
    assert torch.equal(model.conv1.module.weight, orig_state["conv1.weight"])
    pruner.bound_model.load_state_dict(best_state)
    pruner.export_model(str(tmp_path / "ticket.pth"), str(tmp_path / "mask.pth"))


@pytest.mark.parametrize(
    "name", ["NetAdaptPruner", "SimulatedAnnealingPruner", "ADMMPruner", "AutoCompressPruner"]
)
@pytest.mark.parametrize("release", ["1.9", "2.1"])
def test_release_1_automatic_pruners(name, release, tmp_path):
    pytest.importorskip("optuna", reason="experiment_data_dir keeps an Optuna study")
    from prune_core import count_flops_params

    model = network()
    optimizer = sgd(model)

    def short_term_fine_tuner(model, epochs=1):
        for _ in range(epochs):
            train_epoch(model, optimizer, F.nll_loss)

    def trainer(model, optimizer, criterion, epoch):
        return train_epoch(model, optimizer, criterion)

    def first_trainer(model, criterion, optimizer, epoch, callback):
        return train_epoch(model, optimizer, criterion)

    trainer = {"1.9": first_trainer, "2.1": trainer}[release]
    config_list = [{"sparsity": 0.5, "op_types": ["Conv2d"]}]
    common = {"base_algo": "l1", "experiment_data_dir": str(tmp_path / "experiment")}
    epochs = {"1.9": "training_epochs", "2.1": "epochs_per_iteration"}[release]
    pruner = {
        "NetAdaptPruner": lambda kind: kind(
            model, config_list, short_term_fine_tuner=short_term_fine_tuner, evaluator=test_model,
            sparsity_per_iteration=0.25, **common,
        ),
        "SimulatedAnnealingPruner": lambda kind: kind(
            model, config_list, evaluator=test_model, cool_down_rate=0.5, **common
        ),
        "ADMMPruner": lambda kind: kind(
            model, config_list, trainer=trainer, num_iterations=2, **{epochs: 1}
        ),
        "AutoCompressPruner": lambda kind: kind(
            model, config_list, trainer=trainer, evaluator=test_model, dummy_input=IMAGES[:2],
            num_iterations=1, optimize_mode="maximize", cool_down_rate=0.5, admm_num_iterations=2,
            **{f"admm_{epochs}": 1}, **common,
        ),
    }[name](getattr(prune_schedule, name))  # fmt: skip
    model = pruner.compress()
    assert 0 <= test_model(model) <= 100
    pruner.export_model(str(tmp_path / "model_masked.pth"), str(tmp_path / "mask.pth"))
    flops, params, _ = count_flops_params(model, (1, 1, 12, 12), verbose=False)
    dense = count_flops_params(network(), (1, 1, 12, 12), verbose=False)
    assert (flops, params) < dense[:2]


def test_release_1_sensitivity():
    model = network()
    optimizer = sgd(model)

    def fine_tuner(model, epochs=1):
        train_epoch(model, optimizer, F.nll_loss)

    config_list = [{"sparsity": 0.25, "op_types": ["Conv2d"]}]
    pruner = prune_schedule.SensitivityPruner(
        model, config_list, finetuner=fine_tuner, evaluator=test_model, sparsity_per_iter=0.25,
        acc_drop_threshold=30.0,
    )  # fmt: skip
    model = pruner.compress(eval_args=[model], finetune_args=[model])
    assert 0 <= test_model(model) <= 100


# --- 2.1 to 2.6: trainer, optimizer and criterion by name ---------------------------------------


@pytest.mark.parametrize(
    "kind", ["l1filter", "fpgm", "slim", "agp", "mean_activation", "apoz", "taylorfo", "global"]
)
def test_release_2_1_one_script_for_all_pruners(kind, tmp_path):
    from prune_core import ModelSpeedup
    from prune_core.utils.counter import count_flops_params

    model = network()
    optimizer = sgd(model)
    dummy_input = torch.randn(2, 1, 12, 12)
    flops, params, _ = count_flops_params(model, dummy_input, verbose=False)

    def trainer(model, optimizer, criterion, epoch):
        return train_epoch(model, optimizer, criterion)

    pruners = {
        "l1filter": prune_filter.L1FilterPruner,
        "fpgm": prune_filter.FPGMPruner,
        "slim": prune_filter.SlimPruner,
        "agp": prune_schedule.AGPPruner,
        "mean_activation": prune_filter.ActivationMeanRankFilterPruner,
        "apoz": prune_filter.ActivationAPoZRankFilterPruner,
        "taylorfo": prune_filter.TaylorFOWeightFilterPruner,
        "global": prune_filter.TaylorFOWeightFilterPruner,
    }
    kw_args = {}
    config_list = [{"sparsity": 0.5, "op_types": ["BatchNorm2d" if kind == "slim" else "Conv2d"]}]
    if kind in ("l1filter", "fpgm", "taylorfo"):
        kw_args |= {"dependency_aware": True, "dummy_input": dummy_input}
    if kind not in ("l1filter", "fpgm"):
        kw_args |= {"trainer": trainer, "optimizer": optimizer, "criterion": F.nll_loss}
    if kind in ("mean_activation", "apoz", "taylorfo", "global"):
        kw_args["sparsifying_training_batches"] = 1
    if kind == "global":
        kw_args["global_sort"] = True
    if kind == "slim":
        kw_args["sparsifying_training_epochs"] = 1
    if kind == "agp":
        kw_args |= {"pruning_algorithm": "l1", "num_iterations": 2, "epochs_per_iteration": 1}
    pruner = pruners[kind](model, config_list, **kw_args)
    model = pruner.compress()
    pruner.get_pruned_weights()
    model_path, mask_path = tmp_path / "pruned.pth", tmp_path / "mask.pth"
    pruner.export_model(model_path=model_path, mask_path=mask_path)
    masked, masked_params, _ = count_flops_params(model, dummy_input, verbose=False)
    assert masked_params < params
    assert masked < flops or kind == "slim"

    pruner._unwrap_model()
    m_speedup = ModelSpeedup(model, dummy_input, mask_path, device)
    m_speedup.speedup_model()
    train_epoch(model, sgd(model), F.nll_loss)
    assert 0 <= test_model(model) <= 100
    left, _, _ = count_flops_params(model, dummy_input, verbose=False)
    assert left < flops or kind == "slim"


# --- 2.5 to 2.8: masks, a traced optimizer, and everything on one page --------------------------


@pytest.mark.parametrize(
    "kind", ["level", "l1", "l2", "fpgm", "slim", "apoz", "mean", "taylorfo", "admm", "movement"]
)
def test_release_2_8_prune_speed_up_and_fine_tune(kind):
    from prune_core import ModelSpeedup
    from prune_core.utils import count_flops_params

    model = network()
    before, _, _ = count_flops_params(model, torch.randn([8, 1, 12, 12]), verbose=False)
    criterion = F.nll_loss
    traced_optimizer = sgd(model)
    config_list = [{"sparsity": 0.5, "op_types": ["Conv2d"]}]
    trained = (train_epoch, traced_optimizer, criterion)
    pruner = {
        "level": lambda: prune_filter.LevelPruner(model, config_list),
        "l1": lambda: prune_filter.L1NormPruner(model, config_list),
        "l2": lambda: prune_filter.L2NormPruner(model, config_list),
        "fpgm": lambda: prune_filter.FPGMPruner(model, config_list),
        "slim": lambda: prune_filter.SlimPruner(
            model, [{"total_sparsity": 0.5, "op_types": ["BatchNorm2d"]}], *trained,
            training_epochs=1, scale=0.0001, mode="global",
        ),
        "apoz": lambda: prune_filter.ActivationAPoZRankPruner(
            model, config_list, *trained, training_batches=2
        ),
        "mean": lambda: prune_filter.ActivationMeanRankPruner(
            model, config_list, *trained, training_batches=2
        ),
        "taylorfo": lambda: prune_filter.TaylorFOWeightPruner(
            model, config_list, *trained, training_batches=2
        ),
        "admm": lambda: prune_schedule.ADMMPruner(
            model, config_list, *trained, iterations=2, training_epochs=1,
            granularity="coarse-grained",
        ),
        "movement": lambda: prune_filter.MovementPruner(
            model, config_list, *trained, training_epochs=2, warm_up_step=1,
            cool_down_beginning_step=4,
        ),
    }[kind]()  # fmt: skip
    _, masks = pruner.compress()
    pruner.show_pruned_weights()
    pruner._unwrap_model()
    speedup = ModelSpeedup(
        model, dummy_input=torch.rand([10, 1, 12, 12]).to(device), masks_file=masks
    )
    with removes_nothing() if kind in ("level", "movement") else contextlib.nullcontext():
        speedup.speedup_model()
    assert 0 <= test_model(model) <= 100
    for _ in range(2):
        train_epoch(model, sgd(model), criterion)
    after, _, _ = count_flops_params(model, torch.randn([8, 1, 12, 12]), verbose=False)
    assert after <= before


@pytest.mark.parametrize("kind", ["linear", "agp", "lottery"])
@pytest.mark.parametrize("speedup", [True, False])
def test_release_2_8_iterative_pruners(kind, speedup, tmp_path):
    model = network()

    def finetuner(model):
        train_epoch(model, sgd(model), F.nll_loss)

    kw_args = {
        "pruning_algorithm": "l1",
        "total_iteration": 2,
        "evaluator": None,
        "finetuner": finetuner,
        "log_dir": str(tmp_path),
        "keep_intermediate_result": True,
    }
    if speedup:
        kw_args |= {"speedup": True, "dummy_input": torch.rand(4, 1, 12, 12)}
    if kind == "lottery":
        kw_args["reset_weight"] = True
    pruners = {
        "linear": prune_schedule.LinearPruner,
        "agp": prune_schedule.AGPPruner,
        "lottery": prune_lottery.LotteryTicketPruner,
    }
    config_list = [{"op_types": ["Conv2d"], "op_names": ["conv2"], "sparsity": 0.5}]
    pruner = pruners[kind](model, config_list, **kw_args)
    pruner.compress()
    number, model, masks, _, _ = pruner.get_best_result()
    assert number == 2
    assert 0 <= test_model(model) <= 100
    if speedup:
        assert model.conv2.out_channels == 6
        assert "conv2" not in masks
    else:
        assert filters(masks, "conv2") == 6
    assert (tmp_path / "best_result/masks.pth").exists()
    assert (tmp_path / "intermediate_result/1/model.pth").exists()


def test_release_2_8_the_scheduler_and_its_parts():
    model = network()
    dummy_input = torch.rand(4, 1, 12, 12)
    pruner = prune_filter.L1NormPruner(
        model=None, config_list=None, mode="dependency_aware", dummy_input=dummy_input
    )
    config_list = [{"op_types": ["Conv2d"], "sparsity": 0.5}]
    task_generator = prune_schedule.AGPTaskGenerator(2, model, config_list)
    scheduler = prune_schedule.PruningScheduler(
        pruner, task_generator, finetuner=lambda model: train_epoch(model, sgd(model), F.nll_loss),
        speedup=True, dummy_input=dummy_input, evaluator=None, reset_weight=False,
    )  # fmt: skip
    scheduler.compress()
    _, model, _, _, _ = scheduler.get_best_result()
    assert model.conv2.out_channels == 6
    assert 0 <= test_model(model) <= 100


def test_release_2_8_simulated_annealing():
    model = network()
    pruner = prune_schedule.SimulatedAnnealingPruner(
        model, [{"op_types": ["Conv2d"], "total_sparsity": 0.5}], pruning_algorithm="l1",
        evaluator=test_model, cool_down_rate=0.5,
        finetuner=lambda model: train_epoch(model, sgd(model), F.nll_loss),
    )  # fmt: skip
    pruner.compress()
    _, model, masks, score, _ = pruner.get_best_result()
    assert score == pytest.approx(test_model(model))
    assert set(masks) == {"conv1", "conv2"}


def test_release_2_8_autocompress():
    model = network()
    admm_params = {
        "trainer": train_epoch,
        "traced_optimizer": sgd(model),
        "criterion": F.nll_loss,
        "iterations": 2,
        "training_epochs": 1,
    }
    sa_params = {"evaluator": test_model, "cool_down_rate": 0.5}
    pruner = prune_schedule.AutoCompressPruner(
        model, [{"op_types": ["Conv2d"], "total_sparsity": 0.8}], 2, admm_params, sa_params,
        keep_intermediate_result=True,
        finetuner=lambda model: train_epoch(model, sgd(model), F.nll_loss),
    )  # fmt: skip
    pruner.compress()
    _, model, masks, _, _ = pruner.get_best_result()
    left = sum(int(mask["weight"].sum()) for mask in masks.values())
    assert left / sum(m["weight"].numel() for m in masks.values()) == pytest.approx(0.2, abs=0.02)
    assert 0 <= test_model(model) <= 100


def test_release_2_8_amc():
    pytest.importorskip("stable_baselines3", reason="AMC's agent is that of stable-baselines3")
    from prune_core.utils import count_flops_params

    model = network()
    dummy_input = torch.rand(2, 1, 12, 12)
    pre_flops, _, _ = count_flops_params(model, dummy_input, verbose=False)
    config_list = [{"op_types": ["Conv2d"], "total_sparsity": 0.5, "max_sparsity_per_layer": 0.8}]
    ddpg_params = {
        "hidden1": 16, "hidden2": 16, "lr_c": 1e-3, "lr_a": 1e-4, "warmup": 1, "discount": 1.0,
        "bsize": 64, "rmsize": 100, "window_length": 1, "tau": 0.01, "init_delta": 0.5,
        "delta_decay": 0.99, "max_episode_length": 1e9, "epsilon": 50000,
    }  # fmt: skip
    pruner = prune_schedule.AMCPruner(
        2, model, config_list, dummy_input, test_model, ddpg_params=ddpg_params, target="flops",
        finetuner=lambda model: train_epoch(model, sgd(model), F.nll_loss),
    )  # fmt: skip
    pruner.compress()
    _, model, _, score, _ = pruner.get_best_result()
    assert score == pytest.approx(test_model(model))
    assert count_flops_params(model, dummy_input, verbose=False)[0] <= pre_flops


# --- 2.9 and 2.10: evaluators -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["taylorfo", "slim", "apoz", "movement"])
def test_release_2_10_evaluators(kind):
    def training_func(model, optimizers, criterion, lr_schedulers=None, max_steps=None,
                      max_epochs=None, *args, **kwargs):  # fmt: skip
        steps = 0
        for _ in range(max_epochs or 1):
            for images, labels in loader():
                optimizers.zero_grad()
                criterion(model(images), labels).backward()
                optimizers.step()
                steps += 1
                if max_steps is not None and steps >= max_steps:
                    return
            if lr_schedulers is not None:
                lr_schedulers.step()

    model = network()
    optimizer = sgd(model)
    evaluator = prune_filter.TorchEvaluator(
        training_func=training_func, optimizers=optimizer, criterion=F.nll_loss,
        lr_schedulers=torch.optim.lr_scheduler.StepLR(optimizer, 1), dummy_input=IMAGES[:1],
        evaluating_func=test_model,
    )  # fmt: skip
    config_list = [{"total_sparsity": 0.5, "op_types": ["Conv2d"]}]
    pruner = {
        "taylorfo": lambda: prune_filter.TaylorFOWeightPruner(
            model, config_list=config_list, evaluator=evaluator, training_steps=2
        ),
        "slim": lambda: prune_filter.SlimPruner(
            model, [{"total_sparsity": 0.5, "op_types": ["BatchNorm2d"]}], evaluator, 1
        ),
        "apoz": lambda: prune_filter.ActivationAPoZRankPruner(model, config_list, evaluator, 2),
        "movement": lambda: prune_filter.MovementPruner(
            model=model, config_list=config_list, evaluator=evaluator, training_epochs=2,
            training_steps=6, warm_up_step=1, cool_down_beginning_step=4,
        ),
    }[kind]()  # fmt: skip
    _, masks = pruner.compress()
    assert not all(bool(mask["weight"].all()) for mask in masks.values())


def test_release_3_names_of_methods():
    from prune_core.speedup import ModelSpeedup

    model = network()
    pruner = prune_filter.L2NormPruner(model, [{"sparsity": 0.5, "op_types": ["Conv2d"]}])
    _, masks = pruner.compress()
    assert pruner.get_masks().keys() == masks.keys()
    pruner.unwrap_model()
    model = ModelSpeedup(model, IMAGES[:2], masks).speedup_model()
    assert model.conv2.out_channels == 6


@pytest.mark.parametrize("search", ["NetAdaptPruner", "SensitivityPruner"])
def test_release_2_9_evaluator_tunes_a_search(search):
    import prune_schedule

    steps = []

    def training_func(model, optimizers, criterion, lr_schedulers, max_steps, max_epochs):
        for images, labels in loader():
            optimizers.zero_grad()
            criterion(model(images), labels).backward()
            optimizers.step()
            steps.append(1)

    model = network()
    before = model.conv1.weight.detach().clone()
    evaluator = prune_filter.TorchEvaluator(
        training_func, sgd(model), F.nll_loss, dummy_input=IMAGES[:1], evaluating_func=test_model
    )
    rules = [{"total_sparsity": 0.4, "op_types": ["Conv2d"]}]
    pruner = getattr(prune_schedule, search)(model, rules, evaluator=evaluator)
    pruner.compress()
    assert steps
    assert not torch.equal(model.conv1.module.weight, before)
