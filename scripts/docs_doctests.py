"""Show the `>>>` examples of docstrings as code in the site.

Docstrings here hold examples as doctest reads them. Markdown would take `>>>` for a quotation and
`[0.5, 0.8]` for a link, so each example gets a fence before the page is rendered.
"""

import re
from typing import Any

import griffe

# from a line that begins with >>> to the next empty line, or the end
EXAMPLE = re.compile(r"(?:^[ ]*>>> .*$)(?:\n[ ]*\S.*$)*", re.MULTILINE)


def fenced(text: str) -> str:
    r"""Put a fence around every doctest example, indented as the example is.

    >>> print(fenced("It adds.\n\n>>> 1 + 1\n2").replace("\n", " | "))
    It adds. |  | ```pycon | >>> 1 + 1 | 2 | ```
    """

    def fence(example: re.Match[str]) -> str:
        indent = " " * (len(example[0]) - len(example[0].lstrip()))
        return f"{indent}```pycon\n{example[0]}\n{indent}```"

    return EXAMPLE.sub(fence, text)


class DoctestFences(griffe.Extension):
    """Called by mkdocstrings for everything that it documents."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Fence the examples of one docstring."""
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)
