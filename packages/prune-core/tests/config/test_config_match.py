"""Which modules the entries mean. No framework is needed to test that."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_core.config import Algorithm, ModuleInfo, match, parse
from prune_core.errors import ConfigError

MODULES = [
    ModuleInfo("body", "Body", has_weight=False),
    ModuleInfo("body.conv1", "Conv2d"),
    ModuleInfo("body.norm", "BatchNorm2d"),
    ModuleInfo("body.conv2", "MyConv", types=("MyConv", "Conv2d", "Module"), aliases=("twin",)),
    ModuleInfo("fc", "Linear"),
]
L1 = Algorithm("L1NormPruner", ("Conv2d", "Linear"), ("Conv2d", "Linear"))


def chosen(*entries, algorithm=L1):
    found = match(parse(list(entries)), MODULES, algorithm)
    return {name: settings["sparsity"] for name, settings in found.items()}


def test_types_are_exact_and_default_includes_subclasses():
    assert chosen({"sparsity": 0.5, "op_types": ["Conv2d"]}) == {"body.conv1": 0.5}
    assert chosen({"sparsity": 0.5, "op_types": ["default"]}) == {
        "body.conv1": 0.5,
        "body.conv2": 0.5,
        "fc": 0.5,
    }


def test_a_type_is_a_filter_of_which_the_model_may_have_none():
    entry = {"sparsity": 0.5, "op_types": ["Conv2d", "Conv3d", "Linear", "LSTM"]}
    assert chosen(entry) == {"body.conv1": 0.5, "fc": 0.5}
    out = {"exclude": True, "op_types": ["LSTM", "Linear"]}
    assert chosen(entry, out) == {"body.conv1": 0.5}


def test_types_and_names_must_both_hold():
    entry = {"sparsity": 0.5, "op_types": ["Conv2d", "Linear"], "op_names": ["fc"]}
    assert chosen(entry) == {"fc": 0.5}


def test_parts_of_names_select_what_can_be_pruned():
    assert chosen({"sparsity": 0.5, "op_partial_names": ["body"]}) == {
        "body.conv1": 0.5,
        "body.conv2": 0.5,
    }


def test_a_module_in_two_places_answers_to_both_names():
    assert chosen({"sparsity": 0.5, "op_names": ["twin"]}) == {"body.conv2": 0.5}


def test_later_entries_win():
    every = {"sparsity": 0.5, "op_types": ["default"]}
    less = {"sparsity": 0.2, "op_names": ["fc"]}
    out = {"exclude": True, "op_names": ["fc"]}
    assert chosen(every, less)["fc"] == 0.2
    assert "fc" not in chosen(every, less, out)
    assert chosen(every, out, less)["fc"] == 0.2


def test_settings_carry_each_spelling_and_the_entry():
    (settings,) = match(parse([{"total_sparsity": 0.5, "op_names": ["fc"]}]), MODULES, L1).values()
    assert settings == {
        "sparsity": 0.5,
        "sparsity_per_layer": 0.5,
        "total_sparsity": 0.5,
        "per_layer": False,
        "op_names": ["fc"],
        "op_types": ["Linear"],
        "entry": 0,
    }


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"op_types": ["Conv3d"]}, "has no such module. Did you mean 'Conv2d'"),
        ({"op_types": ["LSTM", "Conv3d"]}, "names 'LSTM', 'Conv3d', and the model has no such"),
        ({"op_types": ["Conv2d", "BatchNorm2d"]}, "names 'BatchNorm2d'; L1NormPruner prunes"),
        ({"op_types": ["BatchNorm2d"]}, "L1NormPruner prunes Conv2d, Linear"),
        ({"op_names": ["fc1"]}, "Did you mean 'fc'?"),
        ({"op_names": ["body.norm"]}, "'body.norm', a BatchNorm2d; L1NormPruner prunes"),
        ({"op_partial_names": ["head"]}, "no module's name contains it"),
        ({"op_partial_names": ["norm"]}, "selects only BatchNorm2d"),
        ({"op_types": ["Linear"], "op_names": ["body.conv1"]}, "must both hold"),
    ],
)
def test_what_matches_nothing_is_named(entry, says):
    with pytest.raises(ConfigError) as raised:
        chosen({"sparsity": 0.5, **entry})
    assert says in str(raised.value)
    assert "config_list[0]" in str(raised.value)


def test_an_exclusion_that_matches_nothing_is_named_too():
    with pytest.raises(ConfigError, match=r"config_list\[1\].*'fc9'"):
        chosen({"sparsity": 0.5, "op_names": ["fc"]}, {"exclude": True, "op_names": ["fc9"]})


def test_excluding_everything_is_refused():
    every = {"sparsity": 0.5, "op_names": ["fc"]}
    with pytest.raises(ConfigError, match="nothing is left to prune"):
        chosen(every, {"exclude": True, "op_names": ["fc"]})


# --- garbage: only a ConfigError or a valid resolution ever comes out -----------------------

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([10**400, -(10**400)]),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from(["default", "Conv2d", "Linear", "fc", "body.conv1", "twin", "", "x"]),
    st.binary(max_size=2),
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.tuples(inner))
KNOWN_KEYS = """
    op_types op_names op_partial_names exclude sparsity total_sparsity sparsity_per_layer
    max_sparsity_per_layer rho sparsty
"""
keys = st.one_of(st.sampled_from(KNOWN_KEYS.split()), st.integers(0, 2))
likely = st.fixed_dictionaries(
    {},
    optional={
        "op_types": st.lists(st.sampled_from(["default", "Conv2d", "Linear"]), max_size=2),
        "op_names": st.lists(st.sampled_from(["fc", "body.conv1", "twin", "x"]), max_size=2),
        "sparsity": st.floats(-0.5, 1.5),
        "exclude": st.booleans(),
    },
)
entries = st.one_of(st.dictionaries(keys, values, max_size=4), likely, values)


@given(st.one_of(st.lists(entries, max_size=4), entries))
def test_garbage_is_refused_or_resolved(config_list):
    try:
        found = match(parse(config_list), MODULES, L1)
    except ConfigError:
        return
    assert found
    assert found.keys() <= {"body.conv1", "body.conv2", "fc"}
    assert all(0 <= settings["sparsity"] < 1 for settings in found.values())
