"""Masks that leave constants behind: nothing changes unless the user says so."""

import copy

import pytest
import torch
from torch import nn

from prune_core import ConfigError, PruneWarning, SpeedupError, load_pruned, shrink
from prune_core.masking import PrunerModuleWrapper, replace_modules


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3)
    ).eval()
    norm = model[1]
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias)
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    return model


@pytest.fixture
def x():
    return torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))


def open_masks():
    keep = torch.arange(8) >= 4
    return {"0": {"weight": keep.reshape(8, 1, 1, 1).expand(8, 3, 3, 3), "bias": keep}}


def masked_output(model, x, norm_too=False):
    keep = torch.arange(8) >= 4
    hidden = model[0](x) * keep.reshape(8, 1, 1)
    hidden = model[1](hidden)
    if norm_too:
        hidden = hidden * keep.reshape(8, 1, 1)
    return model[3](hidden.relu())


def test_constants_are_kept_when_asked_and_the_warning_says_what_to_do(model, x):
    expected = masked_output(model, x)
    says = "4 of 4 masked channels stay in the model, those of '0': a bias or a norm.*'remove'"
    with pytest.warns(PruneWarning, match=says):
        report = shrink(model, x, open_masks(), constants="keep")
    assert model[0].out_channels == 8
    torch.testing.assert_close(model(x), expected)
    assert (report.asked, report.kept[0].channels, report.kept[0].modules) == (4, 4, ("0",))
    assert "constants='remove'" in str(report)
    assert torch.equal(report.masks["0"]["weight"], open_masks()["0"]["weight"])


def test_constants_are_zeroed_when_asked_and_the_report_says_what_that_did(model, x):
    before, after = masked_output(model, x), masked_output(model, x, norm_too=True)
    report = shrink(model, x, open_masks(), constants="zero")
    assert model[0].out_channels == 4
    torch.testing.assert_close(model(x), after, rtol=1e-4, atol=1e-5)
    moved = ((after - before).abs().max() / before.abs().max()).item()
    assert report.moved == pytest.approx(moved, rel=1e-3)
    assert moved > 0.01
    assert report.difference < 1e-6
    assert "moved the output" in report.table()


@pytest.mark.parametrize("options", [{}, {"constants": "fold"}, {"constants": "remove"}])
def test_constants_are_folded_by_default_where_that_is_exact(model, x, options):
    expected = masked_output(model, x)
    report = shrink(model, x, open_masks(), **options)
    assert (model[0].out_channels, model[3].in_channels) == (4, 4)
    torch.testing.assert_close(model(x), expected)
    assert report.moved < 1e-6
    assert report.difference < 1e-6
    other = torch.randn(5, 3, 11, 7)
    assert model(other).shape == (5, 4, 7, 3)


def masked_copy(model, masks):
    masked = copy.deepcopy(model)
    for module, tensors in masks.items():
        for name, mask in tensors.items():
            masked.get_submodule(module).get_parameter(name).data.mul_(mask)
    return masked


def by_hand():
    """One masked channel whose norm makes 3 of it, read with weights that add up to 5 and -2."""
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.ReLU(), nn.Linear(2, 2)).eval()
    with torch.no_grad():
        model[1].bias[0] = 3.0
        model[3].weight[:, 0] = torch.tensor([5.0, -2.0])
        model[3].bias[:] = torch.tensor([1.0, 1.0])
    masks = {"0": {"weight": torch.tensor([[0, 0], [1, 1]]), "bias": torch.tensor([0, 1])}}
    return model, masks


def test_a_fold_by_hand():
    model, masks = by_hand()
    shrink(model, torch.ones(3, 2), masks, constants="fold")
    assert model[0].out_features == 1
    torch.testing.assert_close(model[3].bias, nn.Parameter(torch.tensor([16.0, -5.0])))


def test_a_bias_that_was_masked_itself():
    model, masks = by_hand()
    masks["3"] = {"bias": torch.tensor([0, 1])}
    masked = masked_copy(model, masks)
    report = shrink(model, torch.ones(3, 2), masks, constants="fold")
    torch.testing.assert_close(model[3].bias, nn.Parameter(torch.tensor([15.0, -5.0])))
    x = torch.randn(4, 2)
    torch.testing.assert_close(model(x), masked(x))
    assert report.masks == {}


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_convolutions_of_any_kind_that_do_not_pad(groups, bias, tmp_path):
    """Also one without a bias, which gets one, in the file too."""

    def build():
        torch.manual_seed(0)
        stem, norm = nn.Conv2d(3, 8, 1, bias=False), nn.BatchNorm2d(8)
        nn.init.normal_(norm.bias)
        reader = nn.Conv2d(8, 6, 3, stride=2, dilation=2, groups=groups, bias=bias)
        return nn.Sequential(stem, norm, nn.SiLU(), reader, nn.BatchNorm2d(6)).eval()

    model, keep = build(), torch.tensor([0, 1, 1, 1, 0, 1, 1, 1]).view(8, 1, 1, 1)
    masks = {"0": {"weight": keep.expand(8, 3, 1, 1)}}
    x, masked = torch.randn(2, 3, 9, 9), masked_copy(model, masks)
    report = shrink(model, x, masks, constants="fold")
    assert model[0].out_channels == 6
    other = torch.randn(5, 3, 12, 8)
    torch.testing.assert_close(model(other), masked(other))
    report.save(tmp_path / "small.safetensors")
    again = load_pruned(build(), tmp_path / "small.safetensors")
    assert torch.equal(again(other), model(other))


