"""The life of a pruner: wrapping, masks, files, and what never happens to the model."""

import copy

import pytest
import torch
import torch.nn.utils.prune
from torch import nn

import prune_core
from prune_core import BasicPruner, ConfigError, MaskError, PruneError, PruneWarning, hookimpl
from prune_core.masking import PrunerModuleWrapper
from prune_core.registry import registered
from prune_toolkit import NormalSparsityAllocator, NormMetricsCalculator, WeightDataCollector

CONFIG = [{"op_types": ["default"], "sparsity": 0.5}]


class L1(BasicPruner):
    default_types = supported_types = ("Conv2d", "ConvTranspose2d", "Linear")

    def reset_tools(self):
        self.data_collector = WeightDataCollector(self, channels=True)
        self.metrics_calculator = NormMetricsCalculator(dim=0, p=1)
        self.sparsity_allocator = NormalSparsityAllocator(self, channels=True)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10)
    ).eval()


@pytest.fixture
def model():
    return net()


@pytest.fixture
def x():
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_the_masks_returned_are_in_force(model, x):
    pruner = L1(model, CONFIG)
    bound, masks = pruner.compress()
    assert bound is model
    assert list(masks) == ["0", "4"]
    assert masks["0"]["weight"].flatten(1).any(1).sum() == 4
    assert torch.equal(masks["0"]["bias"], masks["0"]["weight"].flatten(1).any(1))
    assert (model[0](x)[:, ~masks["0"]["bias"]] == 0).all()


def test_transposed_convolutions_lose_output_channels(x):
    model = nn.Sequential(nn.ConvTranspose2d(3, 6, 3))
    with torch.no_grad():
        model[0].weight.copy_(torch.arange(6).reshape(1, 6, 1, 1).expand_as(model[0].weight))
    L1(model, CONFIG).compress()
    out = model(x)
    assert (out[:, :3] == 0).all()
    assert (out[:, 3:] != 0).any()


def test_a_grouped_transposed_convolution_is_refused():
    model = nn.Sequential(nn.ConvTranspose2d(4, 4, 3, groups=2))
    with pytest.raises(ConfigError, match="'0' is a transposed convolution with 2 groups"):
        L1(model, CONFIG).compress()


def test_wrapping_and_unwrapping_twice(model, x):
    pruner = L1(model, CONFIG)
    pruner.wrap()
    assert not isinstance(model[0].module, PrunerModuleWrapper)
    pruner.compress()
    masked = model(x)
    dense = model[0].module.weight.clone()
    pruner.unwrap()
    pruner.unwrap()
    assert isinstance(model[0], nn.Conv2d)
    assert torch.equal(model(x), masked)
    pruner.wrap()
    assert torch.equal(model[0].module.weight, dense), "dense weights come back"
    assert torch.equal(model(x), masked)


def test_values_trained_while_unwrapped_are_not_overwritten(model):
    pruner = L1(model, CONFIG)
    pruner.compress()
    pruner.unwrap()
    with torch.no_grad():
        model[0].weight.fill_(7.0)
    pruner.wrap()
    assert (model[0].module.weight == 7.0).all()


def test_the_pruner_is_not_needed_to_unwrap_a_copy(model, x):
    L1(model, CONFIG).compress()
    twin = prune_core.unwrap(copy.deepcopy(model))
    assert isinstance(twin[0], nn.Conv2d)
    assert torch.equal(twin(x), model(x))


def test_compressing_puts_the_wrappers_back(model, x):
    pruner = L1(model, CONFIG)
    pruner.compress()
    prune_core.unwrap(model)
    masked, _ = pruner.compress()
    assert isinstance(masked[0], PrunerModuleWrapper)


def test_unwrapping_leaves_a_frozen_module_frozen(model):
    L1(model.train(), CONFIG).compress()
    model[0].module.eval()
    prune_core.unwrap(model)
    assert not model[0].training
    assert model[4].training


@pytest.mark.parametrize(
    "config", [[], [{"sparsity": 2, "op_types": ["default"]}], [{"sparsity": 0.5, "op_names": "x"}]]
)
def test_a_bad_config_leaves_the_model_alone(model, config):
    before = repr(model)
    with pytest.raises(ConfigError):
        L1(model, config)
    assert repr(model) == before


