"""Pages of the gallery, made by running the scripts in `examples/`: `python scripts/gallery.py`.

A script begins with a docstring: its title, a blank line, and what it is about. A line `# %%`
begins a cell, as in editors; the comment lines after it are Markdown. Its page in `docs/gallery/`
shows the cells, what each prints, and the figures of matplotlib that it leaves, as inline SVG.

    python scripts/gallery.py              # all pages
    python scripts/gallery.py vit_heads    # one
"""

import argparse
import ast
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import textwrap
import types
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
PAGES = ROOT / "docs/gallery"
SCRIPTS = (
    "quickstart",
    "custom_plugin",
    "vit_heads",
    "small_gpt",
    "mixture_of_experts",
    "distill",
    "onnx_latency",
    "keras_quickstart",
)
INK = "#010203"  # becomes the colour of the text around the figure
_TIMES = re.compile(r"^.* ms(?:/\w+)?\n(?:.+\n)+", re.M)
"""A table whose last column is of times."""

_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")


@dataclass(frozen=True)
class Cell:
    """A part of a script.

    Attributes:
        words: Markdown that goes before the code.
        code: Python.
        line: Where the code begins in the script.
    """

    words: str
    code: str
    line: int = 1


@dataclass(frozen=True)
class Script:
    """An example, read and not run.

    Attributes:
        title: The first line of its docstring.
        intro: The rest of it.
        cells: The code.
    """

    title: str
    intro: str
    cells: tuple[Cell, ...]


def read(text: str) -> Script:
    r"""Take a script apart.

    Args:
        text: What is in its file.

    >>> script = read('''"\""A title.
    ...
    ... An introduction.
    ... "\""
    ...
    ... a = 1
    ... # %%
    ... # In words.
    ... b = 2
    ... ''')
    >>> script.title, script.intro
    ('A title', 'An introduction.')
    >>> [(cell.words, cell.code) for cell in script.cells]
    [('', 'a = 1'), ('In words.', 'b = 2')]
    """
    docstring = ast.get_docstring(ast.parse(text)) or ""
    title, _, intro = docstring.partition("\n")
    lines = text.splitlines()
    first = ast.parse(text).body[0].end_lineno or 0
    starts = [first, *(at for at, line in enumerate(lines) if line == "# %%"), len(lines)]
    cells = []
    for begin, end in pairwise(starts):
        at = begin + (lines[begin : begin + 1] == ["# %%"])
        words = []
        while begin > first and at < end and lines[at].startswith("#"):
            words.append(lines[at].removeprefix("#").removeprefix(" "))
            at += 1
        code = "\n".join(lines[at:end])
        skipped = len(code) - len(code.lstrip("\n"))
        if words or code.strip():
            cells.append(Cell("\n".join(words), code.strip("\n"), at + 1 + skipped))
    return Script(title.rstrip("."), intro.strip(), tuple(cells))


def run(script: Script, name: str) -> list[tuple[str, list[str]]]:
    """Run a script in this process, and return what each cell printed and drew.

    Args:
        script: What to run.
        name: The name of its file.
    """
    if any("matplotlib" in cell.code for cell in script.cells):
        _prepare_figures()
    module = types.ModuleType("__main__")
    results = []
    mine = sys.modules["__main__"]
    sys.modules["__main__"] = module  # where dataclasses and plugins look for what a script defines
    try:
        for cell in script.cells:
            printed = io.StringIO()
            # Errors point at the line of the script.
            code = compile("\n" * (cell.line - 1) + cell.code, f"examples/{name}.py", "exec")
            with contextlib.redirect_stdout(printed):
                exec(code, module.__dict__)
            results.append((printed.getvalue().rstrip(), _figures(name)))
    finally:
        sys.modules["__main__"] = mine
    return results


def _prepare_figures() -> None:
    """Draw in the ink of the page, and leave figures open where a script shows them."""
    import matplotlib as mpl
    from matplotlib import pyplot

    roles = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    settings: dict[Any, Any] = dict.fromkeys(roles, INK)
    settings |= {"figure.figsize": (6, 3), "legend.frameon": False}
    settings |= {"axes.spines.top": False, "axes.spines.right": False}
    mpl.rcParams.update(settings)
    pyplot.show = lambda *_, **__: None