def test_padding_makes_it_inexact_and_the_report_says_by_how_much(model, x):
    model[3] = nn.Conv2d(8, 4, 3, padding=1)
    masked = masked_copy(model, open_masks())
    expected = masked(x)
    report = shrink(model, x, open_masks(), constants="fold")
    assert model[0].out_channels == 4
    found = model(x)
    torch.testing.assert_close(found[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])
    moved = ((found - expected).abs().max() / expected.abs().max()).item()
    assert report.moved == pytest.approx(moved, rel=1e-3)
    assert moved > 0.01
    assert report.difference < 1e-6
    assert "folded, which moved the output by" in report.table()


def test_padding_that_repeats_is_exact(model, x):
    model[3] = nn.Conv2d(8, 4, 3, padding=1, padding_mode="replicate")
    masked = masked_copy(model, open_masks())
    report = shrink(model, x, open_masks(), constants="fold")
    assert model[0].out_channels == 4
    assert report.moved < 1e-6
    torch.testing.assert_close(model(x), masked(x))


class Elsewhere(nn.Module):
    """A constant that differs from place to place, one read twice, one added to what moves."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.first, self.norm = nn.Linear(3, 8), nn.BatchNorm1d(8)
        self.places = nn.Parameter(torch.randn(5, 8))
        self.second, self.head = nn.Linear(8, 8), nn.Linear(8, 2)
        nn.init.normal_(self.norm.bias)

    def forward(self, x):
        y = self.norm(self.first(x).transpose(1, 2)).transpose(1, 2)
        if self.kind == "differs":
            y = y + self.places
        if self.kind == "added":
            y = y + self.second(x.mean(-1, keepdim=True).expand(*x.shape[:2], 8))
        if self.kind == "twice":
            return self.head(y) + self.head(y * 2)
        return self.head(y)


@pytest.mark.parametrize("kind", ["differs", "added", "twice"])
def test_what_cannot_be_folded_stays(kind):
    torch.manual_seed(0)
    model = Elsewhere(kind).eval()
    keep = torch.arange(8) >= 2
    masks = {"first": {"weight": keep[:, None].expand(8, 3), "bias": keep}}
    masked, x = masked_copy(model, masks), torch.randn(4, 5, 3)
    with pytest.warns(PruneWarning, match="2 of 2 masked channels stay"):
        report = shrink(model, x, masks, constants="fold")
    assert model.first.out_features == 8
    assert report.moved == 0.0
    assert torch.equal(model(x), masked(x))


def test_a_fold_that_is_refused_leaves_the_bias_alone(model, x):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model[3].bias = None
    with pytest.raises(SpeedupError):
        shrink(model, x, open_masks(), constants="fold", tolerance=-1.0)
    assert model[3].bias is None
    assert "3.bias" not in model.state_dict()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


class Positions(nn.Module):
    """Parameters that no pruner masks share channels with layers that one does."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Linear(3, 8), nn.Linear(8, 2)
        self.positions, self.first = nn.Parameter(torch.randn(5, 8)), nn.Parameter(torch.randn(8))
        self.norm = nn.LayerNorm(8)

    def forward(self, x):
        x = torch.cat([self.first.expand(len(x), 1, 8), self.stem(x)], 1)
        return self.head(self.norm(x + self.positions))


@pytest.mark.parametrize("verify", [True, False])
def test_zeroing_reaches_what_no_pruner_masks(verify):
    torch.manual_seed(0)
    model, x = Positions().eval(), torch.randn(2, 4, 3)
    keep = torch.arange(8) >= 4
    masks = {"stem": {"weight": keep[:, None].expand(8, 3), "bias": keep}}
    as_given = masked_copy(model, masks)(x)
    with pytest.warns(PruneWarning, match="something that is not masked still adds to them"):
        shrink(copy.deepcopy(model), x, masks)
    report = shrink(model, x, masks, constants="zero", verify=verify)
    assert model.positions.shape == (5, 4)
    assert model.first.shape == (4,)
    moved = ((model(x) - as_given).abs().max() / as_given.abs().max()).item()
    assert report.moved == pytest.approx(moved, rel=1e-3)
    assert moved > 0.1


def test_zeros_that_nobody_masked_are_not_reported(model, x):
    with torch.no_grad():
        model[1].bias.zero_()  # as it is in every new normalisation
    report = shrink(model, x, open_masks())
    assert report.asked == 4
    assert not report.kept


