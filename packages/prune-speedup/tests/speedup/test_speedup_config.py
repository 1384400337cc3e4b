"""A config that a model carries follows the model, found without knowing its names."""

import copy
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from prune_core import PruneWarning, SpeedupError, load_pruned, shrink, units


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
    with pytest.warns(PruneWarning, match="a model built from it has the old sizes"):
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
    with pytest.warns(PruneWarning, match="its config cannot describe it"):
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
    with pytest.warns(PruneWarning, match="its config cannot describe it"):
        report = shrink(model, x, units=[found.unit(found.groups[0].labels[0])])
    assert report.config.missing
    assert model.config.parts == 4
    assert model(x).shape == expected.shape


def test_a_config_that_another_model_shares_is_left_alone():
    """What is changed is a copy, and every part of the model holds that copy."""
    config = Config(breadth=16, classes=6, inner=Config(widths=[20, 30]))
    model, other = Net(config).eval(), Net(config)
    model.layers[0].config = config
    model.layers[1].inner = [config.inner]
    before = config.to_dict()
    report = take(model, layers_0=0.5)
    assert report.config.values == {"inner.widths.0": (20, 10)}
    assert config.to_dict() == before
    assert other.config is config
    assert model.config is not config
    assert model.layers[0].config is model.config
    assert model.layers[1].inner == [model.config.inner]
    assert model.config.inner.widths == [10, 30]


class Headed(Net):
    """Makes up a size that its config does not say, and is saved as models of a library are."""

    def __init__(self, config):
        super().__init__(config)
        size = getattr(config, "size", None) or config.breadth // config.parts
        getattr(config, "label", "nothing that matters")
        self.heads = nn.Linear(config.breadth, config.parts * size)
        self.back = nn.Linear(config.parts * size, config.breadth)

    def forward(self, x):
        x = self.stem(x)
        return self.head(x + self.back(self.heads(x).relu()))

    def save_pretrained(self, path):
        torch.save((self.config.to_dict(), self.state_dict()), path)

    @classmethod
    def from_pretrained(cls, path):
        config, state = torch.load(path, weights_only=True)
        model = cls(Config.from_dict(config)).eval()
        model.load_state_dict(state)
        return model


@pytest.mark.parametrize("open_size", [{}, {"size": None}])
def test_a_size_that_the_model_makes_up_is_written_down(open_size, tmp_path):
    torch.manual_seed(0)
    config = Config(breadth=16, classes=6, parts=4, inner=Config(widths=[]), **open_size)
    model = Headed(config).eval()
    report = take(model, heads=0.5)
    assert report.config.values == {"size": (None, 4), "parts": (4, 2)}
    assert "size 4 (it was left open)" in report.table()
    assert not hasattr(config, "size") or config.size is None
    model.save_pretrained(tmp_path / "small")
    torch.testing.assert_close(Headed.from_pretrained(tmp_path / "small")(X), model(X))
    # A dense model that becomes the small one from a file can be saved in that way too.
    report.save(tmp_path / "small.safetensors")
    dense = Headed(Config.from_dict(config.to_dict())).eval()
    load_pruned(dense, tmp_path / "small.safetensors").save_pretrained(tmp_path / "again")
    torch.testing.assert_close(Headed.from_pretrained(tmp_path / "again")(X), model(X))


def uneven():
    torch.manual_seed(0)
    config = Config(breadth=16, classes=6, parts=4, inner=Config(widths=[20, 20]))

    class Saved(Net):
        save_pretrained = Headed.save_pretrained

    return Saved(config).eval()


def test_a_model_that_its_config_does_not_describe_is_not_saved_with_it(tmp_path):
    model = uneven()
    with pytest.warns(PruneWarning, match=r"save_pretrained\(\) is refused.*report.save\(path\)"):
        report = take(model, layers_0=0.5)
    report.save(tmp_path / "small.safetensors")
    copies = [model, copy.deepcopy(model), load_pruned(uneven(), tmp_path / "small.safetensors")]
    for each in copies:
        with pytest.raises(SpeedupError, match=r"prune_core.save_pruned.*prune_core.load_pruned"):
            each.save_pretrained(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
    # Once layers are alike again, the config says it.
    report = take(model, layers_1=0.5)
    assert report.config.values == {"inner.widths.0": (20, 10), "inner.widths.1": (20, 10)}
    model.save_pretrained(tmp_path / "folder")


def test_without_a_comparison_the_config_is_not_followed():
    model = uneven()
    found = units(model, X)
    group = next(group for group in found.groups if group.name.startswith("layers.0"))
    chosen = [found.unit(label) for label in group.labels[:5]]
    report = shrink(model, X, units=chosen, verify=False)
    assert "verify=False" in report.config.missing
    with pytest.raises(SpeedupError, match="verify=False"):
        model.save_pretrained("nowhere")


def test_a_part_of_the_model_may_be_what_carries_a_config(tmp_path):
    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            config = Config(breadth=16, classes=6, parts=4, inner=Config(widths=[]))
            self.body = Headed(config)
            self.top = nn.Linear(6, 3)

        def forward(self, x):
            return self.top(self.body(x=x))

    model = Whole().eval()
    report = take(model, body_heads=0.5)
    assert report.config.values == {"body.size": (None, 4), "body.parts": (4, 2)}
    model.body.save_pretrained(tmp_path / "body")
    torch.testing.assert_close(Headed.from_pretrained(tmp_path / "body")(X), model.body(X))


def test_what_saves_itself_without_a_config_that_can_follow():
    class Mixed(Net):
        save_pretrained = Headed.save_pretrained

    model = Mixed(Config(breadth=16, classes=6, inner=Config(widths=[20])))
    model.config = {"breadth": 16}
    with pytest.warns(PruneWarning, match="it says nothing of 'layers.0.0.bias'"):
        take(model.eval(), layers_0=0.5)
    with pytest.raises(SpeedupError, match="it says nothing of"):
        model.save_pretrained("nowhere")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ([[["breadth"], 32]], "sets 'breadth' in the config of the model to 32"),
        ([[["name"], 3]], "sets 'name'"),
        ([[["to_dict"], 3]], "sets 'to_dict'"),
        ([[["__class__"], 3]], "sets '__class__'"),
        ([[["inner", "widths", 7], 3]], "sets 'inner.widths.7'"),
        ([[[], 3]], "sets ''"),
        ([[["breadth"], 8]], "the config in it makes another Net"),
        ([[["breadth"], "8"]], "it must be a whole number"),
    ],
)
def test_a_file_that_says_else_of_the_config(settings, says, tmp_path):
    model = net()
    report = take(model, layers_0=0.5)
    path = tmp_path / "small.safetensors"
    report.save(path)
    with safe_open(path, framework="pt") as file:
        header, tensors = file.metadata(), {n: file.get_tensor(n) for n in file.keys()}  # noqa: SIM118
    surgery = json.loads(header["surgery"]) | {"config": {"": settings}}
    save_file(tensors, path, header | {"surgery": json.dumps(surgery)})
    fresh = net()
    before = fresh.config.to_dict(), fresh.config
    with pytest.raises(SpeedupError, match=says):
        load_pruned(fresh, path)
    assert (fresh.config.to_dict(), fresh.config) == before
    assert fresh.layers[0][0].out_features == 20


@pytest.mark.parametrize("config", [None, 3, {"breadth": 16}])
def test_what_is_no_config_is_left_alone(config):
    model = net()
    model.config = config
    assert take(model, stem=0.5).config is None
