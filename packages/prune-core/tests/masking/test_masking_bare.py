"""What runs a model elsewhere or faster is no part of a layer's name."""

import copy

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.optim.swa_utils import AveragedModel

from prune_core import MaskError, PruneError, Pruner, apply_compression_results, save_masks, unwrap
from prune_core.masking import bare, check_model


def compiled(model):
    return torch.compile(model, backend="eager")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.body(x))


def net():
    torch.manual_seed(0)
    return Net()


def put(at, wrap):
    """Return what wraps a part of a model, or all of it."""

    def wrapped(model):
        if not at:
            return wrap(model)
        parent, _, name = at.rpartition(".")
        holder = model.get_submodule(parent)
        setattr(holder, name, wrap(model.get_submodule(at)))
        return model

    return wrapped


WRAPPED = {
    "plain": lambda model: model,
    "parallel": put("", nn.DataParallel),
    "compiled": put("", compiled),
    "compiled and parallel": put("", lambda model: nn.DataParallel(compiled(model))),
    "average": put("", AveragedModel),
    "part": put("body", compiled),
    "layer": put("body.0", compiled),
    "checkpointed": put("body", checkpoint_wrapper),
    "part of part": lambda model: put("body", nn.DataParallel)(put("body.0", compiled)(model)),
}
X = torch.ones(3, 4)
CONFIG = [{"op_names": ["body.0", "head"], "sparsity": 0.5}]
MASKS = {"body.0": {"weight": torch.ones(8, 4).index_fill(0, torch.tensor([0, 3]), 0)}}


class Given(Pruner):
    """Puts masks in force that it is given."""


@pytest.mark.parametrize("name", WRAPPED)
def test_names_are_plain_and_masks_are_in_force(name):
    expected = net()
    expected.body[0].weight.data.mul_(MASKS["body.0"]["weight"])
    model = WRAPPED[name](net())
    before = [type(module) for module in model.modules()]
    model(X)  # so that what is compiled is compiled
    pruner = Given(model, CONFIG)
    assert list(pruner.get_modules_wrapper()) == ["body.0", "head"]
    pruner.load_masks(MASKS)
    assert torch.equal(model(X), expected(X))
    assert next(iter(pruner.get_origin2wrapped_parameter_name_map())) == "body.0.weight"
    unwrap(model)
    assert [type(module) for module in model.modules()] == before
    assert torch.equal(model(X), expected(X))


@pytest.mark.parametrize("written", WRAPPED)
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_names_from_any_wrapping_fit_any_other(written, prefix, tmp_path):
    model = WRAPPED[written](net())
    rules = [{"op_names": [f"{prefix}body.0"], "sparsity": 0.5}]
    pruner = Given(model, rules)
    pruner.load_masks({f"{prefix}body.0": MASKS["body.0"]})
    assert list(pruner.masks) == ["body.0"]
    save_masks(tmp_path / "masks", {f"{prefix}body.0": MASKS["body.0"]})
    unwrap(model)
    other = WRAPPED[written](net())
    apply_compression_results(other, tmp_path / "masks")
    assert torch.equal(other(X), model(X))


def test_part_of_a_name_that_begins_with_what_wraps():
    pruner = Given(net(), [{"op_partial_names": ["module.body"], "sparsity": 0.5}])
    assert list(pruner.get_modules_wrapper()) == ["body.0"]


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of torch's own compiler
def test_what_is_put_in_place_meanwhile_is_run():
    """torch.compile remembers the function that it compiled."""
    model = put("head", compiled)(net())
    model(X)
    with bare(model) as plain:
        plain.head = nn.Linear(8, 5)
    assert type(model.head).__name__ == "OptimizedModule"
    assert model(X).shape == (3, 5)


def test_an_error_leaves_the_model_wrapped():
    model = WRAPPED["part of part"](net())
    before = [type(module) for module in model.modules()]
    with pytest.raises(KeyError), bare(model):
        raise KeyError
    assert [type(module) for module in model.modules()] == before


def test_a_copy_of_a_masked_compiled_model():
    model = WRAPPED["layer"](net())
    pruner = Given(model, CONFIG)
    pruner.load_masks(MASKS)
    twin = unwrap(copy.deepcopy(model))
    assert torch.equal(twin(X), model(X))


def test_one_name_for_two_modules_decides_nothing():
    class Both(Net):
        def __init__(self):
            super().__init__()
            self.module = nn.ModuleDict({"_orig_mod": nn.Linear(4, 8)})
            self.module["module"] = nn.Linear(4, 8)

    with pytest.raises(ValueError, match="no module of that name"):
        Given(Both(), [{"op_names": ["_orig_mod"], "sparsity": 0.5}])
    assert list(
        Given(Both(), [{"op_names": ["module._orig_mod"], "sparsity": 0.5}]).get_modules_wrapper()
    ) == ["module._orig_mod"]


def test_masks_whose_names_are_no_names():
    with pytest.raises(MaskError, match="The masks have 3; it must be the name of a module"):
        Given(net(), CONFIG).load_masks({3: MASKS["body.0"]})


class Keras:
    __module__ = "keras.models"


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (None, "model is a NoneType; it must be a model of torch"),
        (Net, r"This is the class; make a model of it: Net\(...\)"),
        ((net(), {}), "what prune\\(\\) or compress\\(\\) returns, it is the first"),
        (net().state_dict(), "A state dict holds the numbers of a model"),
        (Given(net(), CONFIG), "Of a pruner, it is pruner.bound_model"),
        (Keras(), "For Keras there is prune_tf"),
    ],
)
def test_what_is_no_model(model, says):
    with pytest.raises(PruneError, match=says):
        check_model(model)
    with pytest.raises(PruneError, match=says):
        Given(model, CONFIG)
    with pytest.raises(PruneError, match=says):
        unwrap(model)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_compiled_forward_cannot_be_changed():
    with pytest.raises(PruneError, match="compiled by torch.jit.script or torch.jit.trace"):
        Given(torch.jit.script(net()), CONFIG)
    part = net()
    part.head = torch.jit.script(part.head)
    with pytest.raises(PruneError, match="'head' was compiled by torch.jit.script"):
        Given(part, CONFIG)
