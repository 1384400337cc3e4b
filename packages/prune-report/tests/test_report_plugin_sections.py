"""Sections that plugins add to the page."""

import sys
from types import ModuleType

import pytest

from prune_core import PluginWarning, Reference, hookimpl
from prune_core.registry import registered
from prune_report.html import element
from prune_report.whole_page import page


@pytest.fixture
def acme(monkeypatch):
    module = ModuleType("acme_report_plugin")
    module.title = lambda document: element("p", f"{len(document.layers)} layers", class_="acme")
    module.text = lambda document: "a < b"
    module.silent = lambda document: None
    module.broken = lambda document: 1 / 0
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module.__name__


def with_sections(**summaries):
    class Sections:
        @hookimpl
        def prune_register_report_sections(self):
            return {n: Reference(f"acme_report_plugin:{n}", s) for n, s in summaries.items()}

    return registered(Sections(), "acme")


def test_a_section_stands_behind_our_own_under_its_title(acme, full):
    with with_sections(title="What Acme says", text="Plain text"):
        html = page(full)
    assert f'<p class="acme">{len(full.layers)} layers</p>' in html
    assert "<p>a &lt; b</p>" in html
    assert html.count(">What Acme says<") == 2  # the contents, and the heading
    assert "What Acme says" not in page(full)


def test_one_that_has_nothing_to_say_is_left_out(acme, full):
    with with_sections(silent="Nothing"):
        assert "Nothing</h2>" not in page(full)


def test_one_that_fails_costs_no_more_than_itself(acme, full):
    own = page(full)
    with (
        with_sections(broken="Broken"),
        pytest.warns(PluginWarning, match="without the section 'broken' of acme: ZeroDivision"),
    ):
        assert page(full) == own
