"""Searches in torch and Keras: the same network and the same scores give the same plans."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs both frameworks")
pytest.importorskip("tensorflow", reason="needs both frameworks")

SIZES = {"a": (6, 10), "b": (10, 8), "c": (8, 4)}
PRICES = {"a": 1.0, "b": 0.2, "c": 0.5}


@pytest.fixture
def twins():
    """The same network in both frameworks, with the same weights."""
    import keras
    from torch import from_numpy, nn

    rng = np.random.default_rng(0)
    in_keras = keras.Sequential([keras.layers.Input((6,))])
    in_torch = nn.Sequential()
    for name, (inputs, outputs) in SIZES.items():
        weight = rng.normal(size=(inputs, outputs)).astype("float32")
        in_keras.add(keras.layers.Dense(outputs, name=name))
        in_keras.get_layer(name).set_weights([weight, np.zeros(outputs)])
        in_torch.add_module(name, nn.Linear(inputs, outputs))
        in_torch.get_submodule(name).weight.data = from_numpy(weight.T.copy())
        in_torch.get_submodule(name).bias.data.zero_()
    return in_torch, in_keras


def score_in_torch(model):
    modules = {name: getattr(model, name) for name in SIZES}
    masks = {name: each.masks["weight"] for name, each in modules.items() if hasattr(each, "masks")}
    return -sum(PRICES[name] * (1 - mask.double().mean().item()) for name, mask in masks.items())


def score_in_keras(model):
    from prune_tf import masks_of

    return -sum(
        PRICES[name] * (1 - masks["kernel"].mean()) for name, masks in masks_of(model).items()
    )


SEARCHES = pytest.mark.parametrize(
    ("name", "options"),
    [
        ("simulated_annealing", {"seed": 3}),
        ("sensitivity", {"sparsity_per_iter": 0.2, "acc_drop_threshold": 0.15}),
        ("netadapt", {"sparsity_per_iteration": 0.1}),
    ],
)


def assert_alike(in_torch, in_keras):
    """Compare what two searches have tried, chosen and masked."""
    tried = [each["sparsities"] for each in in_torch.trials]
    assert len(tried) > 5
    assert tried == [each["sparsities"] for each in in_keras.history]
    assert in_torch.best == in_keras.best
    masks = in_keras.pruner.masks
    assert {"a", "b"} <= set(masks)
    for layer in masks:
        found = in_torch.masks[layer]["weight"].numpy().T
        np.testing.assert_array_equal(found, masks[layer]["kernel"])


@pytest.mark.parametrize("algorithm", ["level", "l1"])
@SEARCHES
def test_the_same_scores_give_the_same_plans(twins, name, options, algorithm):
    from prune_core import get_pruner

    rules = [{"sparsity": 0.4, "op_names": ["a", "b"]}, {"sparsity": 0.25, "op_names": ["c"]}]
    options = {"pruning_algorithm": algorithm, **options}
    in_torch = get_pruner(name)(twins[0], rules, evaluate=score_in_torch, **options)
    in_torch.compress()
    in_keras = get_pruner(name, framework="keras")(
        twins[1], rules, evaluate=score_in_keras, **options
    )
    in_keras.compress()
    assert_alike(in_torch, in_keras)


@pytest.mark.parametrize("kind", ["flops", "parameters"])
@SEARCHES
def test_a_target_gives_the_same_plans(twins, name, options, kind):
    import torch

    from prune_core import get_pruner

    options = {"pruning_algorithm": "l1", "target": {kind: 0.5}, **options}
    rules = [{"op_names": ["a", "b"]}]
    in_torch = get_pruner(name)(
        twins[0], rules, evaluate=score_in_torch, dummy_input=torch.ones(1, 6), **options
    )
    in_torch.compress()
    in_keras = get_pruner(name, framework="keras")(
        twins[1], rules, evaluate=score_in_keras, **options
    )
    in_keras.compress()
    assert_alike(in_torch, in_keras)


def left_in_torch(model):
    found = 0.0
    for name, price in PRICES.items():
        module = getattr(model, name)
        weight = getattr(module, "module", module).weight
        mask = module.masks["weight"] if hasattr(module, "masks") else None
        found += price * (weight.numel() if mask is None else int(mask.sum()))
    return found


def left_in_keras(model):
    from prune_tf import masks_of

    masks, found = masks_of(model), 0.0
    for name, price in PRICES.items():
        size = int(np.prod(model.get_layer(name).kernel.shape))
        mask = masks.get(name, {}).get("kernel")
        found += price * (size if mask is None else int(mask.sum()))
    return found


@pytest.mark.parametrize("target", [None, {"flops": 0.5}])
def test_autocompress_goes_through_the_same_rounds(twins, target):
    import torch

    from prune_core import get_pruner

    rules = [{"op_names": ["a", "b"], **({"sparsity": 0.5} if target is None else {})}]
    options = {
        "finetune": lambda model: None,
        "total_iteration": 2,
        "cool_down_rate": 0.6,
        "admm_num_iterations": 1,
        "target": target,
        "pruning_algorithm": "l1",
    }
    in_torch = get_pruner("autocompress")(
        twins[0], rules, evaluate=left_in_torch, dummy_input=torch.ones(1, 6), **options
    )
    in_keras = get_pruner("autocompress", framework="keras")(
        twins[1], rules, evaluate=left_in_keras, **options
    )
    first, second = in_torch.run(), in_keras.run()
    for one, other in zip(in_torch.searches, in_keras.searches, strict=True):
        assert len(one) > 4
        assert [each["sparsities"] for each in one] == [each["sparsities"] for each in other]
    for one, other in zip(first.trials, second.history, strict=True):
        assert one["sparsities"] == pytest.approx(other["sparsities"])
        assert one.get("left") == pytest.approx(other.get("left"))
    for name in ("a", "b"):
        module = getattr(in_torch.unwrap(), name)
        np.testing.assert_array_equal(
            second.model.get_layer(name).kernel.numpy(), module.weight.detach().numpy().T
        )
