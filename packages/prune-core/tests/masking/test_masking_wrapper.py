"""What a wrapped module does, and what it leaves alone."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from prune_core import unwrap
from prune_core.errors import MaskError
from prune_core.masking import PrunerModuleWrapper, replace_modules, wrappers_in


class Conv1D(nn.Module):
    """Stores its weight input first, as GPT-2's does."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf = nf
        self.weight = nn.Parameter(torch.randn(nx, nf))
        self.bias = nn.Parameter(torch.randn(nf))

    def forward(self, x):
        return x @ self.weight + self.bias


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4 * 36, 5)

    def forward(self, x):
        return self.fc(self.norm(self.conv(x)).relu().flatten(1))


def wrapped(model: nn.Module, *names: str, seed: int = 0) -> nn.Module:
    """Wrap modules and mask about half of their weights."""
    wrappers = {}
    for name in names:
        module = model.get_submodule(name)
        wrapper = PrunerModuleWrapper(module, name, {"sparsity": 0.5})
        generator = torch.Generator().manual_seed(seed)
        shape = wrapper.masks[wrapper.target].shape
        wrapper.set_masks({wrapper.target: torch.rand(shape, generator=generator) > 0.5})
        wrappers[module] = wrapper
    replace_modules(model, wrappers)
    return model


@pytest.fixture
def net():
    torch.manual_seed(0)
    return wrapped(Net(), "conv", "fc")


@pytest.fixture
def x():
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_it_shows_as_the_documentation_does(net):
    assert "(conv): PrunerModuleWrapper(\n    (module): Conv2d(3, 4, " in repr(net)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Conv1d(4, 6, 3), (2, 4, 9)),
        (nn.Conv2d(4, 6, 3, groups=2), (2, 4, 9, 9)),
        (nn.Conv3d(4, 6, 3), (2, 4, 5, 5, 5)),
        (nn.ConvTranspose1d(4, 6, 3), (2, 4, 9)),
        (nn.ConvTranspose2d(4, 6, 3), (2, 4, 9, 9)),
        (nn.Linear(4, 6), (2, 4)),
        (nn.Linear(4, 6, bias=False), (2, 4)),
        (Conv1D(6, 4), (2, 4)),
        (nn.PReLU(4), (2, 4)),
        (nn.BatchNorm1d(4), (2, 4)),
        (nn.Linear(4, 6, dtype=torch.bfloat16), (2, 4)),
        (nn.Linear(4, 6, dtype=torch.float16), (2, 4)),
    ],
)
def test_the_forward_sees_masked_weights(module, shape):
    weight = next(iter(module.parameters()))
    x = torch.randn(shape).to(weight.dtype)
    model = wrapped(nn.Sequential(module), "0")
    mask = model[0].weight_mask
    out = model(x)
    plain = copy.deepcopy(module)
    with torch.no_grad():
        plain.weight.mul_(mask)
    assert torch.equal(out, plain(x))


def test_embedding():
    model = wrapped(nn.Sequential(nn.Embedding(7, 3)), "0")
    out = model(torch.arange(7))
    assert torch.equal(out == 0, ~model[0].weight_mask)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["", "out_proj"])
def test_multihead_attention(name, training):
    # In eval mode a fast path reads the parameters without calling the submodule.
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, batch_first=True).train(training)
    model = wrapped(nn.ModuleDict({"attn": attention}), f"attn.{name}".rstrip("."))
    x = torch.randn(2, 5, 8)
    with torch.no_grad():
        seen = model["attn"](x, x, x)[0]
        unwrap(model)
        assert torch.allclose(seen, model["attn"](x, x, x)[0], atol=1e-6)
    masked = attention.in_proj_weight if not name else attention.out_proj.weight
    assert (masked == 0).float().mean() > 0.3


def test_transformer_encoder_layer_in_eval_mode():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    model = wrapped(nn.ModuleDict({"layer": layer}), "layer.linear1", "layer.self_attn.out_proj")
    x = torch.randn(2, 5, 8)
    with torch.no_grad():
        seen = model["layer"](x)
        unwrap(model)
        assert torch.allclose(seen, model["layer"](x), atol=1e-6)


