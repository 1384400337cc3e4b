"""Wrong certificates that somebody might hope to get through; beside each, one that is right."""

import hashlib

import numpy as np
import pytest
from hand_written import channels, numbers, read_by

from prune_verify import Rejected
from prune_verify.checker import check_read

KEPT = {1: [0, 2]}


def pointwise(proof, ins, function, arguments, kept=KEPT, shape=(2, 3), **told):
    given = {"function": function, "arguments": arguments, **told}
    return proof.add("pointwise", ins, shape, kept, told=given)


def refuses(proof, why):
    with pytest.raises(Rejected, match=why):
        proof.check()


def test_a_channel_that_is_zero_can_go():
    assert read_by(*channels()).check().steps == 5


def test_a_channel_that_is_not_zero_cannot():
    refuses(read_by(*channels(zero=())), "removed indices that are not zero")


@pytest.mark.parametrize(("bias", "right"), [(-1.0, True), (1.0, False), (-1e-9, False)])
def test_a_constant_is_zero_only_behind_a_rectifier_that_stops_it(bias, right):
    proof, value = channels()
    shift = numbers(3)
    shift[1] = bias
    proof.tensor("bias", shift, {0: [0, 2]})
    value = pointwise(proof, [value, 3], "add", [{"value": 0}, {"value": 1}])
    value = pointwise(proof, [value], "relu", [{"value": 0}])
    read_by(proof, value)
    proof.check() if right else refuses(proof, "removed indices that")


def test_a_zero_claimed_of_a_constant():
    proof, value = channels()
    value = pointwise(proof, [value], "add", [{"value": 0}, 1.0])
    proof.values[value]["zero"] = {"1": proof.set([1])}
    refuses(read_by(proof, value), "not known to be zero")


@pytest.mark.parametrize("sets", [[[1, 4]], [[2, 3], [0, 1]], [[0, 2], [1, 3]], [[-1, 1]]])
def test_sets_that_are_none(sets):
    proof, value = channels()
    proof.sets[proof.values[value]["kept"]["1"]] = sets
    with pytest.raises(Rejected):
        read_by(proof, value).check()


@pytest.mark.parametrize("function", ["sigmoid", "cos", "exp"])
def test_a_function_that_makes_something_of_zero(function):
    proof, value = channels()
    value = pointwise(proof, [value], function, [{"value": 0}])
    refuses(read_by(proof, value), "removed indices that")


def test_a_softmax_over_removed_entries():
    proof, value = channels()
    told = {"function": "softmax", "axes": [1], "size": [3]}
    value = proof.add("along", [value], (2, 3), KEPT, told=told)
    refuses(read_by(proof, value), "softmax runs over all indices")


@pytest.mark.parametrize("function", ["mean", "normalise", "amax"])
def test_a_function_of_rows_that_lost_entries(function):
    proof, value = channels()
    told = {"function": function, "axes": [1], "size": [1]}
    proof.outputs = [proof.add("along", [value], (2, 1), told=told)]
    refuses(proof, "runs over all indices")


def test_a_norm_over_what_is_left_is_told_as_such():
    proof, value = channels()
    told = {"function": "normalise", "axes": [1], "size": [3], "over": {"1": proof.set([0, 2])}}
    read_by(proof, proof.add("along", [value], (2, 3), KEPT, told=told))
    assert "indices that are left" in proof.check().assumptions[-1]
    told["over"] = {"1": proof.set([0, 1])}
    refuses(proof, "other indices than are left")


@pytest.mark.parametrize(("kept", "right"), [([0, 2, 3, 5], True), ([0, 2, 3, 4], False)])
def test_offsets_of_pieces(kept, right):
    proof, value = channels()
    value = proof.move([value, value], (2, 6), [["cat", 1]], {1: kept})
    read_by(proof, value, 6, kept)
    proof.check() if right else refuses(proof, "moves other numbers")


@pytest.mark.parametrize(("shift", "right"), [(0.0, True), (0.5, False)])
def test_a_scale_of_zero_and_a_shift_that_is_none(shift, right):
    proof, value = channels()
    for function, number in (("mul", 0.0), ("add", shift)):
        numbers_ = numbers(3)
        numbers_[1] = number
        tensor = proof.tensor(function, numbers_, {0: [0, 2]})
        value = pointwise(proof, [value, tensor], function, [{"value": 0}, {"value": 1}])
    read_by(proof, value)
    proof.check() if right else refuses(proof, "hold a constant")


def test_a_removed_axis_that_is_broadcast():
    proof, value = channels()
    proof.input(2, 3)
    value = pointwise(proof, [value, 3], "mul", [{"value": 0}, {"value": 1}])
    refuses(read_by(proof, value), "operands differ")


