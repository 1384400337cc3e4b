"""Where a layer has more weights than results, these are masked instead: nobody can tell."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from prune_core.masking import results as home
from prune_core.masking.wrapper import PrunerModuleWrapper

LAYERS = {
    "linear": (lambda: nn.Linear(6, 4), (3, 6)),
    "linear, of a sequence": (lambda: nn.Linear(6, 4, bias=False), (1, 2, 6)),
    "conv1d": (lambda: nn.Conv1d(6, 4, 3), (2, 6, 3)),
    "conv2d": (lambda: nn.Conv2d(6, 4, 3), (1, 6, 3, 3)),
    "conv2d, without a batch": (lambda: nn.Conv2d(6, 4, 3), (6, 3, 3)),
    "conv3d": (lambda: nn.Conv3d(6, 4, 3), (1, 6, 3, 3, 3)),
}
ROWS = torch.tensor([True, False, True, False])


@pytest.fixture(autouse=True)
def _small_ones_too(monkeypatch):
    monkeypatch.setattr(home, "_FEW", 0)


@pytest.fixture
def counted(monkeypatch):
    """How often weights were multiplied."""
    calls = []
    original = PrunerModuleWrapper.masked
    monkeypatch.setattr(
        PrunerModuleWrapper,
        "masked",
        lambda self, name: (calls.append(name), original(self, name))[1],
    )
    return calls


def wrapped(layer):
    wrapper = PrunerModuleWrapper(layer, "layer", {})
    masks = {"weight": ROWS.view(-1, *[1] * (layer.weight.ndim - 1)).expand(layer.weight.shape)}
    if layer.bias is not None:
        masks["bias"] = ROWS
    wrapper.set_masks(masks)
    return wrapper


def gradients(wrapper, x):
    wrapper.zero_grad()
    x = x.clone().requires_grad_()
    y = wrapper(x)
    (y * torch.arange(float(y.numel())).view(y.shape)).sum().backward()
    return [y.detach(), x.grad, *(each.grad.clone() for each in wrapper.parameters())]


@pytest.mark.parametrize("name", LAYERS)
def test_results_and_gradients_are_the_same(name, counted, monkeypatch):
    build, shape = LAYERS[name]
    wrapper, x = wrapped(build()), torch.randn(shape)
    after = gradients(wrapper, x)
    assert not counted
    monkeypatch.setattr(home, "_FEW", 10**9)
    before = gradients(wrapper, x)
    assert counted
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other)
    assert not after[2][~ROWS].any(), "weights that are masked get no gradient"


def test_a_mask_that_is_written_to_holds_at_once():
    wrapper, x = wrapped(nn.Linear(6, 4)), torch.randn(1, 6)
    for _ in range(2):
        assert wrapper(x)[0].bool().tolist() == ROWS.tolist()
    wrapper.weight_mask[0] = False
    wrapper.bias_mask[0] = False
    assert wrapper(x)[0].bool().tolist() == [False, False, True, False]
    wrapper.bias_mask.numpy()[1] = True
    assert torch.equal(wrapper(x)[0, 1], wrapper.module.bias[1])
    wrapper.weight_mask[2, 0] = False
    expected = wrapper.module.weight[2, 1:] @ x[0, 1:] + wrapper.module.bias[2]
    torch.testing.assert_close(wrapper(x)[0, 2], expected)


def watch_gradient(wrapper):
    wrapper.watch_gradient("weight", lambda gradient: None)


WATCHING = {
    "a gradient": watch_gradient,
    "what the layer makes": lambda w: w.module.register_forward_hook(lambda *_: None),
    "what it is given": lambda w: w.module.register_forward_pre_hook(lambda *_: None),
    "what goes back": lambda w: w.module.register_full_backward_hook(lambda *_: None),
    "single weights": lambda w: w.weight_mask[0].zero_().__setitem__(0, True),
    "a bias that stays": lambda w: w.bias_mask.fill_(True),
}


@pytest.mark.parametrize("name", WATCHING)
def test_weights_are_masked_where_somebody_could_tell(name, counted):
    wrapper, x = wrapped(nn.Linear(6, 4)), torch.randn(1, 6)
    wrapper(x)
    assert not counted
    WATCHING[name](wrapper)
    wrapper(x)
    assert counted


def test_what_a_layer_did_before_does_not_matter():
    """A forward that is run again for its gradients has to keep as many tensors as the first."""
    wrapper, x = wrapped(nn.Linear(6, 4)), torch.randn(1, 6, requires_grad=True)
    for batch in (x, torch.randn(99, 6)):
        checkpoint(wrapper, batch, use_reentrant=False).sum().backward()
    large = checkpoint(wrapper, torch.randn(99, 6), use_reentrant=False)
    small = checkpoint(wrapper, x, use_reentrant=False)
    (large.sum() + small.sum()).backward()


def test_another_forward_may_do_anything_with_results(monkeypatch):
    def shifted(layer, x):
        return functional.linear(x, layer.weight, layer.bias) + 1

    wrapper, x = wrapped(nn.Linear(6, 4)), torch.randn(1, 6)
    wrapper.module.forward = lambda x: shifted(wrapper.module, x)
    assert (wrapper(x)[0, ~ROWS] == 1).all()
    monkeypatch.setattr(nn.Linear, "forward", shifted)
    assert (wrapped(nn.Linear(6, 4))(x)[0, ~ROWS] == 1).all()


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_results_in_other_kinds_of_memory_are_not_multiplied(counted):
    nested = torch.nested.nested_tensor([torch.ones(1, 6), torch.ones(2, 6)])
    assert wrapped(nn.Linear(6, 4))(nested).is_nested
    x = torch.ones(1, 6, 3, 3).to_mkldnn()
    assert wrapped(nn.Conv2d(6, 4, 3))(x).is_mkldnn
    assert counted


def test_a_masked_channel_that_overflows_is_zero():
    wrapper = wrapped(nn.Linear(6, 4).half())
    nn.init.constant_(wrapper.module.weight, 60000.0)
    assert not wrapper(torch.ones(1, 6).half())[0, ~ROWS].any()


def test_a_recorded_function_sees_the_masks():
    wrapper, x = wrapped(nn.Linear(6, 4)), torch.randn(1, 6)
    torch.testing.assert_close(make_fx(wrapper)(x)(x), wrapper(x))


def test_more_results_than_weights_are_left_alone(counted):
    wrapper, x = wrapped(nn.Linear(6, 4)), torch.randn(7, 6)
    wrapper(x)
    counted.clear()
    wrapper(x)
    assert counted


def test_a_subclass_may_do_anything_with_its_weights(counted):
    class Doubled(nn.Linear):
        def forward(self, x):
            return super().forward(x) + self.weight.sum()

    wrapper, x = wrapped(Doubled(6, 4)), torch.randn(1, 6)
    first = wrapper(x)
    counted.clear()
    torch.testing.assert_close(wrapper(x), first)
    assert counted


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda w: pickle.loads(pickle.dumps(w))])
def test_copies_do_the_same(copied):
    wrapper, x = wrapped(nn.Conv2d(6, 4, 3)), torch.randn(1, 6, 3, 3)
    expected = wrapper(x)
    again = copied(wrapper)
    torch.testing.assert_close(again(x), expected)
    assert again.state_dict().keys() == wrapper.state_dict().keys()


def test_transforms_of_functions_see_the_masks():
    wrapper, x = wrapped(nn.Linear(6, 4)), torch.randn(1, 6)
    expected = wrapper(x)
    parameters = dict(wrapper.named_parameters())

    def run(parameters, x):
        return torch.func.functional_call(wrapper, parameters, (x,))

    torch.testing.assert_close(run(parameters, x), expected)
    many = torch.func.vmap(run, (None, 0))(parameters, x[:, None])
    torch.testing.assert_close(many[:, 0], expected)


def test_in_half_precision_and_autocast():
    wrapper, x = wrapped(nn.Linear(6, 4)).bfloat16(), torch.randn(1, 6).bfloat16()
    first = wrapper(x)
    assert torch.equal(wrapper(x), first)
    assert first.dtype == torch.bfloat16
    wrapper.float()
    with torch.autocast("cpu", torch.bfloat16):
        assert wrapper(x.float()).dtype == torch.bfloat16
