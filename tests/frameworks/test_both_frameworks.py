"""torch and Keras side by side: one process, one set of names, one kind of mask file."""

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs both frameworks")
pytest.importorskip("tensorflow", reason="needs both frameworks")

RULES = {"torch": [{"sparsity": 0.5, "op_types": ["Conv2d", "Linear"]}]}
RULES["keras"] = [{"sparsity": 0.5, "op_types": ["Conv2D", "Dense"]}]

PRUNE_WITH_TORCH = """
import sys
from torch import nn
from prune_core import get_pruner
model = nn.Sequential(nn.Linear(8, 4))
get_pruner("l1")(model, [{"sparsity": 0.5, "op_types": ["Linear"]}]).compress()
assert not {"keras", "tensorflow"} & set(sys.modules)
"""
PRUNE_WITH_KERAS = """
import sys
import keras, prune_tf
from prune_core import get_pruner
model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(4)])
pruner = get_pruner("l1", framework="keras")
pruner(model, [{"sparsity": 0.5, "op_types": ["Dense"]}]).compress()
assert all(getattr(prune_tf, name) is not None for name in prune_tf.__all__)
assert "prune_core.pruning" not in sys.modules
assert "torch" not in sys.modules
"""


@pytest.fixture
def twins():
    """The same network in both frameworks, with the same weights."""
    import keras
    from torch import nn

    keras.utils.set_random_seed(0)
    in_keras = keras.Sequential(
        [
            keras.layers.Input((8, 8, 3)),
            keras.layers.Conv2D(8, 3, name="conv"),
            keras.layers.GlobalAveragePooling2D(name="pool"),
            keras.layers.Dense(4, name="head"),
        ]
    )

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)

        def forward(self, x):
            return self.head(self.conv(x).mean((2, 3)))

    in_torch = Net()
    for name in ("conv", "head"):
        weight = getattr(in_torch, name).weight.detach().numpy()
        axes = (2, 3, 1, 0) if weight.ndim == 4 else (1, 0)
        bias = getattr(in_torch, name).bias.detach().numpy()
        in_keras.get_layer(name).set_weights([weight.transpose(axes), bias])
    return in_torch, in_keras


@pytest.mark.parametrize("script", [PRUNE_WITH_TORCH, PRUNE_WITH_KERAS], ids=["torch", "keras"])
def test_neither_imports_the_other(script):
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("name", ["level", "l1", "l2", "fpgm"])
def test_the_same_name_makes_the_same_masks(twins, name):
    from prune_core import get_pruner

    in_torch, in_keras = twins
    _, torch_masks = get_pruner(name)(in_torch, RULES["torch"]).compress()
    _, keras_masks = get_pruner(name, framework="keras")(in_keras, RULES["keras"]).compress()
    for layer in ("conv", "head"):
        weight = torch_masks[layer]["weight"].numpy()
        axes = (2, 3, 1, 0) if weight.ndim == 4 else (1, 0)
        np.testing.assert_array_equal(weight.transpose(axes), keras_masks[layer]["kernel"])
        np.testing.assert_array_equal(
            torch_masks[layer]["bias"].numpy(), keras_masks[layer]["bias"]
        )


