"""A name for something that is imported when it is needed, and not before."""

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from prune_core.errors import PluginError, did_you_mean

__all__ = ["Reference"]


@dataclass(frozen=True, slots=True)
class Reference:
    """Where a registered object is, and what a listing says of it without importing it.

    Attributes:
        target: `"package.module:attribute"`; the attribute may be a submodule.
        summary: One sentence for `prune list`.
        prunes: What the algorithm removes, such as `"output channels"` or `"single weights"`.
        paper: Address of the paper that describes it.
        framework: `"torch"`, `"keras"`, or empty for what needs neither. Two algorithms may share
            a name when they serve different frameworks.

    Example:
        >>> Reference("math:sqrt").load()(9.0)
        3.0
    """

    target: str
    summary: str = ""
    prunes: str = ""
    paper: str = ""
    framework: str = "torch"

    def __post_init__(self) -> None:
        module, colon, attribute = self.target.partition(":")
        parts = [*module.split("."), *attribute.split(".")]
        if not (colon and all(part.isidentifier() for part in parts)):
            raise PluginError(
                f"Reference target {self.target!r} is not of the form 'package.module:attribute'."
            )

    @property
    def module(self) -> str:
        """The module part of the target."""
        return self.target.partition(":")[0]

    @property
    def attribute(self) -> str:
        """The attribute part of the target."""
        return self.target.partition(":")[2]

    def load(self) -> Any:
        """Import the module and return the object."""
        found: Any = import_module(self.module)
        for part in self.attribute.split("."):
            try:
                found = getattr(found, part)
            except AttributeError:
                if (submodule := _submodule(found, part)) is not None:
                    found = submodule
                    continue
                hint = did_you_mean(part, vars(found) if hasattr(found, "__dict__") else ())
                raise PluginError(
                    f"{self.target!r} names {part!r}, which {self.module!r} does not have.{hint}"
                ) from None
        return found


def _submodule(package: Any, name: str) -> ModuleType | None:
    """Import a module of a package that nothing has imported yet, as `from package import` does."""
    path = f"{package.__name__}.{name}" if hasattr(package, "__path__") else ""
    return import_module(path) if path and find_spec(path) is not None else None
