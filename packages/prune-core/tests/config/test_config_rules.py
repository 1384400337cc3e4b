"""Every rule for an entry: what it says when it is broken."""

import math
import time

import pytest

from prune_core.config import Algorithm, Key, ModuleInfo, load_config, match, parse
from prune_core.errors import ConfigError

GOOD = {"sparsity": 0.5, "op_types": ["Conv2d"]}
HUGE = 10**5000


@pytest.mark.parametrize(
    ("config_list", "says"),
    [
        (GOOD, "it must be a list of dicts: write [{...}]"),
        ("l1", "config_list is 'l1'"),
        (None, "config_list is None"),
        ([], "config_list is empty"),
        ([GOOD, "x"], "config_list[1] is 'x'; each entry must be a dict"),
        ([{}], "config_list[0] selects nothing"),
        ([{"sparsity": 0.5}], "add one of op_types, op_names, op_partial_names"),
        ([{"op_types": ["Conv2d"]}], "does not say how much to prune"),
        ([{**GOOD, "sparsty": 0.5}], "Did you mean 'sparsity'"),
        ([{**GOOD, 3: 0.5}], "unknown key 3"),
        ([{**GOOD, HUGE: 0.5}], "unknown key <int that cannot be printed>"),
        ([{**GOOD, "sparsity": 10**400}], "'sparsity' is 1000"),
        ([{**GOOD, "sparsity": HUGE}], "'sparsity' is <int that cannot be printed>"),
        ([{**GOOD, "max_sparsity_per_layer": HUGE}], "greater than 0 and at most 1"),
        ([{**GOOD, "rho": 0.1}], "unknown key 'rho'"),
        ([{**GOOD, "sparsity": 1.0}], "'sparsity' is 1.0; it must be a number of at least 0 and"),
        ([{**GOOD, "sparsity": -0.1}], "'sparsity' is -0.1"),
        ([{**GOOD, "sparsity": math.nan}], "'sparsity' is nan"),
        ([{**GOOD, "sparsity": True}], "'sparsity' is True"),
        ([{**GOOD, "sparsity": "0.5"}], "'sparsity' is '0.5'"),
        ([{**GOOD, "op_types": "Conv2d"}], "write ['Conv2d']"),
        ([{**GOOD, "op_types": []}], "a list of one or more non-empty strings"),
        ([{**GOOD, "op_names": [1]}], "'op_names' is [1]"),
        ([{**GOOD, "op_names": [""]}], "non-empty strings"),
        ([{"op_types": ["Conv2d"], "exclude": 1}], "'exclude' is 1; it must be True or False"),
        ([{**GOOD, "exclude": True}], "remove one of the two"),
        ([{**GOOD, "total_sparsity": 0.5}], "more than once ('sparsity': 0.5 and 'total_"),
        ([{**GOOD, "max_sparsity_per_layer": 0}], "greater than 0 and at most 1"),
        ([{**GOOD, "max_sparsity_per_layer": 0.4}], "cannot be reached"),
    ],
)
def test_a_broken_rule_is_named(config_list, says):
    with pytest.raises(ConfigError) as raised:
        parse(config_list)
    assert says in str(raised.value)


def test_whole_numbers_are_ratios_too():
    (entry,) = parse([{"sparsity": 0, "op_types": ["Conv2d"]}])
    assert entry.settings == {"sparsity": 0}


def test_exclude_false_does_not_exclude():
    (entry,) = parse([{**GOOD, "exclude": False}])
    assert not entry.exclude


def test_an_algorithm_declares_further_keys():
    config = [{"op_types": ["default"], "final_sparsity": 0.8, "start_epoch": 1, "end_epoch": 4}]
    with pytest.raises(ConfigError, match="unknown key 'final_sparsity'"):
        parse(config)
    (entry,) = parse(config, ("final_sparsity", "start_epoch", "end_epoch"))
    assert entry.settings == {"final_sparsity": 0.8, "start_epoch": 1, "end_epoch": 4}


def test_an_algorithm_declares_a_key_of_its_own():
    even = Key("pairs", lambda v: None if v in (2, 4) else "2 or 4")
    assert parse([{**GOOD, "pairs": 4}], (even,))[0].settings["pairs"] == 4
    with pytest.raises(ConfigError, match=r"'pairs' is 3; it must be 2 or 4"):
        parse([{**GOOD, "pairs": 3}], (even,))