def test_a_failing_tool_leaves_the_model_alone(model):
    class Failing(L1):
        def reset_tools(self):
            raise RuntimeError("no")

    before = repr(model)
    with pytest.raises(RuntimeError):
        Failing(model, CONFIG)
    assert repr(model) == before


def test_two_pruners_at_once_are_refused(model):
    L1(model, CONFIG)
    with pytest.raises(ConfigError, match="wrapped already"):
        L1(model, CONFIG)


def test_a_pruner_does_not_wrap_what_another_has_wrapped(model, x):
    pruner = L1(model, CONFIG)
    pruner.unwrap()
    L1(model, CONFIG).compress()
    expected = model(x)
    with pytest.raises(PruneError, match=r"wrapped by another pruner \('0' among others\)"):
        pruner.wrap()
    assert torch.equal(model(x), expected)


def test_a_pruner_is_reset_to_another_config(model):
    pruner = L1(model, CONFIG)
    pruner.compress()
    pruner.reset(model, [{"op_names": ["4"], "sparsity": 0.2}])
    assert list(pruner.get_modules_wrapper()) == ["4"]
    assert isinstance(model[0], nn.Conv2d)


def test_a_reset_that_fails_changes_nothing(model, x):
    pruner = L1(model, CONFIG)
    pruner.compress()
    expected, dense = model(x), model[0].module.weight.clone()
    with pytest.raises(ConfigError, match="no module of that name"):
        pruner.reset(model, [{"op_names": ["9"], "sparsity": 0.2}])
    assert torch.equal(model[0].module.weight, dense)
    assert torch.equal(model(x), expected)


def test_the_model_itself_cannot_be_wrapped():
    with pytest.raises(ConfigError, match="Sequential"):
        L1(nn.Linear(2, 2), CONFIG)


def test_tied_parameters_are_refused_by_name():
    model = nn.ModuleDict({"embed": nn.Embedding(5, 3), "head": nn.Linear(3, 5, bias=False)})
    model["head"].weight = model["embed"].weight
    with pytest.raises(ConfigError, match=r"head.weight is one tensor with embed.weight"):
        L1(model, CONFIG)


def test_a_tied_layer_that_its_type_selects_stays_dense_and_says_so():
    model = nn.ModuleDict(
        {
            "embed": nn.Embedding(5, 3),
            "hidden": nn.Linear(3, 4),
            "head": nn.Linear(3, 5, bias=False),
        }
    )
    model["head"].weight = model["embed"].weight
    with pytest.warns(PruneWarning, match=r"'head' stays dense: head.weight is one tensor with em"):
        pruner = L1(model, CONFIG)
    _, masks = pruner.compress()
    assert [*masks] == ["hidden"]
    pruner.unwrap()
    with pytest.raises(ConfigError, match=r"Leave 'head' out"):
        L1(model, [*CONFIG, {"op_names": ["head"], "sparsity": 0.5}])


def test_tied_biases_are_refused_by_name():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].bias = model[0].bias
    with pytest.raises(ConfigError, match=r"0.bias is one tensor with 1.bias"):
        L1(model, CONFIG)


@pytest.mark.parametrize("selector", [{"op_names": ["0"]}, {"op_types": ["Linear"]}])
def test_a_module_without_a_plain_weight_is_refused_with_the_reason(selector):
    model = nn.Sequential(nn.utils.prune.l1_unstructured(nn.Linear(3, 3), "weight", 2))
    with pytest.raises(ConfigError, match=r"'0' has no weight of its own.*Make it plain first"):
        L1(model, [{"sparsity": 0.5, **selector}])


def test_attention_with_projections_of_other_sizes_is_refused_with_the_reason():
    model = nn.Sequential(nn.MultiheadAttention(4, 2, kdim=2))
    with pytest.raises(ConfigError, match=r"'0' has no weight.*kdim and vdim would have to be"):
        L1(model, [{"sparsity": 0.5, "op_names": ["0"]}])


def test_a_lazy_module_is_refused():
    with pytest.raises(ConfigError, match="run the model once"):
        L1(nn.Sequential(nn.LazyLinear(3)), [{"op_names": ["0"], "sparsity": 0.5}])