def heads(kept_scores, kept_value):
    """Two heads of two, of which one value head is nothing but zeros."""
    proof = channels()[0].__class__()
    x = proof.input(1, 3, 4)
    parts = []
    for at, (name, kept) in enumerate((("q", kept_scores), ("k", kept_scores), ("v", kept_value))):
        weight = numbers(4, 4, seed=at)
        if name == "v":
            weight[:, :2] = 0
        columns = [c for head in kept for c in (2 * head, 2 * head + 1)]
        w = proof.tensor(name, weight, {1: columns})
        y = proof.add("matmul", [x, w], (1, 3, 4), {2: columns})
        turned, shape = [0, 2, 3, 1] if name == "k" else [0, 2, 1, 3], [1, 3, 2, 2]
        moves = [["reshape", shape], ["permute", turned]]
        fewer = [["reshape", [1, 3, len(kept), 2]], ["permute", turned]]
        parts.append(proof.move([y], [shape[a] for a in turned], moves, {1: kept}, fewer))
    scores = proof.add("matmul", parts[:2], (1, 2, 3, 3), {1: kept_scores})
    told = {"function": "softmax", "axes": [3], "size": [3]}
    shares = proof.add("along", [scores], (1, 2, 3, 3), {1: kept_scores}, told=told)
    y = proof.add("matmul", [shares, parts[2]], (1, 2, 3, 2), {1: kept_value})
    back = [["permute", [0, 2, 1, 3]], ["reshape", [1, 3, 4]]]
    less = [["permute", [0, 2, 1, 3]], ["reshape", [1, 3, 2 * len(kept_value)]]]
    columns = [c for head in kept_value for c in (2 * head, 2 * head + 1)]
    y = proof.move([y], (1, 3, 4), back, {2: columns}, less)
    w = proof.tensor("o", numbers(4, 2, seed=9), {0: columns})
    proof.outputs = [proof.add("matmul", [y, w], (1, 3, 2))]
    return proof


def test_a_head_of_zeros_can_go():
    heads([1], [1]).check()


def test_the_other_head_cannot():
    refuses(heads([0], [0]), "removed indices that are not zero")


def test_heads_that_are_mixed_up():
    refuses(heads([0], [1]), "operands differ")


def test_moves_that_mix_channels():
    proof, value = channels(zero=(1, 3), width=4, kept=(0, 2))
    value = proof.move([value], (4, 2), [["reshape", [4, 2]]], {1: [0]}, [["reshape", [4, 1]]])
    weight = proof.tensor("second", numbers(2, 2), {0: [0]})
    proof.outputs = [proof.add("matmul", [value, weight], (4, 2))]
    proof.check()
    proof.steps[3]["small"] = {
        "moves": [["reshape", [2, 2]], ["permute", [1, 0]], ["reshape", [4, 1]]]
    }
    refuses(proof, "moves other numbers")


@pytest.mark.parametrize("axis", [1, -1, 0])
def test_a_move_that_only_the_small_model_makes(axis):
    proof, value = channels()
    value = proof.move([value], (2, 3), [["slice", 0, 0, 2]], {1: [0, 2]})
    read_by(proof, value).check()
    proof.steps[3]["small"] = {"moves": [["slice", 0, 0, 2], ["flip", axis]]}
    with pytest.raises(Rejected):
        proof.check()


@pytest.mark.parametrize("axis", [-1, 1, 2])
def test_an_axis_that_is_counted_from_the_end(axis):
    proof, value = channels()
    value = proof.move([value], (2, 3), [["flip", axis]], {1: [0, 2]})
    read_by(proof, value)
    proof.check() if axis == 1 else refuses(proof, "no such axis")


@pytest.mark.parametrize(("place", "right"), [(0, True), (1, False)])
def test_a_channel_that_is_overwritten(place, right):
    proof, value = channels()
    row = proof.add("fill", [], (2, 1), told={"value": 0.0, "shape": [2, 1]})
    small = [["write", [["slice", 1, 0, 1, 1]]]]
    moves = [["write", [["slice", 1, place, place + 1, 1]]]]
    value = proof.move([value, row], (2, 3), moves, {1: [0, 2]}, small)
    read_by(proof, value)
    proof.check() if right else refuses(proof, "moves other numbers")


@pytest.mark.parametrize(("ord_", "right"), [(2, True), (float("-inf"), False)])
def test_a_norm_that_loses_zeros(ord_, right):
    proof, value = channels()
    told = {"function": "norm", "axes": [1], "size": [1], "told": [ord_]}
    proof.outputs = [proof.add("along", [value], (2, 1), told=told)]
    proof.check() if right else refuses(proof, "runs over all indices")


def test_rows_are_looked_up_in_a_whole_table():
    proof, value = channels()
    places = proof.input(4, 1)
    told = {"function": "gather", "axes": [0], "size": [4]}
    value = proof.add("along", [value, places], (4, 3), KEPT, told=told)
    weight = proof.tensor("second", numbers(3, 2), {0: [0, 2]})
    proof.outputs = [proof.add("matmul", [value, weight], (4, 2))]
    proof.check()
    told["axes"] = [1]
    refuses(proof, "runs over all indices")


