"""What a search delivers meets what it was asked for, on networks so narrow that channels count."""

import pytest
import torch
from torch import nn

from prune_core import PruneWarning, shrink, unwrap
from prune_core.amount import number_to_prune
from prune_schedule import (
    AutoCompressPruner,
    NetAdaptPruner,
    SensitivityPruner,
    SimulatedAnnealingPruner,
)

X = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
SEARCHES = {
    "annealing": (SimulatedAnnealingPruner, {"cool_down_rate": 0.7}),
    "sensitivity": (SensitivityPruner, {"sparsity_per_iter": 0.25}),
    "netadapt": (NetAdaptPruner, {"sparsity_per_iteration": 0.1}),
}


def narrow(width):
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.ReLU()),
        *(nn.Conv2d(width, width, 3), nn.ReLU(), nn.Conv2d(width, 2 * width, 3)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 4)),
    )


def score(model):
    model.eval()
    return -model(X).square().mean().item()


def masked(result):
    masks = [tensors["weight"] for tensors in result.masks.values()]
    return sum(int((~m.bool()).sum()) for m in masks), sum(m.numel() for m in masks)


@pytest.mark.parametrize("algorithm", ["channels", "smallest"])
@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.75])
@pytest.mark.parametrize("width", [4, 5, 8])
@pytest.mark.parametrize("name", SEARCHES)
def test_masks_meet_the_sparsity(name, width, sparsity, algorithm):
    search, more = SEARCHES[name]
    rules = [{"sparsity": sparsity, "op_types": ["Conv2d"]}]
    pruner = search(narrow(width), rules, evaluator=score, pruning_algorithm=algorithm, **more)
    result = pruner.run()
    assert result.complete
    count, everything = masked(result)
    # A filter of the largest layer.
    piece = 9 * width if algorithm == "channels" else 1
    wanted = number_to_prune(sparsity, everything)
    assert wanted <= count < wanted + piece


@pytest.mark.parametrize("target", [{"flops": 0.5}, {"parameters": 0.5}])
@pytest.mark.parametrize("width", [4, 8])
@pytest.mark.parametrize("name", SEARCHES)
def test_what_is_left_meets_the_target_and_wastes_nothing(name, width, target):
    search, more = SEARCHES[name]
    model = narrow(width)
    pruner = search(
        model,
        [{"op_types": ["Conv2d"]}],
        evaluator=score,
        pruning_algorithm="units",
        target=target,
        dummy_input=X,
        **more,
    )
    result = pruner.run()
    [kind] = target
    report = shrink(unwrap(model), X, result.masks)
    before, after = getattr(report, kind)
    assert after / before <= target[kind]
    assert after / before > target[kind] - 0.35 * 8 / width / 2


@pytest.mark.parametrize("sparsity", [0.5, 0.8])
@pytest.mark.parametrize("dummy_input", [None, X])
def test_autocompress_meets_the_sparsity(dummy_input, sparsity):
    def train(model):
        model(X).square().mean().backward()

    model = narrow(5)
    dense = sum(model[n].weight.numel() for n in (0, 3, 5))
    pruner = AutoCompressPruner(
        model,
        [{"total_sparsity": sparsity, "op_names": ["0", "3", "5"]}],
        finetune=train,
        evaluate=score,
        pruning_algorithm="channels" if dummy_input is None else "units",
        dummy_input=dummy_input,
        num_iterations=3,
        cool_down_rate=0.5,
        admm_num_iterations=1,
        admm_training_epochs=1,
    )
    result = pruner.run()
    reached = result.trials[-1]["sparsity"]
    assert reached >= number_to_prune(sparsity, dense) / dense
    if dummy_input is not None:
        small = sum(unwrap(model)[n].weight.numel() for n in (0, 3, 5))
        assert 1 - small / dense == pytest.approx(reached)


def test_masks_that_do_not_come_to_what_was_asked_are_told(toys):
    class Timid(toys.Weights):
        """Masks half of what it is told."""

        def compress(self, example_inputs=None):
            for wrapper in self.get_modules_wrapper().values():
                wrapper.config["sparsity"] /= 2
            return super().compress(example_inputs)

    rules = [{"sparsity": 0.5, "op_types": ["Conv2d"]}]
    pruner = SimulatedAnnealingPruner(narrow(4), rules, score, pruning_algorithm=Timid)
    with pytest.warns(
        PruneWarning, match=r"does not meet its target: 2\d.\d% .* are masked.*Timid"
    ):
        pruner.run()


def test_layers_are_not_ranked_together_by_an_algorithm_that_could(toys):
    from prune_toolkit import GlobalSparsityAllocator

    class Together(toys.Weights):
        def reset_tools(self):
            super().reset_tools()
            self.sparsity_allocator = GlobalSparsityAllocator(self, transform=torch.abs)

    rules = [{"total_sparsity": 0.5, "op_types": ["Conv2d"]}]
    pruner = SimulatedAnnealingPruner(
        narrow(4), rules, score, pruning_algorithm=Together, cool_down_rate=0.5
    )
    result = pruner.run()
    best = next(t for t in result.trials if t["score"] == result.score)
    for name, sparsity in best["sparsities"].items():
        assert result.sparsities[name] == pytest.approx(sparsity, abs=0.03)
