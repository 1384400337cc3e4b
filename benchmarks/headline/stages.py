"""The experiments, each a command of its own.

A stage is a list of items; an item trains for some epochs and gives one line of results. What is in
the file of results is not done again, so a stage that was stopped goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import prune_core
from prune_filter import L1NormPruner, SlimPruner
from prune_lottery import LotteryTicket
from prune_schedule import AGPPruner, AMCPruner, NetAdaptPruner

from .bench import Bench
from .pruning import OURS, THEIRS, Look, Method, at_once
from .training import Recipe

__all__ = ["STAGES", "Item", "Stage"]

Row = dict[str, Any]
CONVOLUTIONS = [{"op_types": ["Conv2d"]}]


@dataclass(frozen=True)
class Item:
    """One line of results.

    `epochs` is how long it trains, in epochs of the dense network; what it trains is smaller, or
    as large, so that the estimate is rather too long.
    """

    name: str
    epochs: float
    run: Callable[[Bench, int], Row]


@dataclass(frozen=True)
class Stage:
    """An experiment: what it is about, on which network, and what it does."""

    about: str
    network: str
    items: Callable[[Bench], list[Item]]


# ---- one network, pruned once and trained again


def _judged(bench: Bench, network: str, seed: int, model: nn.Module, **more: Any) -> Row:
    """Return what can be said of a small network before it is trained again."""
    dense = bench.new(network)
    (flops, parameters), (left, those) = bench.cost(dense), bench.cost(model)
    return {
        "network": network,
        "dense": bench.dense_of[network],
        "flops": left / flops,
        "parameters": those / parameters,
        "speedup": flops / left,
        "pruned": bench.judge(model),
        **more,
    }


def _again(bench: Bench, model: nn.Module, seed: int, row: Row, **options: Any) -> Row:
    """Train again, and say what came of it."""
    # Tensors that were cut may have lost their order in memory.
    model.to(memory_format=torch.channels_last)
    seconds = bench.train(model, bench.scale.again, seed + 1, **options)
    epochs = bench.scale.epochs(bench.scale.again).epochs
    return {**row, "recovered": bench.judge(model), "epochs": epochs, "seconds": seconds}


def _pruned_and_trained(
    network: str, method: Method, left: float, **more: Any
) -> Callable[[Bench, int], Row]:
    def run(bench: Bench, seed: int) -> Row:
        model = bench.dense(network, seed)
        torch.manual_seed(seed)
        small = method(model, bench.look(seed), left)
        row = _judged(bench, network, seed, small.model, difference=small.difference, **more)
        return _again(bench, small.model, seed, row)

    return run


def criteria(bench: Bench) -> list[Item]:
    """Every criterion at half of the FLOPs, beside Torch-Pruning."""
    return [
        Item(name, bench.scale.again.epochs, _pruned_and_trained("ResNet-20", method, 0.5))
        for name, method in {**OURS, **THEIRS}.items()
    ]


# ---- ResNet-56, at the published speedups

WITHOUT = {"DepGraph, 93.46 %": 2.11, "DepGraph, 93.36 %": 2.51}
WITH = {"DepGraph, 93.77 %": 2.13, "DepGraph, 93.64 %": 2.57}
RIVALS = {
    "group_taylor, global": OURS["group_taylor, global"],
    "l1, global": OURS["l1, global"],
    "channel_obs": OURS["channel_obs"],
    "Torch-Pruning, magnitude, global": THEIRS["Torch-Pruning, magnitude, global"],
    "Torch-Pruning, Taylor, global": THEIRS["Torch-Pruning, Taylor, global"],
}


def resnet56(bench: Bench) -> list[Item]:
    """ResNet-56 from its dense weights, trained again after pruning."""
    return [
        Item(
            f"{name}, {speed}×",
            bench.scale.again.epochs,
            _pruned_and_trained("ResNet-56", method, 1 / speed, published=published),
        )
        for published, speed in WITHOUT.items()
        for name, method in RIVALS.items()
    ]


def _scales(strength: float) -> Callable[[nn.Module], torch.Tensor]:
    """Return the penalty of network slimming: the sizes of all scales."""

    def penalty(model: nn.Module) -> torch.Tensor:
        norms = [m.weight for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        return strength * sum(weight.abs().sum() for weight in norms)

    return penalty


def _trained_sparsely(
    method: Method, network: str, left: float, **more: Any
) -> Callable[[Bench, int], Row]:
    """Train with the penalty, prune, train again. Both sides get the same."""

    def run(bench: Bench, seed: int) -> Row:
        model = bench.dense(network, seed)
        bench.train(model, bench.scale.again, seed + 2, penalty=_scales(1e-4))
        sparse = bench.judge(model)
        torch.manual_seed(seed)
        small = method(model, bench.look(seed), left)
        row = _judged(bench, network, seed, small.model, difference=small.difference, **more)
        return _again(bench, small.model, seed, {**row, "trained_sparsely": sparse})

    return run


def _group_sparsity(network: str, left: float, **more: Any) -> Callable[[Bench, int], Row]:
    """Do as Torch-Pruning's own pruner does: it regularises groups, and then prunes them."""

    def run(bench: Bench, seed: int) -> Row:
        import torch_pruning as tp

        model, look = bench.dense(network, seed), bench.look(seed)
        last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
        pruner = tp.pruner.GroupNormPruner(
            model,
            look.example,
            tp.importance.GroupMagnitudeImportance(),
            reg=5e-4,
            global_pruning=True,
            pruning_ratio=0.95,
            iterative_steps=100,
            ignored_layers=[last],
        )
        pruner.update_regularizer()
        bench.train(
            model, bench.scale.again, seed + 2, after_backward=lambda: pruner.regularize(model)
        )
        sparse = bench.judge(model)
        dense, _ = tp.utils.count_ops_and_params(model, look.example)
        for _ in range(100):
            pruner.step()
            if tp.utils.count_ops_and_params(model, look.example)[0] <= left * dense:
                break
        row = _judged(bench, network, seed, model, difference=None, **more)
        return _again(bench, model, seed, {**row, "trained_sparsely": sparse})

    return run


