"""Which scores are compared: those of a row, a block, all modules, or as outliers say."""

import pytest
import torch
from torch import nn

from prune_core import BasicPruner, ConfigError, PruneError
from prune_toolkit import (
    BlockSparsityAllocator,
    MetricsCalculator,
    NormalSparsityAllocator,
    OutlierSparsityAllocator,
    RowSparsityAllocator,
    StraightMetricsCalculator,
    WeightDataCollector,
)
from prune_toolkit.allocate.over_layers import block_of


class Pruner(BasicPruner):
    def __init__(self, model, rules, allocator, **how):
        self.make, self.how = allocator, how
        super().__init__(model, rules)

    def reset_tools(self):
        self.data_collector = WeightDataCollector(self)
        self.metrics_calculator = StraightMetricsCalculator()
        self.sparsity_allocator = self.make(self, **self.how)


def masks_of(model, sparsity, allocator, *more, types="Linear", **how):
    rules = [{"op_types": [types], "sparsity": sparsity}, *more]
    _, masks = Pruner(model, rules, allocator, **how).compress()
    return {name: tensors["weight"].int() for name, tensors in masks.items()}


def linear(*rows):
    layer = nn.Linear(len(rows[0]), len(rows), bias=False)
    layer.weight.data = torch.tensor(rows, dtype=torch.float32)
    return layer


# --- rows -------------------------------------------------------------------------------------


def test_all_rows_lose_equally():
    model = nn.Sequential(linear([1, 2, 3, 4], [50, 60, 70, 80]))
    assert masks_of(model, 0.5, RowSparsityAllocator)["0"].tolist() == [[0, 0, 1, 1]] * 2
    model = nn.Sequential(linear([1, 2, 3, 4], [50, 60, 70, 80]))
    assert masks_of(model, 0.5, NormalSparsityAllocator)["0"].tolist() == [[0] * 4, [1] * 4]


def test_the_rows_whose_next_score_is_smallest_lose_one_more():
    model = nn.Sequential(linear([1, 5, 6], [1, 3, 9], [1, 4, 8]))
    # floor(.5 · 9) = 4 of 9: one of each row, and one more where it costs least.
    expected = [[0, 1, 1], [0, 0, 1], [0, 1, 1]]
    assert masks_of(model, 0.5, RowSparsityAllocator)["0"].tolist() == expected


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.37, 0.5, 0.9])
def test_the_module_loses_exactly_what_is_asked_for(sparsity):
    torch.manual_seed(0)
    mask = masks_of(nn.Sequential(nn.Linear(13, 7)), sparsity, RowSparsityAllocator)["0"]
    assert int(mask.sum()) == 91 - int(sparsity * 91)
    assert mask.sum(1).max() - mask.sum(1).min() <= 1


def test_a_row_of_a_convolution_is_a_filter_whatever_its_groups():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2))
    weight = model[0].weight.detach()
    mask = masks_of(model, 0.5, RowSparsityAllocator, types="Conv2d", transform=torch.abs)["0"]
    for row, kept in zip(weight.flatten(1).abs(), mask.flatten(1), strict=True):
        assert torch.equal(kept.bool(), row >= row.sort().values[9])


def test_a_row_of_an_embedding_is_a_feature():
    model = nn.Sequential(nn.Embedding(4, 2))
    model[0].weight.data = torch.tensor([[1.0, 9], [2, 8], [3, 7], [4, 6]])
    found = masks_of(model, 0.5, RowSparsityAllocator, types="Embedding")["0"]
    assert found.tolist() == [[0, 1], [0, 1], [1, 0], [1, 0]]


def test_what_is_masked_in_a_row_stays_masked():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 4))
    pruner = Pruner(model, [{"op_types": ["Linear"], "sparsity": 0.25}], RowSparsityAllocator)
    first = pruner.compress()[1]["0"]["weight"]
    pruner.get_modules_wrapper()["0"].config["sparsity"] = 0.5
    second = pruner.compress()[1]["0"]["weight"]
    assert not (second & ~first).any()
    assert second.sum(1).tolist() == [4] * 4


def test_rows_of_what_has_none_are_refused():
    with pytest.raises(ConfigError, match=r"'0' is a Bilinear.*mode='normal'"):
        masks_of(nn.Sequential(nn.Bilinear(2, 2, 2)), 0.5, RowSparsityAllocator, types="Bilinear")
    with pytest.raises(ConfigError, match="scores whole channels"):
        masks_of(nn.Sequential(nn.Linear(2, 2)), 0.5, RowSparsityAllocator, channels=True)


def test_scores_that_are_nan_are_refused():
    with pytest.raises(PruneError, match="'0' contain NaN"):
        masks_of(nn.Sequential(linear([float("nan"), 1])), 0.5, RowSparsityAllocator)


# --- blocks -----------------------------------------------------------------------------------


class Layers(nn.Module):
    def __init__(self, scales=(1.0, 10.0)):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(
            nn.ModuleDict({"a": nn.Linear(4, 4), "mlp": nn.Sequential(nn.Linear(4, 4))})
            for _ in scales
        )
        self.head = nn.Linear(4, 2)
        with torch.no_grad():
            for layer, scale in zip(self.layers, scales, strict=True):
                layer["a"].weight.mul_(scale)
                layer["mlp"][0].weight.mul_(3 * scale)

    def forward(self, x):
        for layer in self.layers:
            x = layer["mlp"](layer["a"](x))
        return self.head(x)


