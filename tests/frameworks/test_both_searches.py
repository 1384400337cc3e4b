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
    left = {name: getattr(model, name).masks for name in SIZES}
    return -sum(PRICES[name] * (1 - m["weight"].double().mean().item()) for name, m in left.items())


def score_in_keras(model):
    from prune_tf import masks_of

    return -sum(
        PRICES[name] * (1 - masks["kernel"].mean()) for name, masks in masks_of(model).items()
    )


@pytest.mark.parametrize("algorithm", ["level", "l1"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("simulated_annealing", {"seed": 3}),
        ("sensitivity", {"sparsity_per_iter": 0.2, "acc_drop_threshold": 0.15}),
        ("netadapt", {"sparsity_per_iteration": 0.1}),
    ],
)
def test_the_same_scores_give_the_same_plans(twins, name, options, algorithm):
    from prune_core import get_pruner

    in_torch, in_keras = twins
    found = []
    for framework, model, kind, score in (
        ("torch", in_torch, "Linear", score_in_torch),
        ("keras", in_keras, "Dense", score_in_keras),
    ):
        rules = [
            {"sparsity": 0.4, "op_names": ["a", "b"]},
            {"sparsity": 0.25, "op_types": [kind], "op_names": ["c"]},
        ]
        search = get_pruner(name, framework=framework)
        pruner = search(model, rules, evaluate=score, pruning_algorithm=algorithm, **options)
        _, masks = pruner.compress()
        trials = pruner.trials if framework == "torch" else pruner.history
        found.append(([each["sparsities"] for each in trials], pruner.best, masks))
    (torch_plans, torch_best, torch_masks), (keras_plans, keras_best, keras_masks) = found
    assert len(torch_plans) > 5
    assert torch_plans == keras_plans
    assert torch_best == keras_best
    for layer in SIZES:
        np.testing.assert_array_equal(
            torch_masks[layer]["weight"].numpy().T, keras_masks[layer]["kernel"]
        )
