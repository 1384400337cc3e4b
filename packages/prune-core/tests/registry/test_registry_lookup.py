"""From a name to the thing it means, with plugins that live in this process."""

from types import SimpleNamespace

import pytest

import prune_core
from prune_core import Reference, hookimpl
from prune_core.registry import get_entry, registered
from prune_core.registry.directory import directory


def plugin_with(**references):
    """A plugin object that registers these pruners."""

    class Hooks:
        @hookimpl
        def prune_register_pruners(self):
            return references

    return Hooks()


@pytest.fixture
def sqrt():
    with registered(plugin_with(root=Reference("math:sqrt")), "acme"):
        yield


def test_a_bare_name_gives_the_object(sqrt):
    assert prune_core.get_pruner("root")(9.0) == 3.0


@pytest.mark.parametrize("name", ["acme:root", "ACME:root"])
def test_a_qualified_name_gives_the_object(sqrt, name):
    assert prune_core.get_pruner(name)(9.0) == 3.0


def test_what_was_registered_is_forgotten_afterwards(sqrt):
    with registered(plugin_with(two=Reference("math:exp")), "second"):
        assert prune_core.get_pruner("two")(0.0) == 1.0
    with pytest.raises(prune_core.UnknownNameError, match="There is no pruner 'two'"):
        prune_core.get_pruner("two")


def test_core_registers_its_own_curves_through_the_same_hook():
    names = {entry.name for entry in prune_core.entries("schedule")}
    assert {"constant", "cubic", "geometric", "linear", "one_cycle"} <= names
    assert prune_core.get_schedule("prune-core:linear")(0.5, 0.0, 0.8) == 0.4


def test_a_close_match_is_offered(sqrt):
    with pytest.raises(prune_core.UnknownNameError, match=r"Did you mean 'root'\?"):
        prune_core.get_pruner("rot")


def test_what_is_there_is_listed(sqrt):
    with pytest.raises(prune_core.UnknownNameError, match=r"Registered: .*linear"):
        prune_core.get_schedule("no such thing")


def test_what_a_framework_has_is_listed_and_told_from_the_rest():
    ours, theirs = Reference("math:sqrt", framework="keras"), Reference("math:exp")
    with registered(plugin_with(root=ours, power=theirs), "acme"):
        with pytest.raises(prune_core.UnknownNameError) as told:
            prune_core.get_pruner("powr", framework="keras")
        with pytest.raises(prune_core.UnknownNameError, match="not for keras. .* are .*root"):
            prune_core.get_pruner("power", framework="keras")
    listed, rest = str(told.value).split("Registered for keras: ")[1].split(". ", 1)
    assert "root" in listed
    assert "power" not in listed
    assert "exist for torch only. Did you mean 'power'?" in rest


def test_an_unknown_owner_is_named(sqrt):
    message = r"No plugin named 'acne' is installed\. Did you mean 'acme'\?"
    with pytest.raises(prune_core.UnknownNameError, match=message):
        prune_core.get_pruner("acne:root")


def test_the_distribution_that_would_bring_a_name_is_named(monkeypatch):
    monkeypatch.setitem(directory(), "prune-elsewhere", {"pruner": ["somewhere_else"]})
    message = r"`pip install prune-elsewhere` brings it\."
    with pytest.raises(prune_core.UnknownNameError, match=message):
        prune_core.get_pruner("somewhere_else")


def test_a_name_that_is_no_string_is_refused():
    with pytest.raises(prune_core.UnknownNameError, match="is a string, not 3"):
        prune_core.get_pruner(3)


def test_two_claims_make_only_the_bare_name_ambiguous(sqrt):
    with registered(plugin_with(root=Reference("math:cbrt")), "other"):
        message = "Write 'acme:root' or 'other:root'"
        with pytest.raises(prune_core.AmbiguousNameError, match=message):
            prune_core.get_pruner("root")
        assert prune_core.get_pruner("acme:root")(8.0) != prune_core.get_pruner("other:root")(8.0)


def test_one_name_for_two_frameworks_means_torch_unless_said():
    torch_like, keras_like = Reference("math:sqrt"), Reference("math:exp", framework="keras")
    with (
        registered(plugin_with(both=torch_like), "a"),
        registered(plugin_with(both=keras_like), "b"),
    ):
        assert get_entry("pruner", "both").reference is torch_like
        assert get_entry("pruner", "both", "keras").reference is keras_like
        with pytest.raises(prune_core.UnknownNameError, match="exists for keras, torch, not for"):
            get_entry("pruner", "both", "jax")


def test_a_reference_to_a_missing_attribute_names_plugin_and_close_match():
    with (
        registered(plugin_with(root=Reference("math:sqr")), "acme"),
        pytest.raises(prune_core.PluginError, match=r"acme 0 cannot be imported.*mean 'sqrt'"),
    ):
        prune_core.get_pruner("root")


def test_parts_are_found_by_kind():
    class Hooks:
        @hookimpl
        def prune_register_parts(self):
            return {"metric": {"root": Reference("math:sqrt")}}

    with registered(Hooks(), "acme"):
        assert prune_core.get_part("metric", "root")(4.0) == 2.0
        with pytest.raises(prune_core.UnknownNameError, match="There is no allocator 'root'"):
            prune_core.get_part("allocator", "root")


def test_a_module_serves_as_well_as_an_object():
    @hookimpl
    def prune_register_pruners():
        return {"root": Reference("math:sqrt")}

    module = SimpleNamespace(prune_register_pruners=prune_register_pruners)
    with registered(module, "acme"):
        assert prune_core.get_pruner("acme:root")(1.0) == 1.0


@pytest.mark.parametrize("target", ["math", "math:", ":sqrt", "a b:c", "math:sq rt", "a..b:c"])
def test_a_malformed_target_is_refused(target):
    with pytest.raises(
        prune_core.PluginError, match=r"not of the form 'package\.module:attribute'"
    ):
        Reference(target)


def test_a_kind_that_does_not_exist_is_refused():
    with pytest.raises(prune_core.UnknownNameError, match=r"no kind 'pruners'.*mean 'pruner'\?"):
        prune_core.entries("pruners")


def test_without_a_kind_a_pruner_comes_first():
    class Both:
        @hookimpl
        def prune_register_pruners(self):
            return {"of_both_kinds": Reference("math:sqrt")}

        @hookimpl
        def prune_register_schedules(self):
            return {"of_both_kinds": Reference("math:sin"), "a_curve": Reference("math:cos")}

    with registered(Both(), "acme"):
        assert get_entry(None, "of_both_kinds").kind == "pruner"
        assert get_entry(None, "a_curve").kind == "schedule"
        with pytest.raises(
            prune_core.UnknownNameError, match="no pruner, quantizer, schedule or part 'qubic'"
        ):
            get_entry(None, "qubic")
