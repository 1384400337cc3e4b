"""The keys of a config that quantises, and those of the other kind in it."""

import pytest

from prune_core.config import QUANTISING, bits_of, keys_for, parse
from prune_core.errors import ConfigError

ENTRY = {"quant_types": ["weight", "output"], "op_types": ["default"]}


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        ({}, {"weight": 8, "output": 8}),
        ({"quant_bits": 4}, {"weight": 4, "output": 4}),
        ({"quant_bits": {"weight": 8, "output": 4}}, {"weight": 8, "output": 4}),
    ],
)
def test_bits_of_each_type(bits, expected):
    [entry] = parse([{**ENTRY, **bits}], purpose=QUANTISING)
    assert bits_of(entry.settings) == expected


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sparsity": 0.5}, "unknown key 'sparsity'.*prune first, with a config_list of its own"),
        ({"total_sparsity": 0.5}, "prune first"),
        ({"rho": 1}, "prune first"),
        ({"quant_types": []}, "must be a list of 'weight', 'input', 'output'"),
        ({"quant_types": ["bias"]}, "must be a list"),
        ({"quant_types": "weight"}, r"write \['weight'\]"),
        ({"quant_bits": 32}, "from 1 to 31"),
        ({"quant_bits": 8.0}, "from 1 to 31"),
        ({"quant_bits": {}}, "from 1 to 31"),
        ({"quant_bits": {"weight": 8}}, "'output', and 'quant_bits' says nothing of it"),
        ({"quant_bits": {"weight": 8, "output": 8, "input": 8}}, "does not have 'input'"),
        ({"exclude": True}, "what is excluded is not quantised"),
    ],
)
def test_what_cannot_be_meant(change, says):
    with pytest.raises(ConfigError, match=rf"config_list\[0\].*{says}"):
        parse([{**ENTRY, **change}], purpose=QUANTISING)


def test_an_entry_says_what_to_quantise():
    with pytest.raises(ConfigError, match="does not say what to quantise; add one of quant_types"):
        parse([{"quant_bits": 8, "op_types": ["default"]}], purpose=QUANTISING)
    with pytest.raises(ConfigError, match="nothing would be quantised.*'quant_types'"):
        parse([], purpose=QUANTISING)


def test_both_purposes_select_modules_alike():
    selecting = {"op_types", "op_names", "op_partial_names", "exclude"}
    assert selecting == keys_for(()).keys() & keys_for((), QUANTISING).keys()
