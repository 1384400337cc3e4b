"""Whoever prunes gets a smaller model, or hears what stays and what to do about it."""

import copy
import warnings
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import prune_core
from prune_core import ConfigError, PruneWarning, shrink
from prune_core.masking import PrunerModuleWrapper
from prune_core.speedup import ModelSpeedup
from prune_filter import L1NormPruner, SlimPruner

# --- networks of every kind, with norms as training leaves them -------------------------------


class Residual(nn.Module):
    """Basic blocks, as in a ResNet."""

    def __init__(self, width=8):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.inner = nn.ModuleList(nn.Conv2d(width, width, 3, 1, 1, bias=False) for _ in range(2))
        self.outer = nn.ModuleList(nn.Conv2d(width, width, 3, 1, 1, bias=False) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(4))
        self.head = nn.Linear(width, 5)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        for at in range(2):
            y = self.norms[2 * at](self.inner[at](x)).relu()
            x = (x + self.norms[2 * at + 1](self.outer[at](y))).relu()
        return self.head(x.mean((2, 3)))


class Inverted(nn.Module):
    """An inverted residual, as in a MobileNet."""

    def __init__(self):
        super().__init__()
        self.stem, self.expand = (
            nn.Conv2d(3, 8, 3, 2, 1, bias=False),
            nn.Conv2d(8, 32, 1, bias=False),
        )
        self.depth = nn.Conv2d(32, 32, 3, padding=1, groups=32, bias=False)
        self.project, self.head = nn.Conv2d(32, 8, 1, bias=False), nn.Linear(8, 5)
        self.norms = nn.ModuleList(nn.BatchNorm2d(n) for n in (8, 32, 32, 8))

    def forward(self, x):
        x = F.relu6(self.norms[0](self.stem(x)))
        y = F.relu6(self.norms[1](self.expand(x)))
        y = F.relu6(self.norms[2](self.depth(y)))
        return self.head((x + self.norms[3](self.project(y))).mean((2, 3)))


