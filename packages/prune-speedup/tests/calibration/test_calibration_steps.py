"""Where a forward is cut, seen from the names of its steps."""

import torch
from handing_on import SharedCache, Skipping, Transformer, Twice, convolutions, layers_of
from torch import nn

from prune_toolkit.calibration.steps import as_example, find_steps, leaves, rebuilt


def cut(model, *example, layers=None):
    return find_steps(model.eval(), layers or layers_of(model), example)


def shown(steps):
    return {step.name: step.follows for step in steps}


WORDS = torch.tensor([[1, 2, 3], [4, 5, 6]])


def test_layers_of_a_transformer_follow_each_other_and_the_head_does_not():
    steps = cut(Transformer(), WORDS)
    assert shown(steps) == {"layers.0": True, "layers.1": True, "layers.2": True, "head": False}
    assert steps[1].layers == ("layers.1.up", "layers.1.down")
    assert steps[1].groups == (("layers.1.up",), ("layers.1.down",))


def test_a_stack_of_modules_is_cut_between_all_of_them():
    steps = cut(convolutions(), torch.randn(1, 2, 8, 8))
    assert shown(steps) == dict.fromkeys("0123456", True)
    assert [step.layers for step in steps] == [("0",), (), (), ("3",), (), (), ("6",)]


def test_what_was_returned_long_ago_is_still_there():
    steps = cut(Skipping(), torch.randn(1, 4))
    assert shown(steps) == {"down": True, "middle": True, "join": True, "out": True}
    assert steps[2].inputs == (steps[1].outputs[0], steps[0].outputs[0])


def test_a_layer_that_runs_twice_is_in_one_step():
    model = Twice()
    assert shown(cut(model, torch.randn(1, 4))) == {"": True}
    # Where it is not one of those to be pruned, it is a step wherever it runs.
    few = {name: layer for name, layer in layers_of(model).items() if name != "shared"}
    steps = cut(model, torch.randn(1, 4), layers=few)
    assert [(step.name, step.occurrence) for step in steps] == [
        ("first", 0),
        ("shared", 0),
        ("shared", 1),
        ("last", 0),
    ]


def test_what_comes_after_the_last_layer_is_left_out():
    model = Transformer()
    layers = {"layers.1.up": model.layers[1].up}
    # It holds all there is to prune, so it is cut though a part of it has to be reached.
    assert shown(cut(model, WORDS, layers=layers)) == {"layers.1.up": True}
    layers["layers.0.up"] = model.layers[0].up
    assert shown(cut(model, WORDS, layers=layers)) == {"layers.0": True, "layers.1": True}


def test_queries_keys_and_values_are_one_group():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.o = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return x + self.o(self.q(x) * self.k(x))

    steps = cut(nn.Sequential(Attention(), Attention()), torch.randn(1, 4))
    assert steps[0].groups == (("0.q", "0.k"), ("0.o",))


def test_the_model_is_left_as_it_was():
    model = SharedCache().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    find_steps(model, layers_of(model), (WORDS,))
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_arguments_become_example_inputs():
    model = Transformer()
    assert as_example(model, (WORDS,), {}) == (WORDS,)
    assert as_example(model, (), {"words": WORDS}) == {"words": WORDS}
    both = as_example(model, (WORDS,), {"attention_mask": None})
    assert both == {"words": WORDS, "attention_mask": None}


def test_leaves_come_and_go_in_one_order():
    tree = ((1, [2, {"a": 3}]), {"b": (4,)})
    assert list(leaves(tree)) == [1, 2, 3, 4]
    assert rebuilt(tree, iter("wxyz")) == (("w", ["x", {"a": "y"}]), {"b": ("z",)})
