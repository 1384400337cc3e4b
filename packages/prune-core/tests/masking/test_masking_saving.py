"""What is written of a wrapped model, who can read it, and that it can go on from there."""

import copy
import io

import pytest
import torch
from torch import nn

from prune_core import MaskError, masked_state_dict
from prune_core.masking import PrunerModuleWrapper, replace_modules


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.attn = nn.MultiheadAttention(4, 2, batch_first=True)
        self.fc = nn.Linear(4, 5, bias=False)

    def forward(self, x):
        x = self.norm(self.conv(x)).flatten(2).transpose(1, 2)
        return self.fc(self.attn(x, x, x)[0].mean(1))


NAMES = ("conv", "norm", "attn", "attn.out_proj", "fc")


def wrapped(*, masked=True, seed=0):
    torch.manual_seed(seed)
    model = Net().eval()
    model.norm.running_mean.normal_()
    wrappers = {m: PrunerModuleWrapper(m, n, {}) for n in NAMES for m in [model.get_submodule(n)]}
    for wrapper in wrappers.values() if masked else ():
        weight = wrapper.masks[wrapper.target]
        wrapper.set_masks({wrapper.target: torch.rand(weight.shape) > 0.5})
    replace_modules(model, wrappers)
    return model


X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def dense(model):
    return [p.detach() for p in model.parameters()]


def test_a_plain_model_reads_what_the_masked_one_computes_with():
    model = wrapped()
    plain = Net().eval()
    keys = plain.load_state_dict(model.state_dict(), strict=False)
    assert not keys.missing_keys
    assert torch.equal(plain(X), model(X))
    masked = ("conv.weight", "norm.weight", "fc.weight")
    masked += ("attn.in_proj_weight", "attn.out_proj.weight")
    names = {f"{name}_{what}" for name in masked for what in ("orig", "mask")}
    assert set(keys.unexpected_keys) == names
    with pytest.raises(RuntimeError, match=r"Unexpected key\(s\).*conv\.weight_orig"):
        plain.load_state_dict(model.state_dict())


def test_a_plain_state_has_nothing_besides():
    model = wrapped()
    state = masked_state_dict(model)
    plain = Net().eval()
    plain.load_state_dict(state)
    assert torch.equal(plain(X), model(X))
    assert masked_state_dict(plain).keys() == plain.state_dict().keys() == state.keys()


@pytest.mark.parametrize("how", ["torch", "safetensors", "assign", "data parallel"])
def test_a_wrapped_model_goes_on_from_it_with_its_dense_weights(how, tmp_path):
    model, other = wrapped(), wrapped(masked=False, seed=7)
    if how == "safetensors":
        from safetensors.torch import load_model, save_model

        save_model(model, tmp_path / "model.safetensors")
        load_model(other, tmp_path / "model.safetensors")
    elif how == "data parallel":
        nn.DataParallel(other).load_state_dict(nn.DataParallel(model).state_dict())
    else:
        file = io.BytesIO()
        torch.save(model.state_dict(), file)
        file.seek(0)
        state = torch.load(file, weights_only=True)
        other.load_state_dict(state, assign=how == "assign")
    assert torch.equal(other(X), model(X))
    assert all(map(torch.equal, dense(other), dense(model)))
    assert (dense(model)[0] != 0).all(), "that is more than what is seen"


def test_where_nothing_is_masked_the_names_are_those_of_a_plain_model():
    state = wrapped(masked=False).state_dict()
    assert state.keys() == Net().state_dict().keys()
    assert state["conv.weight"].data_ptr() != 0
    assert state._metadata["norm"]["version"] == 2


def test_a_dense_checkpoint_is_read_into_a_masked_model_that_keeps_its_masks():
    model, plain = wrapped(), Net().eval()
    expected = model.state_dict()["conv.weight_mask"].clone()
    keys = model.load_state_dict(plain.state_dict(), strict=False)
    assert not keys.unexpected_keys
    assert "conv.weight_mask" in keys.missing_keys
    assert torch.equal(model.conv.module.weight, plain.conv.weight)
    assert torch.equal(model.conv.weight_mask, expected)
    with pytest.raises(RuntimeError, match=r"Missing key\(s\).*conv\.weight_mask"):
        model.load_state_dict(plain.state_dict())


