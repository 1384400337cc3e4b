"""Follow a model, and know which of its modules is running."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from prune_core.traversal import named_modules
from prune_speedup.torch.record.call_sites import Frame
from prune_speedup.torch.record.data_dependent import Decisions
from prune_speedup.torch.record.follower import Follower

__all__ = ["ModuleFollower"]


class ModuleFollower(Follower):  # type: ignore[no-untyped-call]
    """Goes along with every operator, and says in which module it is called.

    Attributes:
        reached: The name of the module that was running last.
    """

    def __init__(
        self, model: nn.Module, known: Callable[[Any], bool], decisions: Decisions | None = None
    ) -> None:
        """Learn the names of the model's modules; for the arguments, see `Follower`."""
        super().__init__(model, known, decisions)
        self.reached = ""
        self._modules = {id(module): name for name, module in named_modules(model)}
        self._frames = [Frame("")]

    @property
    def module(self) -> str:
        """The name of the innermost module that is running."""
        return self._frames[-1].module

    def once(self, example_inputs: Any) -> Any:
        """Run the model once, as it is, and return what it returned."""
        with self._watching_modules():
            return super().once(example_inputs)

    @contextmanager
    def _watching_modules(self) -> Iterator[None]:
        def enter(module: nn.Module, _: object) -> None:
            self._frames.append(Frame(self._modules.get(id(module), self.module)))
            self.reached = self.module

        def leave(module: nn.Module, _: object, output: object) -> None:
            self._frames.pop()
            # A module that fails is left with no output: then what was reached is to be known.
            if output is not None:
                self.reached = self.module

        handles = [
            register_module_forward_pre_hook(enter),
            register_module_forward_hook(leave, always_call=True),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
