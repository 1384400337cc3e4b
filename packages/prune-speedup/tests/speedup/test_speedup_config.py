"""A config that a model carries follows the model, found without knowing its names."""

import pytest
import torch
from torch import nn

from prune_core import shrink, units


class Config:
    """What such configs have in common: attributes, and a way to a dict and back."""

    def __init__(self, **values):
        self.__dict__.update(values)

    def to_dict(self):
        return {
            key: value.to_dict() if isinstance(value, Config) else value
            for key, value in vars(self).items()
        }

    @classmethod
    def from_dict(cls, values):
        return cls(**{k: cls(**v) if isinstance(v, dict) else v for k, v in values.items()})


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.qkv = nn.Linear(config.breadth, 3 * config.breadth)
        self.out = nn.Linear(config.breadth, config.breadth)

    def forward(self, x):
        size = self.qkv.out_features // 3 // self.config.parts
        x = self.qkv(x).reshape(*x.shape[:2], 3, self.config.parts, size)
        q, k, v = x.permute(2, 0, 3, 1, 4)
        x = (q @ k.transpose(-1, -2)).softmax(-1) @ v
        return self.out(x.transpose(1, 2).flatten(2))


class Net(nn.Module):
    """Sizes in the config, in a config within it and in a list."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.stem = nn.Linear(6, config.breadth)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Linear(config.breadth, width), nn.Tanh(), nn.Linear(width, config.breadth)
            )
            for width in config.inner.widths
        )
        self.register_buffer("scale", torch.full((), 1 / config.breadth))
        self.head = nn.Linear(config.breadth, config.classes)

    def forward(self, x):
        x = self.stem(x)
        for layer in self.layers:
            x = x + layer(x)
        return self.head(x) * self.scale


def net(widths=(20, 30), breadth=16):
    torch.manual_seed(0)
    config = Config(
        breadth=breadth, classes=6, name="net", deep=True, inner=Config(widths=[*widths])
    )
    return Net(config).eval()


X = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))


def take(model, **shares):
    """Take shares of the groups whose names these begin."""
    found = units(model, X)
    chosen = [
        found.unit(label)
        for group in found.groups
        for start, share in shares.items()
        if group.name.startswith(start.replace("_", "."))
        for label in group.labels[: int(len(group) * share)]
    ]
    return shrink(model, X, units=chosen)


def test_sizes_in_lists_and_nested_configs_follow():
    model = net()
    report = take(model, layers_0=0.5, layers_1=0.2, stem=0.25)
    assert report.config.values == {
        "breadth": (16, 12),
        "inner.widths.0": (20, 10),
        "inner.widths.1": (30, 24),
    }
    again = Net(Config.from_dict(model.config.to_dict())).eval()
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again(X), model(X))


def test_a_number_that_happens_to_be_the_same_stays():
    model = net(breadth=12)
    model.config.steps = 20  # as many as the first layer is wide
    report = take(model, layers_0=0.5)
    assert report.config.values == {"inner.widths.0": (20, 10)}
    assert model.config.steps == 20
    assert model.config.classes == 6


def test_layers_that_were_alike_and_are_so_no_longer():
    model = net((20, 20))
    before = model.config.to_dict()
    report = take(model, layers_0=0.5)
    assert "'layers.0.0.weight' is now (10, 16)" in report.config.missing
    assert model.config.to_dict() == before


def test_a_config_that_changes_what_the_model_computes_is_left():
    class Peculiar(Net):
        def __init__(self, config):
            super().__init__(config)
            self.register_buffer("scale", torch.full((), 1 / config.breadth), persistent=False)

    torch.manual_seed(0)
    model = Peculiar(net().config).eval()
    report = take(model, stem=0.5)
    assert model.stem.out_features == 8
    assert report.config.missing
    assert model.config.breadth == 16


def test_a_forward_that_reads_the_config():
    torch.manual_seed(0)
    model = Attention(Config(breadth=8, parts=4)).eval()
    x = torch.randn(2, 5, 8)
    found = units(model, x)
    expected = model(x)
    report = shrink(model, x, units=[found.unit(found.groups[0].labels[0])])
    assert report.config.missing
    assert model.config.parts == 4
    assert model(x).shape == expected.shape


@pytest.mark.parametrize("config", [None, 3, {"breadth": 16}])
def test_what_is_no_config_is_left_alone(config):
    model = net()
    model.config = config
    assert take(model, stem=0.5).config is None