def test_a_module_used_twice_and_one_standing_in_two_places(x):
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(3, 3, 3, padding=1)
            self.b = self.a

        def forward(self, x):
            return self.b(self.a(self.a(x)))

    model = wrapped(Twice(), "a")
    assert model.b is model.a
    out = model(x)
    unwrap(model)
    assert model.b is model.a
    assert isinstance(model.b, nn.Conv2d)
    assert torch.equal(out, model(x))


def test_arguments_may_be_named():
    model = wrapped(nn.Sequential(nn.Linear(3, 4)), "0")
    x = torch.randn(2, 3)
    assert torch.equal(model[0](input=x), model[0](x))


def test_attributes_of_the_module_are_there(net):
    assert net.conv.kernel_size == (3, 3)
    assert net.conv.out_channels == 4
    with pytest.raises(AttributeError, match="nonsense"):
        net.conv.nonsense  # noqa: B018


def test_gradients_reach_only_what_is_kept(net, x):
    net(x).square().sum().backward()
    for wrapper in (net.conv, net.fc):
        gradient = wrapper.module.weight.grad
        assert (gradient[~wrapper.weight_mask] == 0).all()
        assert (gradient[wrapper.weight_mask] != 0).any()


def test_an_optimizer_made_before_wrapping_trains_the_model(x):
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    wrapped(model, "conv", "fc")
    before = model(x).detach()
    model(x).square().sum().backward()
    optimizer.step()
    assert not torch.equal(model(x), before)


def test_frozen_stays_frozen():
    model = nn.Sequential(nn.Linear(3, 4).requires_grad_(False))
    parameter = model[0].weight
    unwrap(wrapped(model, "0"))
    assert model[0].weight is parameter
    assert not parameter.requires_grad


def test_masks_are_a_byte_each_and_nothing_until_they_are_set():
    wrapper = PrunerModuleWrapper(nn.Linear(10, 10), "fc", {})
    assert list(wrapper.buffers()) == []
    assert wrapper.weight_mask.dtype == torch.bool
    assert wrapper.weight_mask.all()
    assert wrapper.weight_mask.element_size() == 1


def test_a_mask_written_in_place_is_in_force():
    wrapper = PrunerModuleWrapper(nn.Linear(2, 2, bias=False), "fc", {})
    wrapper.weight_mask[0] = False
    assert (wrapper(torch.ones(1, 2))[0, 0] == 0).item()


@pytest.mark.parametrize(
    "layer", [nn.Linear(6, 4), nn.Conv2d(6, 4, 3), nn.ConvTranspose1d(4, 6, 3)]
)
def test_whole_rows_are_multiplied_as_each_of_their_weights_would_be(layer, monkeypatch):
    # In layers of this size it does not pay, and they would be multiplied value by value.
    monkeypatch.setattr("prune_core.masking.wrapper._ROWS_PAY_FROM", 0)
    wrapper = PrunerModuleWrapper(layer, "layer", {})
    mask = torch.ones(layer.weight.shape, dtype=torch.bool)
    mask[[0, 2]] = False
    wrapper.set_masks({"weight": mask})

    def check():
        layer.weight.grad = None
        seen = wrapper.masked("weight")
        assert torch.equal(seen, layer.weight * mask)
        seen.sum().backward()
        assert torch.equal(layer.weight.grad, mask.float())

    check()
    mask[1] = False  # the mask in force, not a copy of it
    check()
    mask.data[1] = True  # which raises no version
    check()
    mask.numpy()[1] = False
    check()
    mask[3, 2] = False  # no whole row any more
    check()
    other = copy.deepcopy(wrapper)
    other.weight_mask[:] = True
    assert torch.equal(other.weight, layer.weight)
    check()
    new = PrunerModuleWrapper(layer, "layer", {})
    new.set_masks({"weight": mask.clone()})  # which nobody has looked at yet
    gradient = torch.func.grad(lambda bias: (new.masked("weight").sum() * bias).sum())(layer.bias)
    assert torch.equal(gradient, (layer.weight * mask).sum().expand(layer.bias.shape))
    with torch.inference_mode():
        wrapper.set_masks({"weight": mask.logical_not()})
        assert torch.equal(wrapper.masked("weight"), layer.weight * ~mask)