def resnet56_sparse(bench: Bench) -> list[Item]:
    """ResNet-56, trained with a penalty before it is pruned."""
    twice = 2 * bench.scale.again.epochs
    items = []
    for published, speed in WITH.items():
        given = {"network": "ResNet-56", "left": 1 / speed, "published": published}
        ours = {
            "group_taylor, global": OURS["group_taylor, global"],
            "l2, global": at_once("l2", mode="global"),
        }
        for name, method in ours.items():
            items.append(Item(f"{name}, {speed}×", twice, _trained_sparsely(method, **given)))
        rival = "Torch-Pruning, groups regularised"
        items.append(Item(f"{rival}, {speed}×", twice, _group_sparsity(**given)))
    return items


# ---- the experiments of the predecessor's documentation


def slim(bench: Bench) -> list[Item]:
    """VGG-19: trained with the penalty on its scales, 70 % of all channels removed."""

    def run(bench: Bench, seed: int) -> Row:
        torch.manual_seed(seed)
        bench.dense("VGG-19", seed)  # what it is compared with
        torch.manual_seed(seed)
        model = bench.new("VGG-19")
        rules = [{"total_sparsity": 0.7, "op_types": ["BatchNorm2d"]}]
        pruner = SlimPruner(
            model,
            rules,
            calibrate=lambda model: bench.train(model, bench.scale.dense, seed),
            scale=1e-4,
        )
        look = bench.look(seed)
        model, masks = pruner.compress(example_inputs=look.example)
        report = prune_core.shrink(prune_core.unwrap(model).eval(), look.example, masks)
        published = "Liu et al.: 6.34 → 6.20 % error, 88.5 % fewer parameters"
        row = _judged(bench, "VGG-19", seed, report.model, difference=report.difference)
        return _again(bench, report.model, seed, {**row, "published": published})

    return [Item("slim, 70 %", bench.scale.dense.epochs + bench.scale.again.epochs, run)]


LI_ET_AL = (0, 7, 8, 9, 10, 11, 12)
"""Which of its convolutions VGG-16-A loses half of."""


def l1(bench: Bench) -> list[Item]:
    """VGG-16-A: half of the filters of seven convolutions removed."""

    def run(bench: Bench, seed: int) -> Row:
        model, look = bench.dense("VGG-16", seed).eval(), bench.look(seed)
        names = [name for name, m in model.named_modules() if isinstance(m, nn.Conv2d)]
        rules = [{"op_names": [names[n] for n in LI_ET_AL], "sparsity": 0.5}]
        model, masks = L1NormPruner(model, rules).compress(example_inputs=look.example)
        report = prune_core.shrink(prune_core.unwrap(model), look.example, masks)
        published = "Li et al.: 6.75 → 6.60 % error, 64.0 % fewer parameters"
        row = _judged(bench, "VGG-16", seed, report.model, difference=report.difference)
        return _again(bench, report.model, seed, {**row, "published": published})

    return [Item("l1, VGG-16-A", bench.scale.again.epochs, run)]


ROUNDS, LATE = 6, 0.02
"""Rounds of the lottery, and which share of the first training its rewinding goes back to."""