class Dense(nn.Module):
    """Layers that read all that came before, as in a DenseNet."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8 + 4 * at) for at in range(4))
        self.convs = nn.ModuleList(nn.Conv2d(8 + 4 * at, 4, 3, 1, 1, bias=False) for at in range(3))
        self.head = nn.Linear(20, 5)

    def forward(self, x):
        x = self.stem(x)
        for norm, conv in zip(self.norms, self.convs, strict=False):
            x = torch.cat([x, conv(norm(x).relu())], 1)
        return self.head(self.norms[3](x).relu().mean((2, 3)))


class Unet(nn.Module):
    """Down and up again, with a norm and a PReLU after each convolution, as in MONAI."""

    def __init__(self, norm=lambda n: nn.InstanceNorm2d(n)):
        super().__init__()
        self.first, self.down = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, 2, 1)
        self.up, self.last = nn.ConvTranspose2d(16, 8, 2, 2), nn.ConvTranspose2d(16, 8, 2, 2)
        self.norms = nn.ModuleList(norm(n) for n in (8, 16, 8, 8))
        self.acts = nn.ModuleList(nn.PReLU() for _ in range(4))
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        first = self.acts[0](self.norms[0](self.first(x)))
        x = self.acts[1](self.norms[1](self.down(first)))
        x = self.acts[2](self.norms[2](self.up(x)))
        x = self.acts[3](self.norms[3](self.last(torch.cat([x, first], 1))))
        return self.head(x)


class Descriptor(nn.Sequential):
    """Norms without anything of their own to learn, as in HardNet."""

    def __init__(self):
        widths = (3, 8, 16, 16)
        layers = [
            layer
            for a, b in pairwise(widths)
            for layer in (
                nn.Conv2d(a, b, 3, 1, 1, bias=False),
                nn.BatchNorm2d(b, affine=False),
                nn.ReLU(),
            )
        ]
        super().__init__(
            *layers, nn.Conv2d(16, 8, 8), nn.BatchNorm2d(8, affine=False), nn.Flatten()
        )


class Decoder(nn.Module):
    """A residual stream that layer normalisations run over."""

    def __init__(self):
        super().__init__()
        self.table, self.places = nn.Embedding(20, 16), nn.Embedding(8, 16)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(16) for _ in range(3))
        self.q, self.k, self.v, self.o = (nn.Linear(16, 16) for _ in range(4))
        self.up, self.down, self.head = nn.Linear(16, 48), nn.Linear(48, 16), nn.Linear(16, 20)

    def forward(self, tokens):
        x = self.table(tokens) + self.places(torch.arange(tokens.shape[1]))
        y = self.norm1(x)
        q, k, v = (f(y).unflatten(-1, (4, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(y.transpose(1, 2).flatten(2))
        x = x + self.down(F.gelu(self.up(self.norm2(x))))
        return self.head(self.norm3(x))


def trained(model):
    """Give norms other numbers than those that they begin with."""
    for module in model.modules():
        for name, low, high in (
            ("weight", 0.5, 1.5),
            ("bias", -0.5, 0.5),
            ("running_mean", -0.5, 0.5),
            ("running_var", 0.5, 1.5),
        ):
            tensor = getattr(module, name, None)
            norm = isinstance(module, nn.modules.batchnorm._NormBase | nn.GroupNorm | nn.LayerNorm)
            if norm and tensor is not None:
                nn.init.uniform_(tensor, low, high)
    return model.eval()


IMAGE, TOKENS = torch.randn(2, 3, 8, 8), torch.randint(20, (2, 6))
NETWORKS = {
    # how it is built, what goes in, and the most that may be left of half of the channels: with
    # masks of each layer for itself, and with masks that agree
    "residual": (Residual, IMAGE, 0.85, 0.35),
    "inverted": (Inverted, IMAGE, 0.75, 0.75),
    "dense": (Dense, IMAGE, 0.6, 0.6),
    "u-net": (Unet, IMAGE, 0.45, 0.4),
    "u-net, affine": (lambda: Unet(lambda n: nn.InstanceNorm2d(n, affine=True)), IMAGE, 0.45, 0.4),
    "u-net, groups": (lambda: Unet(lambda n: nn.GroupNorm(4, n)), IMAGE, 1.0, 0.4),
    "u-net, groups without affine": (
        lambda: Unet(lambda n: nn.GroupNorm(4, n, affine=False)),
        *(IMAGE, 1.0, 0.4),
    ),
    "descriptor": (Descriptor, IMAGE, 0.55, 0.55),
    "decoder": (Decoder, TOKENS, 0.8, 0.8),
}


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def built(name):
    torch.manual_seed(0)
    build, x, *left = NETWORKS[name]
    return trained(build()), x, *left


def rules(model):
    """The quick start's: half of every layer, but for the last."""
    layers = [n for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    types = ["Linear", "Conv2d", "ConvTranspose2d"]
    return [
        {"sparsity_per_layer": 0.5, "op_types": types},
        {"exclude": True, "op_names": layers[-1:]},
    ]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("aware", [False, True])
def test_the_quick_start_of_the_predecessor_makes_every_network_smaller(name, aware):
    model, x, alone, together = built(name)
    dense, left = parameters(model), together if aware else alone
    options = {"mode": "dependency_aware", "dummy_input": x} if aware else {}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        pruner = L1NormPruner(model, rules(model), **options)
        _, masks = pruner.compress()
        masked = model(x)
        pruner._unwrap_model()
        small = ModelSpeedup(model, x, masks).speedup_model()
    assert parameters(small) <= left * dense
    moved = ((small(x) - masked).abs().max() / masked.abs().max()).item()
    told = [str(each.message) for each in said]
    if aware:
        assert moved < 1e-5, "masks that were closed are exact"
    elif moved > 1e-5:
        assert any("The output of the example moved by" in message for message in told)
    if left == 1.0:
        assert any("stay in the model" in message for message in told)
    assert all(each.filename == __file__ for each in said)


@pytest.mark.parametrize("name", NETWORKS)
def test_one_line_and_shrink_make_every_network_smaller_and_change_nothing(name):
    model, x, _, left = built(name)
    dense = parameters(model)
    model, masks = prune_core.prune(model, "l1", sparsity=0.5, example_inputs=x)
    masked = model(x)
    report = shrink(prune_core.unwrap(model), x, masks)
    assert parameters(model) <= left * dense
    assert not report.kept
    assert report.moved == 0
    torch.testing.assert_close(model(x), masked, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "norm",
    [
        lambda: nn.LayerNorm(16),
        lambda: nn.LayerNorm(16, elementwise_affine=False),
        lambda: nn.RMSNorm(16),
        lambda: nn.RMSNorm(16, elementwise_affine=False),
    ],
    ids=["layer", "layer without affine", "rms", "rms without affine"],
)
def test_norms_over_the_channels_are_loud_and_the_remedy_works(norm):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), norm(), nn.PReLU(), nn.Linear(16, 2)).eval()
    x, dense = torch.randn(3, 4), parameters(model)
    says = "'0' would stay in the model, masked or not.* With constants='zero'"
    with (
        pytest.warns(PruneWarning, match="With constants='zero' here and there"),
        pytest.raises(ConfigError, match=f"Nothing can be pruned: .*{says}"),
    ):
        prune_core.prune(model, "l1", sparsity=0.5, example_inputs=x)
    assert not any(isinstance(module, PrunerModuleWrapper) for module in model.modules())
    zero = {"constants": "zero"}
    model, masks = prune_core.prune(model, "l1", sparsity=0.5, example_inputs=x, **zero)
    shrink(prune_core.unwrap(model), x, masks, **zero)
    assert model[0].out_features == 8
    assert parameters(model) < 0.55 * dense