def test_what_is_written_into_a_state_reaches_the_weights():
    """An average of weights that is kept in a copy of the model is written that way."""
    model = wrapped()
    average = copy.deepcopy(model)
    with torch.no_grad():
        model.conv.module.weight.add_(1.0)
        for kept, new in zip(
            average.state_dict().values(), model.state_dict().values(), strict=True
        ):
            if kept.is_floating_point():
                kept.lerp_(new, 0.5)
    start = wrapped().conv.module.weight
    torch.testing.assert_close(average.conv.module.weight, start + 0.5)


def test_what_is_seen_can_be_differentiated_if_asked():
    model = wrapped()
    state = model.state_dict(keep_vars=True)
    state["conv.weight"].sum().backward()
    assert torch.equal(model.conv.module.weight.grad, model.conv.weight_mask.float())
    assert not model.state_dict()["conv.weight"].requires_grad


def test_the_dense_weight_is_an_attribute_as_its_name_in_the_file_says():
    model = wrapped()
    assert model.conv.weight_orig is model.conv.module.weight
    model.conv.weight_orig = nn.Parameter(torch.ones(4, 3, 3, 3))
    assert (model.conv.module.weight == 1).all()
    with pytest.raises(AttributeError, match="nothing_orig"):
        model.conv.nothing_orig  # noqa: B018


def test_names_that_the_module_uses_itself():
    class Causal(nn.Conv2d):
        def __init__(self) -> None:
            super().__init__(3, 4, 3)
            self.register_buffer("weight_mask", torch.full((4, 3, 3, 3), 2.0))

        def forward(self, x):
            return self._conv_forward(x, self.weight * self.weight_mask, self.bias)

    def make(seed):
        torch.manual_seed(seed)
        model = nn.Sequential(Causal())
        wrapper = PrunerModuleWrapper(model[0], "0", {})
        replace_modules(model, {model[0]: wrapper})
        return model, wrapper

    (model, wrapper), (other, _) = make(0), make(1)
    wrapper.set_masks({"weight": torch.rand(4, 3, 3, 3) > 0.5})
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(X), model(X))
    plain = nn.Sequential(Causal())
    plain.load_state_dict(masked_state_dict(model))
    assert torch.equal(plain(X), model(X))


def test_tensors_that_were_put_on_wrappers_come_back():
    model, other = wrapped(), wrapped(masked=False, seed=3)
    for net, value in ((model, 5.0), (other, 0.0)):
        net.fc.register_buffer("note", torch.full((3,), value))
    other.load_state_dict(model.state_dict())
    assert other.fc.note.tolist() == [5.0] * 3
    assert torch.equal(other(X), model(X))


def test_complaints_call_things_by_their_plain_names():
    model = wrapped(masked=False)
    state = Net().state_dict()
    state["conv.weight"] = torch.ones(2, 3, 3, 3)
    del state["attn.out_proj.bias"]
    state["attn.out_proj.more"] = torch.ones(1)
    with pytest.raises(RuntimeError) as caught:
        model.load_state_dict(state)
    said = str(caught.value)
    assert "size mismatch for conv.weight:" in said
    assert 'Missing key(s) in state_dict: "attn.out_proj.bias"' in said
    assert 'Unexpected key(s) in state_dict: "attn.out_proj.more"' in said
    assert "module." not in said


def test_a_state_without_the_dense_weights_is_not_taken_for_whole():
    model = wrapped()
    state = {k: v for k, v in model.state_dict().items() if not k.endswith("_orig")}
    with pytest.raises(RuntimeError, match=r"Missing key\(s\).*conv\.weight_orig"):
        wrapped(masked=False).load_state_dict(state)


def test_the_names_of_before_are_still_read():
    model, other = wrapped(), wrapped(masked=False, seed=7)
    state = dict([*model.named_parameters(), *model.named_buffers()])
    assert "attn.module.out_proj.module.weight" in state
    other.load_state_dict(state)
    assert torch.equal(other(X), model(X))


def test_a_copy_and_a_pickle_save_and_load_as_well():
    model = copy.deepcopy(wrapped())
    file = io.BytesIO()
    torch.save(wrapped(masked=False, seed=2), file)
    file.seek(0)
    other = torch.load(file, weights_only=False)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(X), model(X))


def test_parameters_that_are_taken_away_while_the_model_runs_are_not_left_unmasked():
    """As FullyShardedDataParallel does it; the mask would silently be without effect."""
    model = wrapped()
    linear = model.fc.module
    weight = linear._parameters["weight"]
    linear.__dict__["weight"] = weight.detach()
    with pytest.raises(MaskError, match=r"fc\.weight is no parameter any more.*fully_shard"):
        model(X)
    del linear.__dict__["weight"]
    model(X)