def test_a_block_is_the_innermost_member_of_a_list():
    modules = dict(Layers().named_modules())
    assert block_of("layers.1.a", modules) == "layers.1"
    assert block_of("layers.1.mlp.0", modules) == "layers.1"
    assert block_of("head", modules) == "head"
    stack = dict(nn.Sequential(nn.Linear(1, 1), nn.Sequential(nn.Linear(1, 1))).named_modules())
    assert [block_of(name, stack) for name in ("0", "1.0")] == ["0", "1"]


def test_the_modules_of_a_block_share_what_it_loses():
    masks = masks_of(
        Layers(),
        0.5,
        BlockSparsityAllocator,
        {"op_names": ["head"], "exclude": True},
        transform=torch.abs,
    )
    for block in ("0", "1"):
        a, mlp = masks[f"layers.{block}.a"], masks[f"layers.{block}.mlp.0"]
        assert int(a.sum() + mlp.sum()) == 16
        assert a.sum() < mlp.sum()


# --- outliers ---------------------------------------------------------------------------------


def test_blocks_with_many_outliers_lose_less():
    model = Layers()
    with torch.no_grad():
        for layer in model.layers:
            layer["a"].weight.fill_(1)
            layer["mlp"][0].weight.fill_(1)
        model.layers[0]["a"].weight[0, 0] = 1000
    masks = masks_of(
        model,
        0.5,
        OutlierSparsityAllocator,
        {"op_names": ["head"], "exclude": True},
        spread=0.125,
    )
    lost = {name: 1 - float(mask.float().mean()) for name, mask in masks.items()}
    # d' is 2 · spread for the one block and 0 for the other, so the two are 2 · spread apart.
    assert lost["layers.0.a"] == lost["layers.0.mlp.0"] == 0.375
    assert lost["layers.1.a"] == lost["layers.1.mlp.0"] == 0.625


def test_the_formula_of_the_paper_with_its_means_weighted_by_size():
    class Sizes(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(20, size)) for size in (10, 20, 40))
            for block in self.blocks:
                nn.init.normal_(block[0].weight)
                block[0].weight.data.pow_(3)

        def forward(self, x):
            return [block(x) for block in self.blocks]

    model = Sizes()
    scores = [block[0].weight.detach().abs() for block in model.blocks]
    shares = torch.tensor([float((s > 3 * s.mean()).float().mean()) for s in scores])
    shift = 2 * 0.08 * (shares - shares.min()) / (shares.max() - shares.min())
    sizes = torch.tensor([10.0, 20, 40])
    expected = 0.6 - (shift - (shift * sizes).sum() / sizes.sum())
    pruner = Pruner(
        model,
        [{"op_types": ["Linear"], "sparsity": 0.6}],
        OutlierSparsityAllocator,
        outlier=3,
        transform=torch.abs,
    )
    found = pruner.sparsity_allocator.sparsities({f"blocks.{i}.0": s for i, s in enumerate(scores)})
    torch.testing.assert_close(torch.tensor(list(found.values())), expected)
    _, masks = pruner.compress()
    total = sum(int(m["weight"].sum()) for m in masks.values())
    assert abs(total - 0.4 * 1400) <= 3
    assert pruner.get_modules_wrapper()["blocks.0.0"].config["sparsity"] == 0.6


def test_blocks_that_are_alike_lose_the_same():
    model = nn.Sequential(
        nn.Sequential(linear([1, 2], [3, 4])), nn.Sequential(linear([1, 2], [3, 4]))
    )
    masks = masks_of(model, 0.5, OutlierSparsityAllocator, within="normal")
    assert [mask.tolist() for mask in masks.values()] == [[[0, 0], [1, 1]]] * 2


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"within": "nm"}, "within is 'nm'"),
        ({"outlier": 0}, "outlier is 0"),
        ({"spread": -1}, "spread is -1"),
    ],
)
def test_settings_that_make_no_sense(how, match):
    with pytest.raises(ConfigError, match=match):
        masks_of(Layers(), 0.5, OutlierSparsityAllocator, **how)


def test_a_spread_beyond_what_there_is_is_refused():
    model = Layers()
    model.layers[0]["a"].weight.data[0, 0] = 1000
    with pytest.raises(ConfigError, match="Choose a smaller spread"):
        masks_of(model, 0.9, OutlierSparsityAllocator, spread=0.3, transform=torch.abs)


# --- a part of a model ------------------------------------------------------------------------


def test_a_pruner_can_look_at_a_part_of_its_model():
    class Counting(MetricsCalculator):
        def calculate_metrics(self, data):
            seen.append(list(data))
            return dict(data)

    seen = []
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    pruner = Pruner(model, [{"op_types": ["Linear"], "sparsity": 0.5}], NormalSparsityAllocator)
    pruner.metrics_calculator = Counting()
    with pruner.focused(["1"]):
        masks = pruner.sparsity_allocator.generate_sparsity(pruner.score())
    assert seen == [["1"]]
    assert list(masks) == ["1"]
    assert list(pruner.get_modules_wrapper()) == ["0", "1"]