def test_shrink_stays_strict_and_names_the_remedies():
    model, x, *_ = built("residual")
    _, masks = L1NormPruner(model, rules(model)).compress()
    prune_core.unwrap(model)
    expected = model(x)
    says = r"masked channels stay in the model, mostly those of .*\. mode='dependency_aware'"
    with pytest.warns(PruneWarning, match=says):
        report = shrink(model, x, masks)
    torch.testing.assert_close(model(x), expected)
    assert report.moved < 1e-6
    causes = {kept.cause.split(",")[0]: kept.channels for kept in report.kept}
    assert report.asked == 20
    assert sum(causes.values()) == 20
    assert set(causes) == {
        "something that is not masked still adds to them",
        "a bias or a normalisation turns their zeros into a constant",
    }


def test_model_speedup_can_be_as_strict():
    model, x, *_ = built("descriptor")
    _, masks = L1NormPruner(model, rules(model)).compress()
    prune_core.unwrap(model)
    small = copy.deepcopy(model)
    with pytest.warns(PruneWarning, match="moved by .*constants='exact' keeps those"):
        ModelSpeedup(small, x, masks).speedup_model()
    strict = ModelSpeedup(model, x, masks, constants="exact")
    with pytest.warns(PruneWarning, match="stay in the model"):
        strict.speedup_model()
    assert parameters(small) < parameters(model)
    assert strict.report.constants == "exact"


def test_channels_of_batch_norms_take_their_convolutions_along():
    model = trained(
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 3))
    )
    _, masks = SlimPruner(model, [{"total_sparsity": 0.5, "op_types": ["BatchNorm2d"]}]).compress()
    report = shrink(prune_core.unwrap(model), IMAGE, masks)
    assert model[0].out_channels == 4
    assert report.asked == 4


# --- what is not selected, or cannot be -------------------------------------------------------


def test_without_inputs_the_last_layer_stays_with_a_word():
    model, *_ = built("residual")
    says = "'head' stays dense: it is the last layer.*targets='head' prunes it all the same"
    with pytest.warns(PruneWarning, match=says):
        _, masks = prune_core.prune(model, "l1", sparsity=0.5)
    assert "head" not in masks
    assert not masks["stem"]["weight"].all()


@pytest.mark.parametrize(
    ("options", "stays"),
    [
        ({"exclude": "head"}, True),
        ({"exclude": ["Linear"]}, True),
        ({"targets": ["stem", "head"]}, False),
        ({"algorithm": "level"}, False),
    ],
)
def test_whoever_speaks_of_the_last_layer_gets_what_is_said(options, stays):
    model, *_ = built("residual")
    _, masks = prune_core.prune(model, sparsity=0.5, **options)
    assert ("head" not in masks) == stays


def test_the_only_layer_is_not_the_last_one_by_accident():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    with pytest.raises(ConfigError, match="'1' is the only layer that 'l1' prunes.*targets='1'"):
        prune_core.prune(model, "l1", sparsity=0.5)
    _, masks = prune_core.prune(model, "l1", sparsity=0.5, targets="1")
    assert masks["1"]["bias"].sum() == 2


def test_a_prune_that_masks_nothing_is_refused_with_the_reason():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    with pytest.raises(ConfigError, match="Nothing can be pruned: '1' stays because the model ret"):
        prune_core.prune(model, "l1", sparsity=0.5, example_inputs=torch.ones(1, 4))
    assert isinstance(model[1], nn.Linear)
    narrow = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    with pytest.raises(ConfigError, match="the sparsity is less than one channel"):
        prune_core.prune(narrow, "l1", sparsity=0.1, example_inputs=torch.ones(1, 4))


def test_masks_of_single_weights_make_nothing_smaller_and_that_is_said():
    model, x, *_ = built("residual")
    _, masks = prune_core.prune(model, "level", sparsity=0.5)
    with pytest.warns(PruneWarning, match="the masks cover single weights and no channel"):
        shrink(prune_core.unwrap(model), x, masks)


def test_by_default_nothing_is_masked_that_the_speedup_would_leave():
    model, x, *_ = built("decoder")
    _, masks = prune_core.prune(model, "l1", sparsity=0.5, example_inputs=x)
    assert masks["o"]["weight"].flatten(1).any(1).all(), "rows of a write to the stream"
    assert masks["up"]["bias"].sum() == 24
    assert masks["v"]["bias"].sum() == 8


def test_who_asks_for_such_layers_by_name_is_told():
    model, x, *_ = built("decoder")
    targets = ["o", "down", "up"]
    with pytest.warns(PruneWarning, match="'o', 'down' keep all of their channels") as warned:
        prune_core.prune(model, "l1", sparsity=0.5, example_inputs=x, targets=targets)
    assert warned[0].filename == __file__


def test_it_is_masked_when_that_is_wished():
    model, x, *_ = built("decoder")
    dense = parameters(model)
    zero = {"constants": "zero"}
    _, masks = prune_core.prune(model, "l1", sparsity=0.5, example_inputs=x, **zero)
    assert masks["o"]["bias"].sum() == 8
    report = shrink(prune_core.unwrap(model), x, masks, **zero)
    assert parameters(model) < 0.35 * dense
    assert report.moved > 0