@pytest.mark.parametrize(
    ("masks", "says"),
    [
        ({"weight": torch.ones(2, 3)}, r"shape \(2, 3\); the tensor has \(4, 3\)"),
        ({"wait": torch.ones(4, 3)}, "masked in weight, bias"),
        ({"weight": torch.full((4, 3), 0.5)}, "holds 0.5; a mask holds 0"),
        ({"weight": torch.full((4, 3), float("nan"))}, "holds nan"),
    ],
)
def test_masks_that_do_not_fit_change_nothing(masks, says):
    wrapper = PrunerModuleWrapper(nn.Linear(3, 4), "fc", {})
    wrapper.set_masks({"weight": torch.eye(4, 3)})
    with pytest.raises(MaskError, match=says):
        wrapper.set_masks({"bias": torch.zeros(4), **masks})
    assert torch.equal(wrapper.weight_mask, torch.eye(4, 3).bool())
    assert wrapper.bias_mask.all()


def test_a_module_without_weight_is_refused():
    with pytest.raises(MaskError, match="'act', a ReLU, has no weight"):
        PrunerModuleWrapper(nn.ReLU(), "act", {})


# --- copies, files, other ways to run ------------------------------------------------------


def test_deepcopy_after_forward_and_backward(net, x):
    net(x).sum().backward()
    twin = copy.deepcopy(net)
    with torch.no_grad():
        net.fc.module.weight.zero_()
    assert (twin(x) != 0).any()
    assert list(wrappers_in(twin)) == ["conv", "fc"]
    unwrap(twin)
    assert isinstance(twin.conv, nn.Conv2d)


def test_deepcopy_of_a_module_that_copies_itself():
    class CopiesItself(nn.Linear):
        def __deepcopy__(self, memo):
            twin = CopiesItself(self.in_features, self.out_features)
            twin.load_state_dict(self.state_dict())
            return twin

    wrapper = PrunerModuleWrapper(CopiesItself(4, 3), "fc", {})
    wrapper.set_masks({"weight": torch.zeros(3, 4)})
    twin = copy.deepcopy(wrapper)
    assert isinstance(twin, PrunerModuleWrapper)
    assert twin.masked_count("weight") == 12


def test_pickle_and_torch_save(net, x):
    net.eval()
    expected = net(x)
    assert torch.equal(pickle.loads(pickle.dumps(net))(x), expected)
    buffer = io.BytesIO()
    torch.save(net, buffer)
    buffer.seek(0)
    assert torch.equal(torch.load(buffer, weights_only=False)(x), expected)


def test_state_dict_round_trip_into_a_freshly_wrapped_model(net, x):
    torch.manual_seed(5)
    other = Net()
    replace_modules(
        other,
        {m: PrunerModuleWrapper(m, n, {}) for n, m in (("conv", other.conv), ("fc", other.fc))},
    )
    other.load_state_dict(net.state_dict(), strict=True)
    assert torch.equal(other.eval()(x), net.eval()(x))


def test_a_state_from_before_masks_were_made_takes_them_away(net, x):
    masks = net.conv.masks
    net.conv.set_masks({n: torch.ones_like(m) for n, m in masks.items()})
    for wrapper in (net.conv, net.fc):
        for name in wrapper.masked_names:
            wrapper._buffers[f"{name}_mask"] = None
    state, expected = copy.deepcopy(net.state_dict()), net.eval()(x)
    net.conv.set_masks(masks)
    assert not torch.equal(net(x), expected)
    net.load_state_dict(state, strict=True)
    assert torch.equal(net(x), expected)
    assert net.conv.masked_count("weight") == 0


def test_a_dense_checkpoint_loads_into_a_wrapped_model(net):
    dense = Net().state_dict()
    missing, unexpected = net.load_state_dict(dense, strict=False)
    assert unexpected == []
    assert sorted(missing) == ["conv.weight_mask", "fc.weight_mask"]
    assert torch.equal(net.conv.module.weight, dense["conv.weight"])


