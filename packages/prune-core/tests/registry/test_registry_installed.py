"""Reading what is installed from the folders on `sys.path`."""

import sys

import pytest

import prune_core
from prune_core.registry import installed, refresh
from prune_core.registry.installed import installed_plugins

HOOKS = """
from prune_core import Reference, hookimpl

@hookimpl
def prune_register_pruners():
    return {"root": Reference("math:sqrt")}
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder on `sys.path` where distributions can be put."""
    monkeypatch.syspath_prepend(tmp_path)
    refresh()
    yield tmp_path
    refresh()


def put(site, folder, entry_points, metadata="Name: Acme.Prune\nVersion: 1.2\n"):
    (site / folder).mkdir(parents=True)
    (site / folder / "METADATA").write_text(metadata)
    (site / folder / "entry_points.txt").write_text(entry_points)


def found(name="Acme.Prune"):
    return [plugin for plugin in installed_plugins() if plugin.metadata.name == name]


ENTRY = "[console_scripts]\nx = y:z\n\n[prune_core.plugins]\n# ours\nacme = acme_hooks\n"


def test_a_plugin_is_found_with_its_metadata(site):
    put(site, "acme_prune-1.2.dist-info", ENTRY)
    (plugin,) = found()
    assert (plugin.name, plugin.value, plugin.metadata.version) == ("acme", "acme_hooks", "1.2")


def test_the_folder_of_an_old_develop_install_is_read_too(site):
    put(site, "Acme.Prune.egg-info", ENTRY)
    (site / "Acme.Prune.egg-info" / "METADATA").rename(site / "Acme.Prune.egg-info" / "PKG-INFO")
    assert len(found()) == 1


def test_the_first_on_the_path_hides_others_of_its_name(site, monkeypatch):
    put(site, "late/acme_prune-1.1.dist-info", ENTRY, "Name: Acme.Prune\nVersion: 1.1\n")
    put(site, "early/Acme.Prune-1.2.dist-info", ENTRY)
    monkeypatch.syspath_prepend(site / "late")
    monkeypatch.syspath_prepend(site / "early")
    assert [plugin.metadata.version for plugin in found()] == ["1.2"]


def test_other_groups_are_not_ours(site):
    put(site, "acme_prune-1.2.dist-info", "[prune_core.plugins_of_mine]\nacme = acme_hooks\n")
    assert not found()


def test_a_malformed_neighbour_costs_nothing(site):
    put(site, "acme_prune-1.2.dist-info", ENTRY)
    put(site, "broken-1.0.dist-info", "no section = here\n[[", "")
    (site / "undecodable-1.0.dist-info").mkdir()
    (site / "undecodable-1.0.dist-info" / "entry_points.txt").write_bytes(b"\xff\xfe\x00")
    assert len(found()) == 1


def test_importlib_metadata_answers_where_there_are_other_finders(site, monkeypatch):
    put(site, "acme_prune-1.2.dist-info", ENTRY)
    quick = installed_plugins()
    monkeypatch.setattr(installed, "_only_folders", lambda: False)
    assert installed_plugins() == quick


def test_an_archive_on_the_path_is_searched(site, tmp_path, monkeypatch):
    import zipfile

    archive = tmp_path / "bundle.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("acme_prune-1.2.dist-info/METADATA", "Name: Acme.Prune\nVersion: 1.2\n")
        file.writestr("acme_prune-1.2.dist-info/entry_points.txt", ENTRY)
    monkeypatch.setattr(sys, "path", [*sys.path, str(archive)])
    assert len(found()) == 1


def test_an_installed_plugin_answers_by_name(site):
    put(site, "acme_prune-1.2.dist-info", ENTRY)
    (site / "acme_hooks.py").write_text(HOOKS)
    assert prune_core.get_pruner("acme-prune:root")(4.0) == 2.0


def test_a_missing_attribute_of_the_entry_point_is_named(site):
    put(site, "acme_prune-1.2.dist-info", "[prune_core.plugins]\nacme = acme_none:hooks [cli]\n")
    (site / "acme_none.py").write_text("")
    with pytest.warns(prune_core.PluginWarning, match="'acme_none' has no attribute 'hooks'"):
        prune_core.plugins()


def test_an_unmet_requirement_keeps_the_module_from_being_imported(site):
    metadata = "Name: Acme.Prune\nVersion: 1.2\nRequires-Dist: prune-core[torch]<100,>=99\n"
    put(site, "acme_prune-1.2.dist-info", ENTRY.replace("acme_hooks", "acme_never"), metadata)
    (site / "acme_never.py").write_text(HOOKS)
    with pytest.warns(prune_core.PluginWarning, match=r"requires prune-core\[torch\]<100,>=99"):
        prune_core.plugins()
    assert "acme_never" not in sys.modules
