"""Signatures, docstrings and config keys are read from source; nothing is imported."""

import sys
from textwrap import dedent

import pytest

from prune_core import Reference
from prune_core.cli.definitions import _body, _spec
from prune_core.cli.describe import Description, describe

BOOM = "raise RuntimeError('imported')\n"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A function that writes the modules of a package `sourced`, which refuse to be imported."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "sourced").mkdir()

    def write(**modules):
        for name, text in {"__init__": "", **modules}.items():
            (tmp_path / "sourced" / f"{name}.py").write_text(BOOM + dedent(text))
        _spec.cache_clear()
        _body.cache_clear()

    yield write
    assert "sourced" not in sys.modules
    _spec.cache_clear()
    _body.cache_clear()


def told(target):
    return describe(Reference(target))


def test_a_function(package):
    package(curves="def half(progress: float, *, late=True) -> float:\n    return 0.5\n")
    assert told("sourced.curves:half").signature == "half(progress: float, *, late=True) -> float"


def test_a_class_with_its_own_init(package):
    package(norm="class Norm:\n    def __init__(self, model, /, p=2, *rest, q, **more): ...\n")
    assert told("sourced.norm:Norm").signature == "Norm(model, /, p=2, *rest, q, **more)"


def test_an_init_that_is_inherited_across_modules(package):
    package(
        __init__="""
            from typing import TYPE_CHECKING
            if TYPE_CHECKING:
                from .base import Base
        """,
        base="class Root:\n    def __init__(self, model): ...\nclass Base(Root): ...\n",
        norm="from sourced import Base as Parent\nclass Norm(Parent['x']): ...\n",
    )
    assert told("sourced.norm:Norm").signature == "Norm(model)"


def test_a_base_in_a_dotted_module(package):
    package(
        base="class Base:\n    def __init__(self, model): ...\n",
        norm="import sourced.base\nclass Norm(sourced.base.Base): ...\n",
    )
    assert told("sourced.norm:Norm").signature == "Norm(model)"


def test_a_name_that_a_package_re_exports_from_a_star(package):
    package(__init__="from sourced.norm import *", norm="class Norm:\n    'Words.'\n")
    assert told("sourced:Norm") == Description("Norm()", "Words.")


def test_a_dataclass(package):
    package(
        linear="""
            from dataclasses import dataclass
            @dataclass(frozen=True)
            class Linear:
                steps: int
                begin: float = 0.0
        """
    )
    assert told("sourced.linear:Linear").signature == "Linear(steps: int, begin: float = 0.0)"


def test_a_nested_class(package):
    package(norm="class Outer:\n    class Inner:\n        'Words.'\n")
    assert told("sourced.norm:Outer.Inner").documentation == "Words."
    assert told("sourced.norm:Outer.Other") == Description()


def test_the_example_is_taken_out_of_the_docstring(package):
    package(
        norm='''
            class Norm:
                """Do it.

                Example:
                    >>> Norm()

                    and more

                Attributes:
                    p: The norm.
                """
        '''
    )
    description = told("sourced.norm:Norm")
    assert description.example == ">>> Norm()\n\nand more"
    assert description.documentation == "Do it.\n\nAttributes:\n    p: The norm."


@pytest.mark.parametrize(
    ("literal", "keys"),
    [
        ("{'a': 'What a means.'}", {"a": "What a means."}),
        ("('a', 'rho')", {"a": "", "rho": "Weight of the penalty term of ADMM."}),
        ("['a', Key('b', rule, 'What b means.')]", {"a": "", "b": "What b means."}),
        ("(Key('b', rule=check, meaning='What b means.'),)", {"b": "What b means."}),
        ("compute()", {}),
    ],
)
def test_config_keys_are_read_when_they_are_literal(package, literal, keys):
    package(norm=f"class Base:\n    config_keys = {literal}\nclass Norm(Base): ...\n")
    assert told("sourced.norm:Norm").config_keys == keys


@pytest.mark.parametrize(
    "target", ["math:sqrt", "no_such_module_at_all:x", "sourced.norm:x", "sourced.gone:x"]
)
def test_what_has_no_source_gives_an_empty_answer(package, target):
    package(norm="")
    assert told(target) == Description()


def test_a_circle_of_imports_ends(package):
    package(one="from sourced.two import x", two="from sourced.one import x")
    assert told("sourced.one:x") == Description()


def test_a_class_that_derives_from_an_imported_namesake(package):
    package(
        base="class Norm:\n    def __init__(self, p): ...\n",
        norm="from sourced import base\nclass Norm(base.Norm): ...\n",
    )
    assert told("sourced.norm:Norm").signature == "Norm(p)"


def test_capabilities_are_those_of_the_class_that_python_asks_first(package):
    """Of two bases, what both derive from speaks last, as in the order of Python."""
    package(
        base="class Root:\n    granularity: str = 'weights'\n    needs_data = False\n",
        data="from sourced.base import Root\nclass Data(Root):\n    needs_data = True\n",
        channels="""
            from sourced.base import Root
            class Channels(Root):
                granularity = 'channels'
        """,
        taylor="""
            from sourced.data import Data
            from sourced.channels import Channels
            class Taylor(Data, Channels):
                modes = ("normal",)
        """,
    )
    assert told("sourced.taylor:Taylor").capabilities == {
        "granularity": "channels",
        "modes": ("normal",),
        "needs_data": True,
    }