def test_a_meta_model_has_nothing_to_score():
    with torch.device("meta"):
        model = net()
    pruner = L1(model, CONFIG)
    with pytest.raises(PruneError, match=r"0.weight is on the meta device"):
        pruner.compress()
    pruner.load_masks({"4": {"weight": torch.ones(10, 288)}})


def test_not_a_torch_model():
    with pytest.raises(PruneError, match="model is a dict; it must be a model of torch"):
        L1({}, CONFIG)


def test_masks_that_do_not_fit_leave_those_in_force(model):
    pruner = L1(model, CONFIG)
    pruner.compress()
    before = pruner.masks["0"]["weight"].clone()
    zero = {"0": {"weight": torch.zeros(8, 3, 3, 3)}}
    with pytest.raises(MaskError, match="'5', which is not among the wrapped"):
        pruner.load_masks({**zero, "5": {}})
    with pytest.raises(MaskError, match="shape"):
        pruner.load_masks({**zero, "4": {"weight": torch.zeros(3)}})
    assert torch.equal(pruner.masks["0"]["weight"], before)


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors"])
def test_export_and_come_back(model, x, tmp_path, name):
    pruner = L1(model, CONFIG)
    pruner.compress()
    expected = model(x)
    dense = model[0].module.weight.clone()
    pruner.export_model(tmp_path / name, tmp_path / "masks")
    assert torch.equal(model[0].module.weight, dense), "exporting changes nothing"
    fresh = net()
    if name.endswith("pth"):
        state = torch.load(tmp_path / name, weights_only=True)
    else:
        from safetensors.torch import load_file

        state = load_file(tmp_path / name)
    fresh.load_state_dict(state, strict=True)
    assert torch.equal(fresh(x), expected)
    again = L1(net(), CONFIG)
    again.load_masks(tmp_path / "masks")
    assert torch.equal(again.bound_model(x), expected)


def test_export_of_nested_wrappers(tmp_path):
    class Any(L1):
        default_types = ("MultiheadAttention", "NonDynamicallyQuantizableLinear")
        supported_types = ()

    model = nn.ModuleDict({"attn": nn.MultiheadAttention(8, 2)})
    names = list(model.state_dict())
    pruner = Any(model, CONFIG)
    assert list(pruner.get_modules_wrapper()) == ["attn", "attn.out_proj"]
    pruner.export_model(tmp_path / "m.pth")
    assert sorted(torch.load(tmp_path / "m.pth", weights_only=True)) == sorted(names)


def test_onnx_needs_a_shape(model, tmp_path):
    pruner = L1(model, CONFIG)
    for shape in (None, "3", [1, -3]):
        with pytest.raises(ConfigError, match="onnx_path needs the sizes of an input"):
            pruner.export_model(
                tmp_path / "m.pth", onnx_path=tmp_path / "m.onnx", input_shape=shape
            )
    assert not (tmp_path / "m.pth").exists()


def test_onnx_needs_a_shape_that_the_model_takes(model, tmp_path):
    pytest.importorskip("onnxscript", reason="ONNX comes with an extra")
    with pytest.raises(ConfigError, match=r"does not run on zeros of the shape \[1, 5, 8, 8\]"):
        L1(model, CONFIG).export_model(
            tmp_path / "m.pth", onnx_path=tmp_path / "m.onnx", input_shape=[1, 5, 8, 8]
        )


def test_tied_parameters_are_exported_under_each_name(tmp_path):
    from safetensors.torch import load_file

    model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 3), nn.Linear(3, 5, bias=False))
    model[2].weight = model[0].weight
    pruner = L1(model, [{"sparsity": 0.5, "op_names": ["1"]}])
    pruner.export_model(tmp_path / "m.safetensors")
    state = load_file(tmp_path / "m.safetensors")
    assert torch.equal(state["0.weight"], state["2.weight"])


def test_names_before_and_while_wrapped(model):
    pruner = L1(model, CONFIG)
    names = pruner.get_origin2wrapped_parameter_name_map()
    assert names["0.weight"] == "0.module.weight"
    assert names["1.weight"] == "1.weight"
    assert isinstance(model[0], PrunerModuleWrapper)
    pruner.unwrap()
    with pytest.raises(PruneError, match="not wrapped now"):
        pruner.get_origin2wrapped_parameter_name_map()