def test_export(net, x):
    net.eval()
    program = torch.export.export(net, (x,))
    assert torch.equal(program.module()(x), net(x))


def test_compile(net, x):
    net.eval()
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    assert torch.equal(compiled(x), net(x))
    net.fc.set_masks({"weight": torch.zeros_like(net.fc.weight_mask)})
    assert torch.equal(compiled(x), net(x))


def test_what_is_set_on_a_wrapper_reaches_the_forward(net, x):
    conv = net.conv.module
    net.conv.stride = (2, 2)
    net.conv.weight = nn.Parameter(torch.zeros(4, 3, 3, 3))
    assert conv.stride == (2, 2)
    assert net.conv(x).shape[-1] == 3
    assert conv.weight.count_nonzero() == 0
    net.conv.name = "mine"
    assert not hasattr(conv, "name")
    net.conv.note = "mine"
    assert not hasattr(conv, "note")


def test_a_module_keeps_attributes_that_a_wrapper_has_too():
    linear = nn.Linear(2, 2)
    linear.name, linear.config = "theirs", {"hidden": 2}
    wrapper = PrunerModuleWrapper(linear, "0", {"sparsity": 0.5})
    assert (wrapper.name, wrapper.config) == ("0", {"sparsity": 0.5})
    assert (linear.name, linear.config) == ("theirs", {"hidden": 2})


def test_a_mask_that_is_set_is_checked_and_compact(net, x):
    net.conv.weight_mask = torch.zeros(4, 3, 3, 3)
    assert net.conv.weight_mask.dtype == torch.bool
    assert net.conv.weight.count_nonzero() == 0
    with pytest.raises(MaskError, match="holds 0.5"):
        net.conv.weight_mask = torch.full((4, 3, 3, 3), 0.5)


def test_autocast(net, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = net(x)
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert net.conv.module.weight.grad.dtype == torch.float32


def test_meta_device():
    model = nn.Sequential(nn.Linear(3, 4, device="meta"))
    wrapper = PrunerModuleWrapper(model[0], "0", {})
    wrapper.set_masks({"weight": torch.eye(4, 3)})
    assert wrapper(torch.empty(2, 3, device="meta")).shape == (2, 4)
    assert wrapper.weight_mask.tolist() == torch.eye(4, 3).bool().tolist(), (
        "masks keep their values"
    )
    assert wrapper.bias_mask.all()
    with pytest.raises(MaskError, match=r"0.weight is on the meta device.*Load the weights first"):
        wrapper.apply_masks()
    wrapper.module.load_state_dict(nn.Linear(3, 4).state_dict(), assign=True)
    assert wrapper(torch.zeros(2, 3)).shape == (2, 4)
    assert wrapper.weight.count_nonzero() == 3
    with pytest.raises(MaskError, match="has no values"):
        wrapper.set_masks({"weight": torch.ones(4, 3, device="meta")})


def test_moving_a_wrapped_model_moves_masks(net):
    net.to(torch.float64)
    assert net.conv.weight_mask.dtype == torch.bool
    assert net(torch.randn(2, 3, 8, 8, dtype=torch.float64)).dtype == torch.float64


def test_a_symbolic_trace_that_would_lose_the_masks_is_refused(net):
    with pytest.raises(MaskError, match=r"torch.fx would record .* 'conv' without its masks"):
        torch.fx.symbolic_trace(net)


def test_masks_outlive_what_is_done_to_weights(net):
    mask = net.conv.weight_mask.clone()
    net.type(torch.float64)
    assert torch.equal(net.conv.weight_mask, mask), "booleans still"
    net.to("meta")
    assert torch.equal(net.conv.weight_mask, mask)
    net.to_empty(device="cpu")
    assert torch.equal(net.conv.weight_mask, mask)


def test_unwrapping_a_model_without_wrappers_does_nothing(x):
    model = Net().eval()
    before = model(x)
    assert torch.equal(unwrap(model)(x), before)
