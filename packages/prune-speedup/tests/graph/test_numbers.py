"""Numbers that a masked run has seen, products of several, and rules that decline."""

from typing import ClassVar

import numpy as np

from prune_speedup.engine.graph import Call, Graph, Meta, Ref
from prune_speedup.engine.mask_effects import standing
from prune_speedup.engine.propagate import propagate
from prune_speedup.engine.rules import Declined, Entry
from prune_speedup.engine.units import read_units


def shifted(flow, call):
    value, offset = (flow.get(each) for each in call.args)
    return flow.align([value, offset], value.shape, all)


def relu(flow, call):
    value = flow.get(call.args[0])
    return flow.align([value], value.shape, all)


def dense(flow, call):
    return flow.contract(flow.get(call.args[0]), flow.get(call.args[1]), "bi,io->bo")


def triple(flow, call):
    return flow.contract(*map(flow.get, call.args), "bi,bi,io->bo")


def unsure(flow, call):
    raise Declined("it depends on the weather")


class Rules:
    known: ClassVar = {each.__name__: each for each in (shifted, relu, dense, triple, unsure)}

    def find(self, target):
        return Entry(self.known[target], carries=True)

    def repeatable(self, target):
        return True


class Recording:
    """A graph of a batch of 2, one call after the other."""

    def __init__(self, width=3):
        self.graph = Graph()
        self.last = self.value((2, width))
        self.graph.inputs.append(self.last)

    def value(self, shape):
        return self.graph.add_value(Meta(shape, "float32", real=True))

    def tensor(self, name, *shape):
        place = self.value(shape)
        self.graph.tensors[place] = (name,)
        self.graph.parameters.add(place)
        return place

    def call(self, target, width, *others):
        made = self.value((2, width))
        refs = tuple(map(Ref, (self.last, *others)))
        self.graph.calls.append(Call(target, refs, {}, [made], ""))
        self.last = made
        return made

    def end(self):
        self.graph.outputs.append(self.last)
        return self.graph


def with_an_offset():
    """Two dense layers, an offset and a ReLU between them."""
    net = Recording()
    first, offset, last = (
        net.tensor("first", 3, 4),
        net.tensor("offset", 4),
        net.tensor("last", 4, 2),
    )
    net.call("dense", 4, first)
    net.call("shifted", 4, offset)
    after = net.call("relu", 4)
    net.call("dense", 2, last)
    gone = np.array([True, True, False, False])
    return net.end(), after, {(first, 1): gone}


def test_constants_that_were_seen_to_be_zero_go():
    graph, after, zeros = with_an_offset()
    labelling = propagate(graph, Rules())
    found = standing(labelling, zeros)
    assert len(found.removable) == 0
    column = labelling.axes[1][1]
    assert found.constants[column].tolist() == [True, True, False, False]

    def numbers(value, group):
        seen = np.array([[0.0, 0.5, np.nan, np.nan]])
        return seen if value == after else None

    found = standing(labelling, zeros, numbers)
    assert found.constants[column].tolist() == [False, True, False, False]
    removable = labelling.labels.find(found.removable)
    assert set(removable.tolist()) == {int(labelling.labels.find(column[:1])[0])}


def test_numbers_in_which_an_input_has_a_part_are_not_taken_for_zeros():
    graph, _, zeros = with_an_offset()
    labelling = propagate(graph, Rules())
    found = standing(labelling, zeros, lambda value, group: np.zeros(group.compact().shape))
    column = labelling.axes[1][1]
    gone = np.isin(labelling.labels.find(column), labelling.labels.find(found.removable))
    assert gone.tolist() == [True, True, False, False]


def test_a_product_of_three_ties_all_of_them():
    net = Recording()
    first, other, last = (net.tensor(name, 3, 4) for name in ("first", "other", "third"))
    last = net.tensor("last", 4, 2)
    start = net.last
    left = net.call("dense", 4, first)
    net.last = start
    net.call("dense", 4, other)
    net.call("triple", 2, left, last)
    found = read_units(propagate(net.end(), Rules()))
    [group] = [group for group in found.groups if len(group) == 4 and len(group.axes) > 1]
    assert group.axes == (("first", 1), ("other", 1), ("last", 0))


def test_a_rule_that_declines_says_why():
    net = Recording()
    first = net.tensor("first", 3, 4)
    net.call("dense", 4, first)
    net.call("unsure", 4)
    labelling = propagate(net.end(), Rules())
    found = read_units(labelling)
    assert found.why_fixed("first", 1) == "it depends on the weather (unsure in the model)"
    assert labelling.flow.unruled == {1: "it depends on the weather"}
