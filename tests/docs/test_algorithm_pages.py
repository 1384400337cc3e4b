"""Each registered criterion has its page; what is on the pages is run where all pages are."""

import re
from pathlib import Path

import pytest

from prune_core import entries

PAGES = Path(__file__).resolve().parents[2] / "docs" / "algorithms"
INDEX = (PAGES / "index.md").read_text()
CRITERIA = [e for e in entries("pruner") if e.plugin.distribution == "prune-filter"]


@pytest.mark.parametrize("entry", CRITERIA, ids=lambda entry: entry.name)
def test_the_table_leads_to_a_page_with_formula_example_and_paper(entry):
    [row] = re.findall(rf"^\|[^|\n]*`{entry.name}`[^|\n]*\|.*$", INDEX, re.MULTILINE)
    assert f"`{entry.load().__name__}`" in row
    [page] = re.findall(r"\]\((.+?\.md)\)", row)
    text = (PAGES / page).read_text()
    assert f"`{entry.name}`" in text
    assert re.search(r"^```text\n.*(score|ranks|loss)", text, re.MULTILINE)
    assert "```python" in text
    assert entry.reference.paper in text


def test_every_page_is_in_the_table():
    linked = set(re.findall(r"\]\(([^/]+?\.md)\)", INDEX))
    assert linked == {page.name for page in PAGES.glob("*.md")} - {"index.md"}
