"""Pruning what belongs together, and closing masks over what follows."""

import pytest
import torch
from torch import nn

from prune_core import BasicPruner, ConfigError, MaskError, PruneWarning, prune, unwrap
from prune_speedup.pruning.coupling import _moment_of
from prune_toolkit import (
    DependencyAwareAllocator,
    NormalSparsityAllocator,
    NormMetricsCalculator,
    WeightDataCollector,
)


class L1(BasicPruner):
    default_types = supported_types = ("Conv2d", "Linear")

    def __init__(self, model, config_list, dummy_input=None, aware=True, uniform=False):
        self.dummy_input, self.aware, self.uniform = dummy_input, aware, uniform
        super().__init__(model, config_list)

    def reset_tools(self):
        self.data_collector = WeightDataCollector(self, channels=True)
        self.metrics_calculator = NormMetricsCalculator(dim=0, p=1)
        self.sparsity_allocator = (
            DependencyAwareAllocator(self, self.dummy_input, uniform=self.uniform)
            if self.aware
            else NormalSparsityAllocator(self, channels=True)
        )


class Residual(nn.Module):
    """Two convolutions whose outputs are added, each with a normalisation that has statistics."""

    def __init__(self, width: int = 4, groups: int = 1) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv = nn.Conv2d(width, width, 3, padding=1, groups=groups)
        self.norm2 = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, 2)
        for norm in (self.norm1, self.norm2):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias)
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2)

    def forward(self, x):
        stem = self.norm1(self.stem(x)).relu()
        return self.head((stem + self.norm2(self.conv(stem)).relu()).mean((2, 3)))


@pytest.fixture
def x():
    return torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def scale_channels(module, factors):
    with torch.no_grad():
        module.weight.copy_(torch.tensor(factors).reshape(-1, 1, 1, 1).expand_as(module.weight))


def channels(mask):
    return mask["weight"].flatten(1).any(1).int().tolist()


def test_channels_that_are_added_go_together(x):
    model = Residual().eval()
    # Alone, the stem would lose channels 0 and 1, the convolution 2 and 3. Together the scores
    # per weight are 1·27 + 9·36, 2·27 + 8·36, 8·27 + 1·36 and 9·27 + 2·36.
    scale_channels(model.stem, [1.0, 2.0, 8.0, 9.0])
    scale_channels(model.conv, [9.0, 8.0, 1.0, 2.0])
    pruner = L1(model, [{"op_types": ["Conv2d"], "sparsity": 0.5}], x)
    _, masks = pruner.compress()
    assert channels(masks["stem"]) == channels(masks["conv"]) == [1, 1, 0, 0]


def test_a_group_loses_the_least_that_is_asked_of_any(x):
    model = Residual().eval()
    config = [{"op_names": ["stem"], "sparsity": 0.75}, {"op_names": ["conv"], "sparsity": 0.25}]
    _, masks = L1(model, config, x).compress()
    assert sum(channels(masks["stem"])) == sum(channels(masks["conv"])) == 3


def test_what_is_tied_to_an_unselected_module_stays(x):
    model = Residual().eval()
    pruner = L1(model, [{"op_names": ["stem"], "sparsity": 0.5}], x)
    with pytest.warns(PruneWarning, match="'stem' is left dense.*'conv', which the config_list"):
        _, masks = pruner.compress()
    assert channels(masks["stem"]) == [1, 1, 1, 1]


def test_outputs_of_the_model_stay(x):
    model = Residual().eval()
    _, masks = L1(model, [{"op_types": ["default"], "sparsity": 0.5}], x).compress()
    assert masks["head"]["weight"].all()


def test_groups_of_a_convolution_lose_equally(x):
    model = Residual(width=8, groups=2).eval()
    _, masks = L1(model, [{"op_types": ["Conv2d"], "sparsity": 0.5}], x).compress()
    kept = channels(masks["conv"])
    assert sum(kept[:4]) == sum(kept[4:]) == 2


def test_what_is_pruned_stays_pruned(x):
    model = Residual().eval()
    pruner = L1(model, [{"op_types": ["Conv2d"], "sparsity": 0.5}], x)
    dead = torch.tensor([1, 1, 1, 0]).reshape(4, 1, 1, 1)
    pruner.load_masks(
        {n: {"weight": dead.expand(4, c, 3, 3)} for n, c in (("stem", 3), ("conv", 4))}
    )
    _, masks = pruner.compress()
    assert channels(masks["stem"])[3] == 0
    assert sum(channels(masks["stem"])) == 2


