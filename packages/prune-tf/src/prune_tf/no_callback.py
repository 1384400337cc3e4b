"""What is given to `fit` as a callback and is none says what to write instead."""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn

from prune_core.errors import ConfigError

__all__ = ["NoCallback"]


class NoCallback:
    """Refuses to be a callback of `fit`, wherever a backend of Keras first looks at one."""

    instead: ClassVar[str] = ""

    def set_model(self, model: Any) -> NoReturn:
        """Refuse.

        Args:
            model: What would be trained.
        """
        self._refuse()

    @property
    def on_batch_end(self) -> NoReturn:
        """Refuse."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ConfigError(f"{type(self).__name__} is no callback{self.instead}")
