"""Prune, make small, recover, quantise: each step keeps what the one before has given."""

import copy
import warnings

import pytest
import torch
from torch import nn

import prune_core
from prune_core import PruneWarning
from prune_filter import L1NormPruner, LevelPruner
from prune_quant import ObserverQuantizer, QAT_Quantizer, distance, quantize, round_to


@pytest.fixture(scope="module")
def digits():
    """A network trained on scikit-learn's digits, and how to score one."""
    data = pytest.importorskip("sklearn.datasets", reason="the digits come with it").load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(data.target)
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10)),
    )
    train(model, images[:1400], labels[:1400], epochs=4)

    def accuracy(network):
        with torch.no_grad():
            return float((network(images[1400:]).argmax(1) == labels[1400:]).float().mean())

    return model.eval(), images[:1400], labels[:1400], accuracy


def train(model, images, labels, epochs, optimizer=None):
    optimizer = optimizer or torch.optim.Adam(model.parameters(), 2e-3)
    model.train()
    for _ in range(epochs):
        for part in torch.randperm(len(images)).split(100):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[part]), labels[part]).backward()
            optimizer.step()
    model.eval()


def test_prune_shrink_recover_quantise(digits, tmp_path):
    dense, images, _, accuracy = digits
    example = images[:8]
    rules = [{"sparsity": 0.5, "op_types": ["Conv2d"]}]
    small = copy.deepcopy(dense)
    _, masks = L1NormPruner(small, rules).compress(example_inputs=example)
    small = prune_core.shrink(prune_core.unwrap(small), example, masks).model
    prune_core.recover(small, list(images.split(100)), teacher=dense, epochs=4, seed=0)
    static = quantize(small, "int8_static", data=list(images[:400].split(100)))
    assert accuracy(dense) > 0.9
    assert accuracy(small) > accuracy(dense) - 0.05
    assert accuracy(static) > accuracy(small) - 0.01
    assert distance(small, static, images[:100]) < 0.05
    sizes = []
    for model in (dense, small, static):
        torch.save(model.state_dict(), tmp_path / "model.pth")
        sizes.append((tmp_path / "model.pth").stat().st_size)
    assert sizes[1] < 0.6 * sizes[0]
    assert sizes[2] < 0.25 * sizes[0]

    rules = [{"quant_types": ["weight", "input"], "quant_bits": 8, "op_types": ["default"]}]
    observer = ObserverQuantizer(copy.deepcopy(small), rules, calibrate=lambda m: m(images[:400]))
    observer.compress()
    whole = observer.convert(images[:200])
    assert accuracy(whole) > accuracy(small) - 0.01


def test_masks_stay_while_the_model_learns_to_be_rounded(digits):
    dense, images, labels, accuracy = digits
    model = copy.deepcopy(dense)
    _, masks = LevelPruner(model, [{"sparsity": 0.7, "op_types": ["Linear"]}]).compress()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    rules = [{"quant_types": ["weight"], "quant_bits": 3, "op_types": ["Linear"]}]
    quantizer = QAT_Quantizer(model, rules, optimizer)
    quantizer.compress()
    before = accuracy(model)
    train(model, images, labels, 2, optimizer)
    assert accuracy(model) >= before
    whole = quantizer.convert(images[:100])
    for name, tensors in masks.items():
        zero = ~tensors["weight"].bool()
        layer = whole.get_submodule(name)
        assert not layer.weight_integers[zero].any()
        assert layer.weight_integers.abs().max() <= 3


def test_pruned_widths_meet_group_sizes():
    torch.manual_seed(0)
    x = torch.randn(4, 64)
    layers = (nn.Linear(64, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 8))
    model = nn.Sequential(*layers).eval()

    def pruned(**options):
        masked, masks = prune_core.prune(
            copy.deepcopy(model), "l1", sparsity=0.4, example_inputs=x, **options
        )
        return prune_core.shrink(prune_core.unwrap(masked), x, masks).model

    with pytest.raises(prune_core.ConfigError, match="round_to=32"):
        quantize(pruned(), "int4")
    fitting = pruned(round_to=round_to("int4"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PruneWarning)
        assert distance(fitting, quantize(fitting, "int4"), x) < 0.3
