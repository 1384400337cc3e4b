"""Every way to make a network smaller, ours and Torch-Pruning's, in the same form.

A method gets a trained network, which it may change, some batches to look at, and the share of the
FLOPs that may be left. It returns the small network. Ours are written as a user writes them.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

import prune_core
from prune_filter import SlimPruner

__all__ = ["OURS", "THEIRS", "Look", "Method", "Small", "at_once", "by_scales"]

STEPS = 100
"""In how many steps Torch-Pruning may go, so that it stops close to the budget."""
BATCHES_EACH = 2
"""How many batches its Taylor sees before each."""
SAMPLES = 16
"""How many images, one by one, its Hessian sees before each."""


@dataclass(frozen=True)
class Look:
    """What a method may look at: a few batches of the training images."""

    batches: list[tuple[Tensor, Tensor]]

    @property
    def example(self) -> Tensor:
        return self.batches[0][0][:1]

    def forward(self, model: nn.Module) -> None:
        for images, _ in self.batches:
            model(images)

    def backward(self, model: nn.Module) -> None:
        for images, labels in self.batches:
            F.cross_entropy(model(images), labels).backward()
        model.zero_grad()


@dataclass(frozen=True)
class Small:
    """A small network, and how far its outputs are from those of the masked one, if compared."""

    model: nn.Module
    difference: float | None = None


Method = Callable[[nn.Module, Look, float], Small]


def at_once(algorithm: str, calibrate: str | None = None, **options: Any) -> Method:
    """Prune with a registered algorithm, by a budget of FLOPs.

    Args:
        algorithm: Its name.
        calibrate: What it wants to see: `"forward"` or `"backward"` passes, or `"data"`.
        **options: Further arguments of the pruner.
    """

    def prune(model: nn.Module, look: Look, left: float) -> Small:
        given: dict[str, Any] = dict(options)
        if calibrate == "data":
            given["data"] = [images for images, _ in look.batches]
        elif calibrate is not None:
            given["calibrate"] = getattr(look, calibrate)
        model, masks = prune_core.prune(
            model.eval(), algorithm, target={"flops": left}, example_inputs=look.example, **given
        )
        return _shrunk(model, masks, look)

    return prune


def by_scales(model: nn.Module, look: Look, left: float) -> Small:
    """Prune with Slim, which has a ratio and no budget: the least ratio that meets it is sought."""
    dense, _ = _counted(model, look.example)

    def with_ratio(ratio: float) -> Small:
        rules = [{"total_sparsity": ratio, "op_types": ["BatchNorm2d"]}]
        pruner = SlimPruner(copy.deepcopy(model).eval(), rules)
        pruned, masks = pruner.compress(example_inputs=look.example)
        return _shrunk(pruned, masks, look)

    low, high, best = 0.0, 0.95, None
    for _ in range(6):
        ratio = (low + high) / 2
        try:
            found = with_ratio(ratio)
        except prune_core.PruneError:  # a layer would be left without channels
            high = ratio
            continue
        if _counted(found.model, look.example)[0] <= left * dense:
            best, high = found, ratio
        else:
            low = ratio
    if best is None:
        raise prune_core.PruneError(f"Slim leaves more than {left:.0%} of the FLOPs at any ratio.")
    return best


def _shrunk(model: nn.Module, masks: Any, look: Look) -> Small:
    report = prune_core.shrink(prune_core.unwrap(model), look.example, masks)
    return Small(report.model, report.difference)


def _counted(model: nn.Module, example: Tensor) -> tuple[int, int]:
    flops, parameters, _ = prune_core.count_flops_params(model, example, verbose=False)
    return flops, parameters


def torch_pruning(importance: str, **options: Any) -> Method:
    """Prune with Torch-Pruning, in steps, until the budget is met."""

    def prune(model: nn.Module, look: Look, left: float) -> Small:
        import torch_pruning as tp

        score = getattr(tp.importance, importance)()
        last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
        pruner = tp.pruner.BasePruner(
            model.eval(),
            look.example,
            score,
            ignored_layers=[last],
            pruning_ratio=0.95,
            iterative_steps=STEPS,
            **options,
        )
        dense, _ = tp.utils.count_ops_and_params(model, look.example)
        endless = itertools.cycle(look.batches)
        for _ in range(STEPS):
            _give_gradients(score, model, list(itertools.islice(endless, BATCHES_EACH)))
            pruner.step()
            if tp.utils.count_ops_and_params(model, look.example)[0] <= left * dense:
                break
        model.zero_grad()
        return Small(model)

    return prune


def _give_gradients(score: Any, model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> None:
    kind = type(score).__name__
    model.zero_grad()
    if kind == "GroupTaylorImportance":
        for images, labels in batches:
            F.cross_entropy(model(images), labels).backward()
    if kind == "GroupHessianImportance":
        # Its own accumulate_grad() keeps the last sample only, so they are added up here.
        score.zero_grad()
        for images, labels in itertools.islice(_one_by_one(batches), SAMPLES):
            model.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            for parameter in model.parameters():
                if parameter.grad is not None:
                    before = score._accu_grad.get(parameter, 0)
                    score._accu_grad[parameter] = before + parameter.grad.square()
                    score._counter[parameter] = score._counter.get(parameter, 0) + 1


def _one_by_one(batches: list[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    for images, labels in batches:
        yield from zip(images.split(1), labels.split(1), strict=True)


GLOBAL = {"mode": "global"}
OURS: dict[str, Method] = {
    "random": at_once("random"),
    "l1": at_once("l1"),
    "l2": at_once("l2"),
    "fpgm": at_once("fpgm"),
    "l1, global": at_once("l1", **GLOBAL),
    "slim": by_scales,
    "apoz": at_once("apoz", "forward"),
    "mean_activation": at_once("mean_activation", "forward"),
    "hrank": at_once("hrank", "forward"),
    "taylorfo": at_once("taylorfo", "backward"),
    "taylorfo, global": at_once("taylorfo", "backward", **GLOBAL),
    "group_taylor": at_once("group_taylor", "backward"),
    "group_taylor, global": at_once("group_taylor", "backward", **GLOBAL),
    "activation_norm": at_once("activation_norm", "data"),
    "flap": at_once("flap", "data"),
    "channel_obs": at_once("channel_obs", "data"),
    "group_taylor, global, and least squares": at_once(
        "group_taylor", "backward", reconstruct="least_squares", **GLOBAL
    ),
}
THEIRS: dict[str, Method] = {
    "Torch-Pruning, magnitude": torch_pruning("GroupMagnitudeImportance"),
    "Torch-Pruning, magnitude, global": torch_pruning(
        "GroupMagnitudeImportance", global_pruning=True
    ),
    "Torch-Pruning, Taylor, global": torch_pruning("GroupTaylorImportance", global_pruning=True),
    "Torch-Pruning, Hessian, global": torch_pruning("GroupHessianImportance", global_pruning=True),
}