def test_it_needs_an_input():
    with pytest.raises(ConfigError, match="dummy_input="):
        L1(Residual(), [{"op_types": ["Conv2d"], "sparsity": 0.5}])


def test_looking_at_the_units_changes_nothing(x):
    model = Residual().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    pruner = L1(model, [{"op_types": ["Conv2d"], "sparsity": 0.5}], x)
    pruner.unwrap()
    assert model.training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


# --- closing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_a_masked_channel_is_zero_all_the_way(x, training):
    model = Residual().train(training)
    pruner = L1(model, [{"op_types": ["Conv2d"], "sparsity": 0.5}], x)
    pruner.dummy_input = None
    pruner.compress()
    masked = model.stem.bias_mask.logical_not()
    assert (model.norm1(model.stem(x))[:, masked] != 0).any(), "open masks leave a constant"
    pruner.close_masks(x)
    assert (model.norm1(model.stem(x))[:, masked] == 0).all()
    assert (model.norm1(model.stem(x))[:, ~masked] != 0).any()


@pytest.mark.parametrize("given_twice", [True, False])
def test_compress_closes_when_it_has_an_input(x, given_twice):
    model = Residual().eval()
    pruner = L1(model, [{"op_types": ["Conv2d"], "sparsity": 0.5}], x)
    _, masks = pruner.compress(x) if given_twice else pruner.compress()
    assert masks["norm1"]["bias"].tolist() == masks["stem"]["bias"].tolist()
    assert masks["norm2"]["weight"].tolist() == masks["conv"]["bias"].tolist()


def test_nothing_is_closed_that_some_producer_still_feeds(x):
    model = Residual().eval()
    scale_channels(model.stem, [1.0, 2.0, 8.0, 9.0])
    scale_channels(model.conv, [9.0, 8.0, 1.0, 2.0])
    pruner = L1(model, [{"op_types": ["Conv2d"], "sparsity": 0.5}], x, aware=False)
    _, masks = pruner.compress(x)
    assert channels(masks["stem"]) == [0, 0, 1, 1]
    assert channels(masks["conv"]) == [1, 1, 0, 0]
    assert "norm1" not in masks


def test_closed_masks_survive_unwrapping_and_files(x, tmp_path):
    torch.manual_seed(0)
    model = Residual().eval()
    pruner = L1(model, [{"op_types": ["Conv2d"], "sparsity": 0.5}], x)
    pruner.compress(x)
    closed = model(x)
    pruner.export_model(tmp_path / "model.pth", tmp_path / "masks")
    pruner.unwrap()
    assert isinstance(model.norm1, nn.BatchNorm2d)
    assert torch.equal(model(x), closed)
    pruner.wrap()
    assert torch.equal(model(x), closed)
    fresh = Residual().eval()
    fresh.load_state_dict(torch.load(tmp_path / "model.pth", weights_only=True), strict=True)
    assert torch.equal(fresh(x), closed)
    other = L1(fresh, [{"op_types": ["Conv2d"], "sparsity": 0.5}], x)
    other.load_masks(tmp_path / "masks")
    assert not other.masks["norm1"]["bias"].all()
    with pytest.raises(MaskError, match="'head', which is not among"):
        other.load_masks({"head": {"weight": torch.ones(2, 4)}})