def test_the_summary_says_what_was_asked_and_reached(model):
    pruner = L1(model, [{"op_types": ["Conv2d"], "sparsity": 0.3}])
    pruner.compress()
    (row,) = pruner.summary().rows
    assert (row.layer, row.type, row.shape) == ("0", "Conv2d", (8, 3, 3, 3))
    assert (row.asked, row.reached) == (0.3, 0.25)
    assert (row.left, row.total) == (6 * 28, 8 * 28)
    assert str(pruner.summary()).splitlines()[1].split() == [
        "0",
        "Conv2d",
        "8×3×3×3",
        "30.0%",
        "25.0%",
        "168",
        "of",
        "224",
    ]


def test_show_pruned_weights_prints_each_layer(model, capsys):
    pruner = L1(model, CONFIG)
    pruner.compress()
    pruner.show_pruned_weights()
    assert capsys.readouterr().out.startswith("simulated prune 0 remain/total: 4/8\n")
    pruner.show_pruned_weights(dim=-1)
    assert capsys.readouterr().out.startswith("simulated prune 0 remain/total: 3/3\n")
    with pytest.raises(ConfigError, match=r"dim is 4, and 0.weight has the shape \(8, 3, 3, 3\)"):
        pruner.show_pruned_weights(dim=4)


def test_listeners_hear_of_masks_and_cannot_stop_a_run(model):
    heard = []

    class Listener:
        @hookimpl
        def prune_masks_made(self, masks):
            heard.extend(masks)
            raise RuntimeError("listener is broken")

    with registered(Listener(), "listener"):
        pruner = L1(model, CONFIG)
        with pytest.warns(prune_core.PluginWarning, match="listener.*failed in prune_masks_made"):
            pruner.compress()
    assert heard == ["0", "4"]


# --- the names of older releases ---------------------------------------------------------------


def test_wrapping_and_unwrapping_return_the_model_and_have_three_names(model):
    pruner = L1(model, CONFIG)
    pruner.compress()
    for unwrap, wrap in (
        (pruner.unwrap, pruner.wrap),
        (pruner._unwrap_model, pruner._wrap_model),
        (pruner.unwrap_model, pruner.wrap_model),
    ):
        assert unwrap() in (None, model)
        assert isinstance(model[0], nn.Conv2d)
        assert wrap() in (None, model)
        assert isinstance(model[0], PrunerModuleWrapper)
    assert pruner.unwrap() is pruner.wrap() is model


def test_pruned_weights_are_shown_and_masks_returned(model, capsys):
    pruner = L1(model, CONFIG)
    pruner.compress()
    pruner.get_pruned_weights()
    assert capsys.readouterr().out.splitlines() == [
        "simulated prune 0 remain/total: 4/8",
        "simulated prune 4 remain/total: 5/10",
    ]
    pruner.get_pruned_weights(dim=1)
    assert capsys.readouterr().out.splitlines()[0] == "simulated prune 0 remain/total: 3/3"
    assert torch.equal(pruner.get_masks()["0"]["weight"], pruner.masks["0"]["weight"])


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_state_of_the_plain_model_is_loaded(model, x, wrapped):
    state = {name: value + 1 for name, value in net().state_dict().items()}
    pruner = L1(model, CONFIG)
    pruner.compress()
    masks = pruner.masks
    if not wrapped:
        pruner.unwrap()
    pruner.load_model_state_dict(state)
    assert pruner.is_wrapped == wrapped
    pruner.wrap()
    assert torch.equal(model[0].module.weight, state["0.weight"])
    assert torch.equal(model[0].weight, state["0.weight"] * masks["0"]["weight"])
    assert (model[0](x)[:, ~masks["0"]["bias"]] == 0).all()


def test_a_wrapper_shows_the_weight_that_its_forward_uses(model):
    """The predecessor has it the other way round; the parameter has to stay in its module."""
    weight = model[0].weight
    _, masks = L1(model, CONFIG).compress()
    assert model[0].module.weight is weight
    assert torch.equal(model[0].weight, weight * masks["0"]["weight"])
    assert not torch.equal(model[0].weight, weight)
