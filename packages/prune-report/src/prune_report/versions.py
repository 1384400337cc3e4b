"""Which versions a result was made with."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

__all__ = ["versions_in_use"]

OTHERS = ("torch", "tensorflow", "keras", "transformers", "timm", "torchvision", "numpy")


def versions_in_use() -> dict[str, str]:
    """Return the versions of Python, of prune, and of those libraries that are loaded."""
    found = {"python": platform.python_version()}
    loaded = [name.partition(".") for name in sys.modules if name.startswith("prune_")]
    # A plugin that took no part is known by its hooks alone.
    used = {package for package, _, rest in loaded if rest not in ("", "hooks", "__about__")}
    for name in sorted(used):
        distribution = name.replace("_", "-")
        found[distribution] = _version(distribution)
    for name in OTHERS:
        if name in sys.modules:
            found[name] = str(getattr(sys.modules[name], "__version__", _version(name)))
    return {name: said for name, said in found.items() if said}


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""
