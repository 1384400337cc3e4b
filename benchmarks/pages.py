"""Measure, and write the pages that show it: `tox run -e bench -- real-models`.

    python benchmarks/pages.py list
    python benchmarks/pages.py real-models
    python benchmarks/pages.py --no-measuring real-models

A page consists of nothing but what its script prints of a file of results, so that no number on it
is typed by hand. Results that are there are not measured again: delete the file to begin anew.
`--no-measuring` only writes the page again.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]


class Page(NamedTuple):
    """A page, and the scripts that make it, with their arguments.

    Attributes:
        measure: Adds to the results.
        write: Prints the page.
        takes: What to expect of the time.
    """

    measure: tuple[str, ...]
    write: tuple[str, ...]
    takes: str


EXPORTS, CONFIGS = "benchmarks/exports.jsonl", "benchmarks/zoo/configs.jsonl"
ZOO = "benchmarks/zoo/zoo.jsonl"
REAL, QUANTISED = "benchmarks/real/results.jsonl", "benchmarks/real/quantised.jsonl"
WHOLE = "benchmarks/whole_call.jsonl"
PAGES = {
    "whole-call": Page(
        ("benchmarks/whole_call.py", "--results", WHOLE),
        ("benchmarks/whole_call.py", "--results", WHOLE, "--page"),
        "half an hour",
    ),
    "real-models": Page(
        ("benchmarks/real/run.py", "--steps", "25", "--results", REAL),
        ("benchmarks/real/page.py", REAL),
        "hours",
    ),
    "quantised-models": Page(
        ("benchmarks/real/quantise.py", "--results", QUANTISED),
        ("benchmarks/real/quantised_page.py", QUANTISED),
        "an hour",
    ),
    "exports": Page(
        ("benchmarks/exports.py", "--results", EXPORTS),
        ("benchmarks/exports.py", "--results", EXPORTS, "--page"),
        "minutes",
    ),
    "configs": Page(
        ("benchmarks/zoo/configs.py", "--results", CONFIGS),
        ("benchmarks/zoo/configs.py", "--results", CONFIGS, "--page"),
        "an hour",
    ),
    "speedup-zoo": Page(
        ("benchmarks/zoo/run.py", "--seconds", "1500", "--results", ZOO),
        ("benchmarks/zoo/run.py", "--results", ZOO, "--page"),
        "hours",
    ),
}


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="+", choices=["list", *PAGES], metavar="PAGE")
    parser.add_argument("--no-measuring", action="store_true", help="only write the pages again")
    options = parser.parse_args()
    if "list" in options.pages:
        for name, page in PAGES.items():
            print(f"{name}: docs/{name}.md, in {page.takes}")
        return
    for name in options.pages:
        page = PAGES[name]
        if not options.no_measuring:
            subprocess.run([sys.executable, *page.measure], cwd=ROOT, check=True)
        (ROOT / f"docs/{name}.md").write_text(text_of(page), encoding="utf-8")
        print(f"Wrote docs/{name}.md.")


def text_of(page: Page) -> str:
    """Return the page, made of the results that are there."""
    command = [sys.executable, *page.write]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout


if __name__ == "__main__":
    main()