def test_a_schedule_does_not_end_before_it_starts():
    keys = ("start_epoch", "end_epoch")
    with pytest.raises(ConfigError, match="'start_epoch' is 5, after 'end_epoch', which is 3"):
        parse([{**GOOD, "start_epoch": 5, "end_epoch": 3}], keys)


def test_an_undeclared_key_of_an_algorithm_is_its_authors_mistake():
    with pytest.raises(ConfigError, match=r"declare it as Key\('colour', rule\)"):
        parse([GOOD], ("colour",))


def test_yaml(tmp_path):
    pytest.importorskip("yaml", reason="PyYAML comes with the torch extra")
    path = tmp_path / "config.yaml"
    path.write_text("- sparsity: 0.5\n  op_types: [Conv2d]\n")
    assert load_config(path) == [GOOD]
    path.write_text("config_list:\n- sparsity: 0.5\n  op_types: [Conv2d]\n")
    assert load_config(str(path)) == [GOOD]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", "is not YAML"),
        ("a: 1", "holds no list of entries"),
        ("!!python/object/apply:os.system ['true']", "is not YAML"),
        ("- sparsity: 2024-13-45", "is not YAML: month must be in 1..12"),
        ("- sparsity: " + "9" * 5000, "is not YAML"),
        ("[" * 5000, "is not YAML"),
        ("- {sparsity: 0.5, sparsity: 0.1}", "is not YAML: the key 'sparsity' stands twice"),
    ],
)
def test_a_bad_yaml_file_is_refused(tmp_path, text, says):
    pytest.importorskip("yaml", reason="PyYAML comes with the torch extra")
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says):
        load_config(path)


def test_a_missing_yaml_file_is_named(tmp_path):
    pytest.importorskip("yaml", reason="PyYAML comes with the torch extra")
    with pytest.raises(ConfigError, match="none.yaml"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be the path of a file"):
        load_config("con\0fig.yaml")


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("quant_types", "says how to quantise, which a pruner does not do: give it to a quantizer"),
        ("quant_bits", "a config_list of its own, after pruning"),
        ("sparse_ratio", "It is called 'sparsity' here"),
        ("op_names_re", "'op_partial_names'"),
        ("exclude_op_names", r"\{'exclude': True, 'op_names': \[\.\.\.\]\}"),
        ("global_group_id", "mode='global'"),
    ],
)
def test_keys_of_the_predecessor_are_told_where_they_belong(key, says):
    with pytest.raises(ConfigError, match=rf"unknown key {key!r}\. .*{says}") as caught:
        parse([{"op_types": ["Linear"], "sparsity": 0.5, key: ["weight"]}])
    assert "Did you mean" not in str(caught.value)


def test_a_file_of_many_entries_is_read_in_time(tmp_path):
    """Thirty thousand entries for as many modules; a search for each would take minutes."""
    pytest.importorskip("yaml", reason="PyYAML comes with the torch extra")
    count, path = 30_000, tmp_path / "config.yaml"
    entry = "- op_names: [layer.{}]\n  op_types: [Linear]\n  sparsity: 0.5\n"
    path.write_text("".join(map(entry.format, range(count))))
    modules = [ModuleInfo(f"layer.{i}", "Linear") for i in range(count)]
    start = time.process_time()
    found = match(parse(load_config(path)), modules, Algorithm("L1", ("Linear",)))
    assert time.process_time() - start < 60
    assert len(found) == count


def test_a_value_that_holds_itself_many_times_over_is_shown_briefly(tmp_path):
    pytest.importorskip("yaml", reason="PyYAML comes with the torch extra")
    path = tmp_path / "config.yaml"
    lists = "".join(f"b{i}: &b{i} [{', '.join([f'*b{i - 1}'] * 9)}]\n" for i in range(1, 12))
    path.write_text(f"b0: &b0 [x]\n{lists}config_list: [{{op_types: [default], sparsity: *b11}}]\n")
    with pytest.raises(ConfigError, match="'sparsity' is .*; it must be a number"):
        parse(load_config(path))
