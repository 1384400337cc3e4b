"""What the site is given while it is built: news that waits for a release, rows of tables."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from scripts import docs_pages

ROOT = Path(__file__).resolve().parents[2]
TABLE = """\
# Trained models

## A: 50 % of the FLOPs

**The whole model has 0.983.**

| method | seeds | FLOPs | pruned | trained again |
| --- | --: | --: | --: | --: |
| l1 | 2 | 49% | 0.3 | 0.7 |
| l1 and least squares | 2 | 49% | 0.4 | 0.8 |
| l12 | 2 | 49% | 0.5 | 0.9 |
"""


def test_rows_of_an_algorithm_and_of_no_other():
    assert docs_pages.trained_models(["l1"], TABLE).splitlines()[2:] == [
        "| A: 50 % of the FLOPs | l1 | 49% | 0.3 | 0.7 | 0.983 |",
        "| A: 50 % of the FLOPs | l1 and least squares | 49% | 0.4 | 0.8 | 0.983 |",
    ]
    assert docs_pages.trained_models(["fpgm"], TABLE) == "No trained model was pruned with it yet."


def test_the_table_of_the_site_is_read():
    assert docs_pages.trained_models(["l1"]).count("| l1 |") >= 1


def test_news_that_wait_are_on_the_page(tmp_path, monkeypatch):
    folder = tmp_path / "packages/prune-x/changelog.d"
    folder.mkdir(parents=True)
    (folder / "+a.feature.md").write_text("It does\nmore.\n")
    (folder / "+b.bugfix.md").write_text("It is right.\n")
    monkeypatch.setattr(docs_pages, "ROOT", tmp_path)
    page = SimpleNamespace(file=SimpleNamespace(src_uri="history/prune-x.md"))
    text = docs_pages.on_page_markdown("# History\n", page=page)
    assert "### New\n\n* It does\n  more.\n" in text
    assert text.index("It does") < text.index("### Fixed") < text.index("It is right.")
    page.file.src_uri = "guides/prune-x.md"
    assert docs_pages.on_page_markdown("# Guide\n", page=page) == "# Guide\n"


def test_the_link_to_the_repository_is_that_of_where_the_site_is_built(monkeypatch):
    config = SimpleNamespace(repo_url=None)
    monkeypatch.setenv("GITHUB_SERVER_URL", "https://github.com")
    monkeypatch.setenv("GITHUB_REPOSITORY", "someone/prune")
    docs_pages.on_config(config)
    assert (config.repo_url, config.repo_name) == (
        "https://github.com/someone/prune",
        "someone/prune",
    )


def test_there_is_no_link_where_no_repository_is_known(monkeypatch, tmp_path):
    config = SimpleNamespace(repo_url=None)
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    monkeypatch.setattr(docs_pages, "ROOT", tmp_path)
    assert docs_pages.on_config(config).repo_url is None


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.name)
def test_markers_name_algorithms_of_the_page(page):
    text = page.read_text()
    for names in docs_pages.MARKER.findall(text):
        for name in names.split(", "):
            assert re.search(rf"^Names?: .*`{name}`|^Name: `{name}`", text, re.MULTILINE), name