def test_tensors_of_one_shape_that_are_exchanged():
    proof, value = channels()
    proof.tensor("a", numbers(3, seed=5), {0: [0, 2]})
    proof.tensor("b", numbers(3, seed=6), {0: [0, 2]})
    value = pointwise(proof, [value, 3, 4], "addcmul", [{"value": at} for at in range(3)])
    proof.outputs = [2]
    proof.small["a"], proof.small["b"] = proof.small["b"], proof.small["a"]
    refuses(proof, "not the kept part")


def test_a_value_that_is_used_twice_and_zero_once():
    proof, value = channels()
    other = pointwise(proof, [value], "exp", [{"value": 0}])
    both = pointwise(proof, [value, other], "add", [{"value": 0}, {"value": 1}])
    refuses(read_by(proof, both), "removed indices that")


def test_a_product_with_a_zero_is_zero():
    proof, value = channels()
    other = pointwise(proof, [value], "exp", [{"value": 0}])
    both = pointwise(proof, [value, other], "mul", [{"value": 0}, {"value": 1}])
    read_by(proof, both).check()


def test_an_output_that_is_smaller():
    proof, value = channels()
    proof.outputs = [value]
    refuses(proof, "is an output")


def test_an_unknown_operator_on_what_was_cut():
    proof, value = channels()
    told = {"call": "mystery"}
    refuses(read_by(proof, proof.add("same", [value], (2, 3), KEPT, told=told)), "no rule")


def test_an_operator_that_nobody_knows():
    proof, value = channels()
    refuses(read_by(proof, proof.add("run", [value], (2, 3), KEPT)), "no operator 'run'")


def test_a_function_that_is_none_of_single_numbers():
    proof, value = channels()
    value = pointwise(proof, [value], "softmax", [{"value": 0}])
    refuses(read_by(proof, value), "no function of single numbers")


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_infinity_times_zero(bad):
    proof, value = channels()
    read_by(proof, value)
    proof.original["second"][1] = bad
    refuses(proof, "not finite")


def test_a_weight_that_moved_a_little():
    proof = read_by(*channels())
    proof.small["second"] = proof.small["second"] * np.float32(1 + 1e-6)
    refuses(proof, "not the kept part")


@pytest.mark.parametrize("which", ["original", "small"])
def test_another_file(which):
    proof = read_by(*channels())
    told, files = proof.told(), proof.files()
    check_read(*files, told)
    other = files[which == "small"]
    other["second"] = hashlib.sha256(b"another").hexdigest(), other["second"][1]
    with pytest.raises(Rejected, match="not the file that was certified"):
        check_read(*files, told)


def test_a_tensor_without_a_hash_is_not_read():
    proof = read_by(*channels())
    told = proof.told()
    del told["small"]["second"]
    with pytest.raises(Rejected, match="hash is missing"):
        check_read(*proof.files(), told)


@pytest.mark.parametrize(("error", "right"), [(0.0, True), (1e-2, False)])
def test_a_constant_in_the_next_bias(error, right):
    proof, value = channels()
    value = pointwise(proof, [value], "add", [{"value": 0}, 2.0])
    weight, bias = numbers(3, 2, seed=1), numbers(2, seed=2)
    w = proof.tensor("second", weight, {0: [0, 2]})
    b = proof.tensor("bias", bias, small=bias + 2 * weight[1] + np.float32(error), fold="changed")
    proof.outputs = [proof.add("matmul", [value, w, b], (2, 2))]
    proof.check() if right else refuses(proof, "the bias is off")


def test_a_folded_bias_is_nothing_but_a_bias():
    proof, value = channels()
    proof.tensor("bias", numbers(3), {0: [0, 2]}, small=numbers(2), fold="changed")
    value = pointwise(proof, [value, 3], "add", [{"value": 0}, {"value": 1}])
    refuses(read_by(proof, value), "used otherwise")


@pytest.mark.parametrize(
    ("groups", "right"), [(2, True), (1, False)], ids=["its own groups", "other groups"]
)
def test_groups_of_a_convolution(groups, right):
    proof = channels()[0].__class__()
    x = proof.input(1, 4, 5)
    weight = numbers(8, 2, 3)
    weight[[1, 5]] = 0
    w = proof.tensor("conv", weight, {0: [0, 2, 3, 4, 6, 7]})
    told = {"stride": [1], "padding": [0], "dilation": [1], "output_padding": [0], "size": [3]}
    told |= {"transposed": False, "groups": 2}
    small = {"groups": groups}
    y = proof.add("conv", [x, w], (1, 8, 3), {1: [0, 2, 3, 4, 6, 7]}, small, told)
    total = {"function": "sum", "axes": [1], "size": [1]}
    proof.outputs = [proof.add("along", [y], (1, 1, 3), told=total)]
    proof.check() if right else refuses(proof, "differ|other channels")