def _figures(name: str) -> list[str]:
    """Return the open figures of matplotlib as SVG, and close them."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:
        return []
    import matplotlib as mpl

    drawn = []
    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "savefig.transparent": True,
    }
    with mpl.rc_context(settings):
        for number in pyplot.get_fignums():
            file = io.StringIO()
            figure = pyplot.figure(number)
            figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None})
            label = "; ".join(
                filter(None, (f"{a.get_ylabel()} by {a.get_xlabel()}" for a in figure.axes))
            )
            drawn.append(_inline(file.getvalue(), label))
            pyplot.close(figure)
    return drawn


def _inline(svg: str, label: str) -> str:
    """Make of a file of SVG an element that takes its size and its ink from the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    size = re.search(r'viewBox="([^"]+)"', svg)
    assert size is not None
    svg = re.sub(
        r"<svg [^>]*>",
        f'<svg viewBox="{size[1]}" role="img" aria-label="{label}" '
        'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">',
        svg,
        count=1,
    )
    svg = svg.replace(INK, "currentColor")
    return "\n".join(line for line in svg.splitlines() if line.strip())


def page(script: Script, name: str, results: list[tuple[str, list[str]]]) -> str:
    """Return the Markdown of a page.

    Args:
        script: What was run.
        name: The name of its file.
        results: What `run` returned.
    """
    parts = [f"<!-- Made by scripts/gallery.py from examples/{name}.py. -->", f"# {script.title}"]
    parts += [script.intro] if script.intro else []
    for cell, (printed, figures) in zip(script.cells, results, strict=True):
        parts += [cell.words] if cell.words else []
        parts += [f"```python\n{cell.code}\n```"] if cell.code else []
        parts += [f'```text title="It prints"\n{printed}\n```'] if printed else []
        parts += [f'<figure class="plot" markdown="0">\n{svg}\n</figure>' for svg in figures]
    parts.append(f"The whole script is `examples/{name}.py`.")
    return "\n\n".join(parts) + "\n"


def made(name: str) -> str:
    """Run an example in a process of its own, and return its page.

    Args:
        name: The script, without its folder and ending.
    """
    with tempfile.TemporaryDirectory() as folder:
        # Python complains of the escapes in other people's source when it first compiles it.
        warnings = ["-W", "error", "-W", "ignore:invalid escape sequence"]
        done = subprocess.run(
            [sys.executable, *warnings, Path(__file__).resolve(), "--run", name],
            cwd=folder,
            env={**os.environ, "MPLBACKEND": "agg", "MPLCONFIGDIR": folder},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"examples/{name}.py failed:\n{textwrap.indent(done.stderr, '  ')}")
    results = json.loads(done.stdout.splitlines()[-1])
    return page(read((EXAMPLES / f"{name}.py").read_text()), name, results)


def _without_times(table: re.Match[str]) -> str:
    return re.sub(r"[\d.]+$", "?", table[0], flags=re.M)


def alike(one: str, other: str) -> bool:
    r"""Whether two pages say the same, but for times, and for what another processor has learned.

    Each rounds in its own way, and a hundred steps of training make of that what can be seen.

    Args:
        one: A page.
        other: Another one.

    >>> alike("loss 1.90, 20 ms", "loss 1.91, 90 ms"), alike("loss 1.9", "loss 2.5")
    (True, False)
    >>> alike("loss 1.9", "error 1.9")
    False
    >>> alike("  loss  ms/batch\n  1.9  20.1\n", "  loss  ms/batch\n  1.9  91.7\n")
    True
    """
    texts = [
        re.sub(r"<figure.*?</figure>", "<figure>", text, flags=re.DOTALL) for text in (one, other)
    ]
    texts = [re.sub(r"\d[\d.,]* (?=(?:ms|s|times)\b)", "? ", text) for text in texts]
    texts = [
        _TIMES.sub(lambda table: re.sub(r"[\d.]+$", "?", table[0], flags=re.M), t) for t in texts
    ]
    words = [_NUMBER.sub("#", text).split() for text in texts]
    numbers = [[float(n.replace(",", "")) for n in _NUMBER.findall(text)] for text in texts]
    return words[0] == words[1] and all(
        abs(a - b) <= max(0.03, 0.25 * abs(a)) for a, b in zip(*numbers, strict=True)
    )


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="examples; by default all of them")
    parser.add_argument("--run", metavar="NAME", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        results = run(read((EXAMPLES / f"{options.run}.py").read_text()), options.run)
        print(json.dumps(results))
        return
    for name in options.names or SCRIPTS:
        (PAGES / f"{name}.md").write_text(made(name), encoding="utf-8")
        print(f"Wrote docs/gallery/{name}.md.")


if __name__ == "__main__":
    main()
