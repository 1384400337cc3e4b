"""What pages of the site are given while it is built: news that waits, rows of tables, a link.

mkdocs calls `on_config` once, and `on_page_markdown` for every page (`hooks:` in mkdocs.yml).
Nothing that is written down elsewhere is copied by hand:

* the link to the repository, at the top of each page, is that of the clone which the site is built
  from;
* a page of `history/` begins with the news of the next release, from `changelog.d/`;
* `<!-- trained models: l1, l2 -->` becomes the rows of `real-models.md` about these algorithms.
"""

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
KINDS = {"removal": "Removed", "feature": "New", "bugfix": "Fixed", "doc": "Documentation"}
MARKER = re.compile(r"^<!-- trained models: ([\w, ]+) -->$", re.MULTILINE)


def on_config(config: Any) -> Any:
    """Link to the repository that the site is built from, if it is known."""
    if address := repository():
        config.repo_url = address
        config.repo_name = "/".join(address.rsplit("/", 2)[1:])
    return config


def repository() -> str:
    """Return the address of the repository: that of a workflow on GitHub, or of `origin`."""
    server, name = (os.environ.get(f"GITHUB_{key}") for key in ("SERVER_URL", "REPOSITORY"))
    if server and name:
        return f"{server}/{name}"
    done = subprocess.run(
        ["git", "remote", "get-url", "origin"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return web_address(done.stdout.strip()) if done.returncode == 0 else ""


def web_address(remote: str) -> str:
    """Return where a remote of git is read in a browser, or nothing if it is no address.

    Args:
        remote: What `git remote get-url` prints.

    >>> web_address("git@github.com:someone/prune.git")
    'https://github.com/someone/prune'
    >>> web_address("https://someone:secret@example.org/x/prune.git")
    'https://example.org/x/prune'
    >>> web_address("/srv/git/prune")
    ''
    """
    found = re.fullmatch(
        r"(?:https?://|ssh://|git://)?(?:[^@/]+@)?([\w.-]+\.\w+)(?::\d+)?[:/](.+?)(?:\.git)?/?",
        remote,
    )
    return f"https://{found[1]}/{found[2]}" if found else ""


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Complete the Markdown of one page."""
    source = Path(page.file.src_uri)
    if source.parent.name == "history":
        markdown += "\n" + waiting_news(ROOT / "packages" / source.stem / "changelog.d")
    return MARKER.sub(lambda marker: trained_models(marker[1].split(", ")), markdown)


def waiting_news(folder: Path) -> str:
    """Return what the next release of a package will say of itself."""
    sections = []
    for kind, title in KINDS.items():
        texts = [file.read_text().strip() for file in sorted(folder.glob(f"*.{kind}.md"))]
        if texts:
            items = "\n".join("* " + text.replace("\n", "\n  ") for text in texts)
            sections.append(f"### {title}\n\n{items}\n")
    return "\n".join(["## Not released yet\n", *sections]) if sections else ""


@dataclass(frozen=True)
class Measured:
    """A row of a table of trained models.

    Attributes:
        model: The heading of its table.
        whole: What the whole model is worth.
        method: What pruned it.
        values: The other cells, by the heading of their column.
    """

    model: str
    whole: str
    method: str
    values: dict[str, str]

    def is_of(self, algorithm: str) -> bool:
        """Whether an algorithm of this name made the masks.

        >>> Measured("", "", "l1 and least squares", {}).is_of("l1")
        True
        >>> Measured("", "", "Torch-Pruning, Taylor", {}).is_of("taylorfo")
        False
        """
        return re.split(r",| and ", self.method)[0].strip(" `*") == algorithm


def measured(text: str) -> Iterator[Measured]:
    """Yield all rows of the tables whose first column is `method`."""
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        whole = re.search(r"\*\*The whole model has (\d+(?:\.\d+)?)", section)
        rows = [_cells(line) for line in section.splitlines() if line.startswith("|")]
        if not rows or rows[0][0] != "method":
            continue
        for row in rows[2:]:
            values = dict(zip(rows[0][1:], row[1:], strict=True))
            yield Measured(
                section.splitlines()[0], whole[1] if whole else "", row[0].strip("*"), values
            )


def trained_models(algorithms: list[str], text: str | None = None) -> str:
    """Return the rows about some algorithms as a table of their own.

    Args:
        algorithms: Their registered names.
        text: The page with all tables; by default the one of the site.
    """
    text = (ROOT / "docs/real-models.md").read_text() if text is None else text
    rows = [row for row in measured(text) if any(map(row.is_of, algorithms))]
    if not rows:
        return "No trained model was pruned with it yet."
    columns = [name for name in ("FLOPs", "pruned", "trained again") if name in rows[0].values]
    lines = [
        f"| model | method | {' | '.join(columns)} | whole model |",
        f"| --- | --- |{' --: |' * (len(columns) + 1)}",
    ]
    for row in rows:
        cells = " | ".join(row.values.get(name, "") for name in columns)
        lines.append(f"| {row.model} | {row.method} | {cells} | {row.whole} |")
    return "\n".join(lines)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]