def test_masks_of_torch_in_keras_compute_the_same(twins, tmp_path):
    import torch

    from prune_core import get_pruner
    from prune_tf import load_masks, set_masks

    in_torch, in_keras = twins
    pruner = get_pruner("l1")(in_torch, RULES["torch"])
    pruner.compress()
    pruner.save_masks(tmp_path / "masks.safetensors")
    set_masks(in_keras, load_masks(tmp_path / "masks.safetensors", in_keras))
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    with torch.no_grad():
        expected = in_torch(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    np.testing.assert_allclose(np.asarray(in_keras(x)), expected, rtol=1e-5, atol=1e-6)


def test_masks_of_keras_in_torch_compute_the_same(twins, tmp_path):
    import torch

    from prune_core import apply_compression_results
    from prune_tf import LevelPruner

    in_torch, in_keras = twins
    pruner = LevelPruner(in_keras, RULES["keras"])
    pruner.compress()
    pruner.save_masks(tmp_path / "masks.safetensors")
    apply_compression_results(in_torch, tmp_path / "masks.safetensors")
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    with torch.no_grad():
        actual = in_torch(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    np.testing.assert_allclose(np.asarray(in_keras(x)), actual, rtol=1e-5, atol=1e-6)


def outputs_of_both(in_torch, in_keras):
    import torch

    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    with torch.no_grad():
        first = in_torch(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    return first, np.asarray(in_keras(x))


@pytest.mark.parametrize("constants", ["exact", "keep", "zero"])
def test_the_same_masks_make_the_same_small_models(twins, tmp_path, constants):
    import torch

    import prune_core
    import prune_tf

    in_torch, in_keras = twins
    rules = [{"sparsity": 0.5, "op_types": ["Conv2d"]}]
    pruner = prune_core.get_pruner("l1")(in_torch, rules)
    _, masks = pruner.compress()
    path = tmp_path / "masks.safetensors"
    pruner.save_masks(path)
    prune_core.unwrap(in_torch)
    first = prune_core.shrink(in_torch, torch.zeros(1, 3, 8, 8), masks, constants=constants)
    second = prune_tf.shrink(in_keras, masks=path, constants=constants)
    assert first.model.conv.out_channels == second.model.get_layer("conv").filters == 4
    assert first.parameters == second.parameters
    assert max(first.difference, second.difference) < 1e-5
    np.testing.assert_allclose(*outputs_of_both(first.model, second.model), rtol=1e-5, atol=1e-6)


def test_where_nothing_is_masked_both_warn_and_return_the_model(twins):
    import torch

    import prune_core
    import prune_tf

    in_torch, in_keras = twins
    with pytest.warns(prune_core.PruneWarning, match="Nothing was removed"):
        assert prune_core.shrink(in_torch, torch.zeros(1, 3, 8, 8)).model is in_torch
    with pytest.warns(prune_core.PruneWarning, match="Nothing was removed"):
        assert prune_tf.shrink(in_keras).model is in_keras


def test_both_refuse_the_same_mistakes(twins):
    import torch

    import prune_core
    import prune_tf

    in_torch, in_keras = twins
    example = torch.zeros(1, 3, 8, 8)
    with pytest.raises(prune_core.ConfigError, match="constants is 'none'"):
        prune_core.shrink(in_torch, example, constants="none")
    with pytest.raises(prune_core.ConfigError, match="constants is 'none'"):
        prune_tf.shrink(in_keras, constants="none")
    with pytest.raises(prune_core.MaskError, match="conv"):
        prune_core.shrink(in_torch, example, {"conv": {"weight": torch.ones(2, 2)}})
    with pytest.raises(prune_core.MaskError, match="conv"):
        prune_tf.shrink(in_keras, masks={"conv": {"kernel": np.ones((2, 2), bool)}})
    for prune, model, other in (
        (prune_core.prune, in_torch, in_keras),
        (prune_tf.prune, in_keras, in_torch),
    ):
        with pytest.raises(prune_core.PruneError, match="prune_tf|prune_core"):
            prune(other, "l1", sparsity=0.5, exclude="head")
        with pytest.raises(prune_core.PruneError, match="sparsity"):
            prune(model, "l1", sparsity=50, exclude="head")
        with pytest.raises(prune_core.PruneError, match="l1_"):
            prune(model, "l1_", sparsity=0.5, exclude="head")


@pytest.fixture
def residual_twins():
    """A block with a sum in both frameworks, with the same weights."""
    import keras
    from torch import nn

    keras.utils.set_random_seed(1)
    x = keras.layers.Input((8, 8, 3))
    start = keras.layers.Conv2D(8, 3, name="start")(x)
    y = keras.layers.Conv2D(12, 1, activation="relu", name="up")(start)
    y = keras.layers.Conv2D(8, 1, name="down")(y)
    y = keras.layers.GlobalAveragePooling2D()(keras.layers.Add()([start, y]))
    in_keras = keras.Model(x, keras.layers.Dense(4, name="head")(y))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.start, self.up, self.down = (
                nn.Conv2d(3, 8, 3),
                nn.Conv2d(8, 12, 1),
                nn.Conv2d(12, 8, 1),
            )
            self.head = nn.Linear(8, 4)

        def forward(self, x):
            start = self.start(x)
            return self.head((start + self.down(self.up(start).relu())).mean((2, 3)))

    in_torch = Net()
    for name in ("start", "up", "down", "head"):
        weight = getattr(in_torch, name).weight.detach().numpy()
        axes = (2, 3, 1, 0) if weight.ndim == 4 else (1, 0)
        bias = getattr(in_torch, name).bias.detach().numpy()
        in_keras.get_layer(name).set_weights([weight.transpose(axes), bias])
    return in_torch, in_keras


def test_both_find_the_same_units(residual_twins):
    import torch

    import prune_core
    import prune_tf

    def of(found, names):
        groups = {}
        for group in found.groups:
            axes = sorted((names(name), found.shapes[name][axis]) for name, axis in group.axes)
            groups[len(group)] = axes
        return groups

    in_torch, in_keras = residual_twins
    first = of(
        prune_core.units(in_torch, torch.zeros(1, 3, 8, 8)),
        lambda name: tuple(name.replace("weight", "kernel").split(".")),
    )
    second = of(prune_tf.units(in_keras), lambda name: tuple(name.split("/")))
    assert first == second
    assert set(first) == {8, 12}


HOW = {
    "half": {"sparsity": 0.5},
    "multiples": {"sparsity": 0.4, "round_to": 4},
    "together": {"sparsity": 0.5, "mode": "global"},
    "uniform": {"sparsity": 0.5, "uniform": True},
    "flops": {"target": {"flops": 0.5}},
    "parameters": {"target": {"parameters": 0.4}},
    "both": {"target": {"flops": 0.7, "parameters": 0.4}},
}


@pytest.mark.parametrize("how", HOW)
def test_the_same_call_makes_the_same_masks_and_reports(residual_twins, how):
    import torch

    import prune_core
    import prune_tf

    in_torch, in_keras = residual_twins
    example = torch.zeros(1, 3, 8, 8)
    _, torch_masks = prune_core.prune(in_torch, "l1", example_inputs=example, **HOW[how])
    _, keras_masks = prune_tf.prune(in_keras, "l1", **HOW[how])
    for layer in ("start", "up", "down", "head"):
        weight = torch_masks[layer]["weight"].numpy()
        axes = (2, 3, 1, 0) if weight.ndim == 4 else (1, 0)
        np.testing.assert_array_equal(weight.transpose(axes), keras_masks[layer]["kernel"])
    prune_core.unwrap(in_torch)
    first = prune_core.shrink(in_torch, example, torch_masks)
    second = prune_tf.shrink(in_keras)
    for name in ("parameters", "flops", "bytes", "removed"):
        assert getattr(first, name) == getattr(second, name), name
    np.testing.assert_allclose(*outputs_of_both(first.model, second.model), rtol=1e-4, atol=1e-5)


def test_named_units_go_in_both(residual_twins):
    import torch

    import prune_core
    import prune_tf

    in_torch, in_keras = residual_twins
    first = prune_core.shrink(in_torch, torch.zeros(1, 3, 8, 8), units=[{"up.weight": {0: (2, 5)}}])
    second = prune_tf.shrink(in_keras, units=[{"up/kernel": {3: (2, 5)}}])
    assert first.flops == second.flops
    assert first.removed == second.removed == 2
    np.testing.assert_allclose(*outputs_of_both(first.model, second.model), rtol=1e-4, atol=1e-5)


def test_both_refuse_the_same_budgets(residual_twins):
    import torch

    import prune_core
    import prune_tf

    in_torch, in_keras = residual_twins
    for options, message in (
        ({"target": {"flop": 0.5}}, "Did you mean 'flops'"),
        ({"target": {"flops": 1.5}}, "must be what may be left"),
        ({"target": {"flops": 0.5}, "sparsity": 0.5}, "Say how much to prune, once"),
        ({"target": {"flops": 0.01}}, "of everything that may be pruned gone"),
        ({"sparsity": 0.5, "round_to": 0}, "round_to is 0"),
        ({"sparsity": 0.5, "round_to": 4, "mode": "normal"}, "mode is 'normal'"),
    ):
        with pytest.raises(prune_core.ConfigError, match=message):
            prune_core.prune(in_torch, "l1", example_inputs=torch.zeros(1, 3, 8, 8), **options)
        with pytest.raises(prune_core.ConfigError, match=message):
            prune_tf.prune(in_keras, "l1", **options)
    assert prune_tf.masks_of(in_keras) == {}


def test_data_and_calibrate_mean_the_same(residual_twins):
    import torch

    import prune_core
    import prune_tf

    in_torch, in_keras = residual_twins
    x = np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype("float32")
    for_torch = [torch.from_numpy(batch.transpose(0, 3, 1, 2).copy()) for batch in (x[:4], x[4:])]
    _, torch_masks = prune_core.prune(
        in_torch, "apoz", sparsity=0.5, data=for_torch, example_inputs=for_torch[0]
    )
    _, keras_masks = prune_tf.prune(in_keras, "apoz", sparsity=0.5, data=[x[:4], x[4:]])
    prune_tf.unwrap(in_keras)
    for name in ("start", "up"):
        weight = torch_masks[name]["weight"].numpy().transpose(2, 3, 1, 0)
        np.testing.assert_array_equal(weight, keras_masks[name]["kernel"])
    prune_core.unwrap(in_torch)
    with pytest.raises(prune_core.ConfigError, match="data and calibrate are both given"):
        prune_core.prune(in_torch, "apoz", sparsity=0.5, data=for_torch, calibrate=in_torch)
    with pytest.raises(prune_core.ConfigError, match="data and calibrate are both given"):
        prune_tf.prune(in_keras, "apoz", sparsity=0.5, data=x, calibrate=lambda model: model(x))


def test_gradual_pruners_go_by_the_same_timetable(twins):
    import prune_core

    in_torch, in_keras = twins
    when = {"start_epoch": 1, "end_epoch": 8, "frequency": 2, "initial_sparsity": 0.1}
    reached = []
    for framework, model in (("torch", in_torch), ("keras", in_keras)):
        rules = [{"sparsity": 0.7, "op_names": ["head"], **when}]
        pruner = prune_core.get_pruner("agp", framework=framework)(model, rules, "level")
        pruner.compress()
        seen = []
        for epoch in range(9):
            pruner.update_epoch(epoch)
            if framework == "keras":
                seen.append(pruner.sparsity()["head"])
            else:
                mask = next(iter(pruner.get_modules_wrapper().values())).masks["weight"]
                seen.append(1 - float(mask.float().mean()))
        reached.append(seen)
    np.testing.assert_allclose(*reached)
    assert reached[0][-1] == pytest.approx(0.7, abs=0.02)
