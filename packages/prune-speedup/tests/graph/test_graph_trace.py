import subprocess
import sys

import pytest
import torch
from torch import nn

from prune_core.errors import ConfigError
from prune_speedup.engine.graph import ALIAS_WRITE, Ref
from prune_speedup.torch.record.follower import Follower
from prune_speedup.torch.record.recorder import trace
from prune_speedup.torch.rules import has_rule


def names(graph):
    return [call.target if isinstance(call.target, str) else call.name for call in graph.calls]


def test_a_linear_layer_is_a_transpose_and_a_product():
    model = nn.Linear(3, 2)
    graph = trace(model, torch.ones(4, 3))
    assert names(graph) == ["t", "addmm"]
    assert sorted(graph.tensors.values()) == [("bias",), ("weight",)]
    assert [graph.metas[index].shape for index in graph.outputs] == [(4, 2)]


@pytest.mark.parametrize(
    "inputs",
    [torch.ones(2, 3), (torch.ones(2, 3),), [torch.ones(2, 3)], {"input": torch.ones(2, 3)}],
)
def test_inputs_may_be_a_tensor_a_sequence_or_keywords(inputs):
    assert names(trace(nn.Linear(3, 2), inputs)) == ["t", "addmm"]


def test_calls_know_their_module():
    graph = trace(nn.Sequential(nn.Linear(3, 2), nn.ReLU()), torch.ones(1, 3))
    assert [call.module for call in graph.calls] == ["0", "0", "1"]


def test_a_tied_parameter_is_one_value_with_two_names():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    graph = trace(model, torch.ones(1, 3))
    assert ("0.weight", "1.weight") in graph.tensors.values()


def test_what_is_not_read_is_named():
    model = nn.Sequential(nn.Linear(3, 3))
    model.spare = nn.Linear(2, 2)
    model.forward = model[0].forward
    assert trace(model, torch.ones(1, 3)).unread == ["spare.weight", "spare.bias"]


class Leaky(nn.Module):
    """A forward that changes whatever a forward could change."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3, momentum=None)
        self.calls = 0
        self.register_buffer("seen", torch.zeros(3))

    def forward(self, x):
        self.calls += 1
        self.cache = x
        self.seen += x.sum(0)
        return self.norm(x) + torch.rand(3)


class Unequal:
    """Cannot be compared."""

    __hash__ = object.__hash__

    def __eq__(self, other):
        raise ValueError("no comparison, please")


class Refilled(nn.Module):
    """Fills what it keeps with what is equal, or cannot be compared."""

    def __init__(self, held, other):
        super().__init__()
        self.held, self.other = held, [other]

    def forward(self, x):
        self.held.clear()
        self.held.update(self.other[0])
        return x


@pytest.mark.parametrize(
    ("held", "other"), [({Unequal(): 1}, {Unequal(): 1}), ({1}, {True}), ({"a": 1}, {"a": 1.0})]
)
def test_what_a_model_keeps_is_put_back_by_identity(held, other):
    model = Refilled(held, other).eval()
    before = list(map(id, held)), list(map(id, held.values() if isinstance(held, dict) else ()))
    Follower(model, has_rule).run(torch.ones(3))
    after = list(map(id, held)), list(map(id, held.values() if isinstance(held, dict) else ()))
    assert after == before


class FailsNext(nn.Module):
    """Keeps nothing at its first run, and fails at its second when it has."""

    def __init__(self, runs):
        super().__init__()
        self.runs = [lambda: runs.append(len(runs)) or runs[-1]]

    def forward(self, x):
        if self.runs[0]():
            self.cache = x
            raise ValueError("not again")
        return x


def test_the_model_is_left_as_it_was_where_it_fails_when_it_runs_once_more():
    runs = []
    model = FailsNext(runs).eval()
    with pytest.raises(ValueError, match="not again"):
        Follower(model, has_rule).run(torch.ones(3), again=True)
    assert runs == [0, 1]
    assert not hasattr(model, "cache")


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(training):
    model = Leaky().train(training)
    model.norm.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    trace(model, torch.ones(4, 3))
    assert model.training is training
    assert model.norm.training is False
    assert model.calls == 0
    assert not hasattr(model, "cache")
    assert torch.equal(torch.get_rng_state(), random)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_the_model_is_left_as_it_was_when_its_forward_fails():
    model = nn.Sequential(nn.Linear(3, 2), nn.Dropout()).train()
    with pytest.raises(ConfigError, match="does not run on inputs of these shapes"):
        trace(model, torch.ones(1, 4))
    assert model.training
    assert not torch.nn.modules.module._global_forward_pre_hooks


def test_writing_in_place_makes_a_new_value():
    graph = trace(nn.Sequential(nn.Linear(3, 2), nn.ReLU(inplace=True)), torch.ones(1, 3))
    relu = graph.calls[-1]
    assert relu.name == "relu_"
    assert relu.args[0] == Ref(graph.calls[-2].outputs[0])
    assert relu.outputs != graph.calls[-2].outputs
    assert graph.outputs == relu.outputs


class WritesThroughAView(nn.Module):
    def forward(self, x):
        x = x * 2
        x[:, 0].add_(1)
        return x


def test_writing_through_a_view_is_noted():
    graph = trace(WritesThroughAView(), torch.ones(2, 3))
    # Older releases of torch take `x[:]` for a slice of its own.
    assert [name for name in names(graph) if name != "slice"][:3] == ["mul", "select", "add_"]
    assert graph.calls[-1].target == ALIAS_WRITE
    assert graph.outputs == graph.calls[-1].outputs


def test_writing_into_another_piece_is_not_a_write():
    class Pieces(nn.Module):
        def forward(self, x):
            left, right = (x * 2).unsafe_chunk(2, 1)
            return left.add_(right)

    assert ALIAS_WRITE not in names(trace(Pieces(), torch.ones(2, 4)))


def test_an_operator_without_a_rule_is_recorded_as_its_parts():
    class Fancy(nn.Module):
        def forward(self, x):
            return torch.nn.functional.silu(x)

    silu = torch.ops.aten.silu.default
    graph = trace(Fancy(), torch.ones(3), known=lambda target: target is not silu)
    assert [name for name in names(graph) if name != "to"] == ["sigmoid", "mul"]


def test_objects_that_are_not_looked_into_are_named():
    class Box:
        pass

    class Boxed(nn.Module):
        def forward(self, x):
            return {"out": x + 1, "box": Box()}

    graph = trace(Boxed(), torch.ones(3))
    assert graph.opaque == ["Box"]
    assert len(graph.outputs) == 1


def test_compiled_parts_are_seen():
    inner = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    plain = trace(nn.Sequential(inner, nn.Linear(4, 2)), torch.ones(1, 3))
    compiled = nn.Sequential(torch.compile(inner, backend="eager"), nn.Linear(4, 2))
    compiled(torch.ones(1, 3))
    assert names(trace(compiled, torch.ones(1, 3))) == names(plain)
    nested = nn.Sequential(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), nn.Linear(4, 2))
    nested[0].compile(backend="eager")
    assert names(trace(nested, torch.ones(1, 3))) == names(plain)


def test_the_compiler_is_not_imported_to_record():
    code = """
import sys
import torch
from prune_speedup.torch.record.recorder import trace
trace(torch.nn.Linear(3, 2), torch.ones(1, 3))
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "False"