def lottery(bench: Bench) -> list[Item]:
    """ResNet-20: tickets found with late rewinding, beside random masks."""

    def run(bench: Bench, seed: int) -> Row:
        torch.manual_seed(seed)
        model = bench.new("ResNet-20")
        recipe = bench.scale.epochs(bench.scale.dense)
        late = max(1, round(LATE * recipe.steps(len(bench.images))))

        def trained(model: nn.Module, this_round: Any) -> None:
            bench.train(model, bench.scale.dense, seed, counter=this_round.steps)

        lottery = LotteryTicket(
            model,
            [{"op_types": ["Conv2d"], "sparsity": 0.9}],
            rounds=ROUNDS,
            rewind=f"early:{late}",
            pruning_params={"mode": "global"},
            checkpoint=bench.out / f"lottery-{bench.scale.name}-{seed}.pt",
        )
        result = lottery.run(train=trained, evaluate=bench.judge)
        found = [[record.sparsity, record.score] for record in result.rounds]
        return {
            "network": "ResNet-20",
            "dense": found[0][1],
            "recovered": found[-1][1],
            "rounds": found,
            "rewind": late,
        }

    return [Item("level, late rewinding", (ROUNDS + 1) * bench.scale.dense.epochs, run)]


def agp(bench: Bench) -> list[Item]:
    """ResNet-20: single weights, 90 % of them, pruned little by little while it trains."""

    def run(bench: Bench, seed: int) -> Row:
        model = bench.dense("ResNet-20", seed)
        epochs = bench.scale.epochs(bench.scale.again).epochs
        until = max(1, round(0.6 * epochs))
        rules = [{"final_sparsity": 0.9, "end_epoch": until, "op_types": ["Conv2d"]}]
        pruner = AGPPruner(model, rules, pruning_algorithm="level")
        pruner.compress()
        bench.train(
            model, bench.scale.again, seed + 1, before_epoch=pruner.update_epoch, still=False
        )
        return {
            "network": "ResNet-20",
            "dense": bench.dense_of["ResNet-20"],
            "recovered": bench.judge(model),
            "sparsity": min(pruner.sparsities.values()),
            "epochs": epochs,
        }

    return [Item("agp, 90 % of the weights", bench.scale.again.epochs, run)]


SHORT = Recipe(epochs=0.25, rate=0.01)
NETADAPT_STEP = 0.1


def searches(bench: Bench) -> list[Item]:
    """A small MobileNet at half of its FLOPs, by who says where to prune."""
    name = "small MobileNet"

    def amc(model: nn.Module, look: Look, left: float, evaluate: Any, finetune: Any) -> Any:
        return AMCPruner(
            model,
            CONVOLUTIONS,
            evaluate,
            dummy_input=look.example,
            target={"flops": left},
            pruning_algorithm="l1",
            train_episode=bench.scale.trials,
            warmup=bench.scale.trials // 4,
            delta_decay=0.97,
            lr_a=1e-3,
            lr_c=1e-2,
        ).run()

    def netadapt(model: nn.Module, look: Look, left: float, evaluate: Any, finetune: Any) -> Any:
        return NetAdaptPruner(
            model,
            CONVOLUTIONS,
            finetune,
            evaluate,
            dummy_input=look.example,
            target={"flops": left},
            pruning_algorithm="l1",
            sparsity_per_iteration=NETADAPT_STEP,
        ).run()

    def searched(search: Callable[..., Any]) -> Callable[[Bench, int], Row]:
        def run(bench: Bench, seed: int) -> Row:
            model, look = bench.dense(name, seed), bench.look(seed)
            torch.manual_seed(seed)
            result = search(
                model,
                look,
                0.5,
                lambda model: bench.judge(model, held=True),
                lambda model: bench.train(model, SHORT, seed + 3),
            )
            model.eval()
            report = prune_core.shrink(prune_core.unwrap(model), look.example, result.masks)
            row = _judged(bench, name, seed, report.model, difference=report.difference)
            return _again(bench, report.model, seed, {**row, "trials": len(result.trials)})

        return run

    again = bench.scale.again.epochs
    tried = 1 + 5 * 6  # rounds of a tenth of the FLOPs, with six groups of layers in each
    return [
        Item("uniform l1", again, _pruned_and_trained(name, OURS["l1"], 0.5)),
        Item("amc", again, searched(amc)),
        Item("netadapt", again + tried * SHORT.epochs, searched(netadapt)),
    ]


STAGES = {
    "criteria": Stage("each criterion at half of the FLOPs", "ResNet-20", criteria),
    "resnet56": Stage("ResNet-56 at the published speedups", "ResNet-56", resnet56),
    "resnet56-sparse": Stage(
        "ResNet-56, trained with a penalty before it is pruned", "ResNet-56", resnet56_sparse
    ),
    "slim": Stage("Slim: 70 % of the channels of VGG-19", "VGG-19", slim),
    "l1": Stage("L1: half of the filters of seven layers of VGG-16", "VGG-16", l1),
    "lottery": Stage("tickets of ResNet-20, with late rewinding", "ResNet-20", lottery),
    "agp": Stage("AGP: 90 % of the weights of ResNet-20", "ResNet-20", agp),
    "searches": Stage("AMC and NetAdapt at half of the FLOPs", "small MobileNet", searches),
}