def test_a_choice_that_is_none(model, x):
    with pytest.raises(ConfigError, match="constants is 'zeros'.*Did you mean 'zero'"):
        shrink(model, x, open_masks(), constants="zeros")


def test_a_wrapped_model_is_refused(model, x):
    replace_modules(model, {model[0]: PrunerModuleWrapper(model[0], "0", {})})
    with pytest.raises(SpeedupError, match="'0' is still wrapped by a pruner"):
        shrink(model, x)


def test_inputs_that_the_model_does_not_accept(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ConfigError, match=r"these shapes, \[\(1, 4, 9, 9\)\]: RuntimeError"):
        shrink(model, torch.randn(1, 4, 9, 9), open_masks())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


class Doubling(nn.Linear):
    def forward(self, x):
        return nn.functional.linear(x, 2 * self.weight, self.bias)


class Tripling(nn.Linear):
    def forward(self, x):
        return nn.functional.linear(x, self.weight) + 3 * self.bias


class Halving(nn.Conv2d):
    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x, 0.5 * weight, bias)


@pytest.mark.parametrize("kind", [Doubling, Tripling, Halving])
def test_nothing_is_folded_into_a_layer_with_an_arithmetic_of_its_own(model, x, kind):
    if kind is Halving:
        model[3] = Halving(8, 4, 3)
    else:
        model[3] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), kind(8, 4))
    expected = masked_output(model, x)
    with pytest.warns(PruneWarning, match="4 of 4 masked channels stay"):
        shrink(model, x, open_masks(), constants="fold")
    torch.testing.assert_close(model(x), expected)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.inner = nn.Embedding(6, 8), nn.Linear(8, 8)
        self.head = nn.Linear(8, 6, bias=False)
        self.head.weight = self.table.weight

    def forward(self, tokens):
        x = self.table(tokens)
        return self.head(x + self.inner(x).relu())


@pytest.mark.parametrize("constants", ["keep", "zero", "fold"])
def test_masks_of_a_tied_tensor_hold_together_whatever_name_they_came_by(constants):
    torch.manual_seed(0)
    model, tokens = Tied().eval(), torch.arange(6).view(2, 3)
    masks = {name: {"weight": torch.ones(6, 8)} for name in ("table", "head")}
    masks["table"]["weight"][:, :4] = 0
    masks["head"]["weight"][2] = 0
    masks["inner"] = {"weight": torch.ones(8, 8), "bias": torch.ones(8)}
    for mask in masks["inner"].values():
        mask[:4] = 0
    masked = copy.deepcopy(model)
    with torch.no_grad():
        for name, tensors in masks.items():
            for tensor, mask in tensors.items():
                masked.get_submodule(name).get_parameter(tensor).mul_(mask)
    report = shrink(model, tokens, masks, constants=constants)
    assert model.table.weight.shape == (6, 4)
    torch.testing.assert_close(model(tokens), masked(tokens))
    left = [report.masks[name]["weight"] for name in ("table", "head")]
    assert torch.equal(left[0], torch.arange(6)[:, None].ne(2).expand(6, 4))
    assert torch.equal(left[0], left[1])


class Nodes(nn.Module):
    """Features that begin as zeros, are brought along edges, and end as extremes."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(16, 2)

    def forward(self, x, source, target):
        x = self.first(x)
        y = torch.zeros(len(x), 8).index_add_(0, target, x[source])
        z = torch.zeros_like(x)
        z[target] = self.second(y)[source].relu()
        return self.head(torch.cat([y.amax(0), z.max(0)[0]]))


def test_zeros_to_begin_with_and_extremes_of_zeros_are_zero():
    torch.manual_seed(0)
    model, inputs = Nodes().eval(), (torch.rand(4, 3), torch.arange(3), torch.tensor([1, 3, 0]))
    masks = {}
    for name in ("first", "second"):
        layer, keep = model.get_submodule(name), torch.arange(8) >= 4
        masks[name] = {"weight": keep[:, None].expand_as(layer.weight), "bias": keep}
    masked = copy.deepcopy(model)
    with torch.no_grad():
        for name, tensors in masks.items():
            for tensor, mask in tensors.items():
                masked.get_submodule(name).get_parameter(tensor).mul_(mask)
    report = shrink(model, inputs, masks)
    assert not report.kept
    assert model.head.weight.shape == (2, 8)
    torch.testing.assert_close(model(*inputs), masked(*inputs))


class Cutting(nn.Conv2d):
    """A layer that cuts its own weight whenever it runs."""

    def __init__(self, *args):
        super().__init__(*args)
        self.register_buffer("cut", torch.ones_like(self.weight))
        self.cut[:, :, 1:] = 0

    def forward(self, x):
        self.weight.data *= self.cut
        return super().forward(x)


def test_a_forward_that_writes_to_its_weights_is_not_folded(model, x):
    model[0] = Cutting(3, 8, 3)
    model(x)
    expected = masked_output(model, x)
    with pytest.warns(PruneWarning, match="4 of 4 masked channels stay"):
        shrink(model, x, open_masks(), constants="fold")
    torch.testing.assert_close(model(x), expected)