class Blocks(nn.Module):
    """Layers of one kind, and another that is as wide as what goes through them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(3, 8)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 8)) for _ in range(2)
        )
        self.pooler, self.head = nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(self.pooler(x))


def left(masks):
    return {name: sum(channels(mask)) for name, mask in masks.items()}


def uneven_rules(**sparsities):
    rules = [{"op_types": ["Linear"], "sparsity": 0.5}]
    return rules + [
        {"op_names": [name.replace("_", ".")], "sparsity": sparsity}
        for name, sparsity in sparsities.items()
    ]


def test_layers_that_are_alike_lose_the_same():
    x, rules = torch.randn(2, 3), uneven_rules(blocks_0_0=2 / 3, blocks_1_0=1 / 3, pooler=0.25)
    _, free = L1(Blocks().eval(), rules, x).compress()
    assert left(free) == {
        "stem": 4, "blocks.0.0": 2, "blocks.0.2": 4, "blocks.1.0": 4, "blocks.1.2": 4,
        "pooler": 6, "head": 2,
    }  # fmt: skip
    _, alike = L1(Blocks().eval(), rules, x, uniform=True).compress()
    assert left(alike) == {
        "stem": 6, "blocks.0.0": 4, "blocks.0.2": 6, "blocks.1.0": 4, "blocks.1.2": 6,
        "pooler": 6, "head": 2,
    }  # fmt: skip


def test_a_layer_stays_whole_if_one_like_it_has_to():
    rules = [*uneven_rules(), {"op_names": ["blocks.1.0"], "exclude": True}]
    pruner = L1(Blocks().eval(), rules, torch.randn(2, 3), uniform=True)
    with pytest.warns(PruneWarning, match=r"'blocks.0.0' is left dense.*uniform=True"):
        _, masks = pruner.compress()
    assert left(masks)["blocks.0.0"] == 6
    assert left(masks)["stem"] == left(masks)["pooler"] == 4


def test_what_one_layer_has_lost_already_is_asked_of_those_like_it():
    pruner = L1(Blocks().eval(), uneven_rules(), torch.randn(2, 3), uniform=True)
    dead = (torch.arange(6) >= 5).float()[:, None].expand(6, 8)
    pruner.load_masks({"blocks.1.0": {"weight": dead}})
    _, masks = pruner.compress()
    assert left(masks)["blocks.0.0"] == left(masks)["blocks.1.0"] == 1


class Gained(nn.Conv2d):
    """A convolution with a parameter of its own beside its weight and bias."""

    def __init__(self, *args):
        super().__init__(*args)
        self.gain = nn.Parameter(torch.ones(self.out_channels))

    def forward(self, x):
        return super().forward(x) * self.gain.view(-1, 1, 1)


def test_what_a_layer_has_beside_its_weight_and_bias_is_left_open(x):
    model = nn.Sequential(Gained(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3)).eval()
    _, masks = L1(model, [{"op_names": ["0"], "sparsity": 0.5}], x).compress(x)
    assert masks["0"].keys() == {"weight", "bias"}
    assert masks["1"]["bias"].tolist() == masks["0"]["bias"].tolist()


@pytest.mark.usefixtures("toys")
def test_masks_are_closed_by_one_walk_through_the_model(monkeypatch):
    from prune_core.pruning import wrapped as home

    more: list[int] = []
    original = home.replace_modules

    def counted(model, replacements):
        more.append(len(replacements))
        return original(model, replacements)

    layers = [
        module
        for _ in range(6)
        for module in (nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
    ]
    model, x = nn.Sequential(*layers, nn.Conv2d(4, 2, 1)).eval(), torch.randn(1, 4, 8, 8)
    monkeypatch.setattr(home, "replace_modules", counted)
    wrapped, _ = prune(model, "toy_l1", sparsity=0.5, example_inputs=x)
    assert more.count(6) == 1, "the six normalisations go in together"
    assert 1 not in more
    unwrap(wrapped)


class Normed(nn.Module):
    """A stream that a layer normalisation runs over, and a block that adds to it."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(4, 6)
        self.norm = nn.LayerNorm(6)
        self.wide = nn.Linear(6, 8)
        self.back = nn.Linear(8, 6)
        self.out = nn.Linear(6, 2)

    def forward(self, x):
        stream = self.into(x)
        return self.out(stream + self.back(self.wide(self.norm(stream)).relu()))


def test_what_a_norm_holds_is_left_out_without_a_trial():
    torch.manual_seed(0)
    model = Normed().eval()
    x = torch.randn(3, 4)
    layers = [{"op_names": ["into", "wide", "back"], "sparsity": 0.5}]
    pruner = L1(model, layers, dummy_input=x)
    allocator = pruner.sparsity_allocator
    with pytest.warns(PruneWarning, match="'into', 'back' keep all of their channels"):
        masks = allocator.generate_sparsity(pruner.score())
    assert {name for name, each in masks.items() if not each["weight"].all()} == {"wide"}
    # One look at what the masks leave, and no second one without those that stay.
    assert len(allocator.coupling.units.labelling.standings) == 1
    held = allocator.coupling.normed
    stream = allocator.coupling.units.axes["into.weight", 0]
    assert set(stream) <= set(held)
    assert not set(allocator.coupling.units.axes["wide.weight", 0]) & set(held)


@pytest.mark.parametrize("shape", [(), (0, 3), (3, 0), (3,), (3, 2)])
def test_masks_of_any_shape_are_told_apart(shape):
    mask = torch.ones(shape, dtype=torch.bool)
    before = _moment_of(mask)
    assert before == _moment_of(mask)
    if mask.numel():
        mask.view(-1)[0] = False
        assert before != _moment_of(mask)
