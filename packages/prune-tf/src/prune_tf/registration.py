"""Have Keras know the classes that files of masked models name, as soon as there is Keras.

Whoever loads such a model imports prune_tf before or after keras. Importing Keras from here would
take seconds, also of those who only list what is installed, so it is waited for.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

__all__ = ["register_with_keras"]


def register_with_keras() -> None:
    """Register what can be in a file: now if Keras is imported, or else once it is."""
    if "keras" in sys.modules:
        import_module("prune_tf.carrier")
    else:
        sys.meta_path.insert(0, _AfterKeras())


class _AfterKeras:
    """Sees that Keras is being imported, and has the rest follow."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "keras":
            return None
        from importlib.util import find_spec  # slow to import, and who only lists needs it not

        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def run_and_register(module: ModuleType) -> None:
            run(module)
            import_module("prune_tf.carrier")

        spec.loader.exec_module = run_and_register  # type: ignore[method-assign]
        return spec
