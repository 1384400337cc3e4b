"""The pages of the gallery are what their scripts print and draw today."""

import ast
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from scripts import gallery

ROOT = Path(__file__).resolve().parents[2]
NAV = (ROOT / "mkdocs.yml").read_text()
OVERVIEW = (ROOT / "docs/gallery.md").read_text()


def missing(script):
    """Return what a script imports and what is not installed here."""
    found = set()
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module.partition(".")[0])
    if "keras" in found:
        found.add("tensorflow")
    return sorted(name for name in found - sys.stdlib_module_names if find_spec(name) is None)


@pytest.mark.parametrize("name", gallery.SCRIPTS)
def test_a_page_shows_what_its_script_prints(name):
    if lacks := missing(gallery.EXAMPLES / f"{name}.py"):
        pytest.skip(f"needs {', '.join(lacks)}")
    made, page = gallery.made(name), (gallery.PAGES / f"{name}.md").read_text()
    assert gallery.alike(page, made), f"python scripts/gallery.py {name} writes the page anew"
    assert made.count("<svg") == page.count("<svg")


@pytest.mark.parametrize("name", gallery.SCRIPTS)
def test_a_page_is_found(name):
    assert f"gallery/{name}.md" in NAV
    assert f"gallery/{name}.md" in OVERVIEW


def test_every_page_has_a_script():
    assert {page.stem for page in gallery.PAGES.glob("*.md")} == set(gallery.SCRIPTS)


@pytest.mark.parametrize("page", sorted(gallery.PAGES.glob("*.md")), ids=lambda page: page.stem)
def test_pictures_take_their_ink_from_the_page_and_say_what_they_are(page):
    for svg in re.findall(r"<svg.*?</svg>", page.read_text(), re.DOTALL):
        assert re.match(r'<svg viewBox="[^"]+" role="img" aria-label="[^"]+"', svg)
        assert "currentColor" in svg
        assert gallery.INK not in svg


def test_a_failing_script_is_an_error_that_points_at_its_line(tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text('"""A title."""\n\n# %%\n# Words.\n\nprint(1 / 0)\n')
    script = gallery.read((tmp_path / "broken.py").read_text())
    with pytest.raises(ZeroDivisionError) as raised:
        gallery.run(script, "broken")
    assert raised.traceback[-1].lineno == 5  # counted from zero
