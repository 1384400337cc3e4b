"""Noting what a model is called with, and what some of its layers return."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from prune_core.errors import ConfigError, nearest
from prune_core.masking.watcher import Watcher
from prune_recover.batches import tensor_in

__all__ = ["Notes"]


class Notes:
    """Notes the last call of a model, and what layers returned in it.

    A layer may run several times in one call, as that of an ALBERT does; all its outputs are
    noted, in their order.

    Args:
        model: The model.
        layers: The names of the layers.
        role: What the model is called in messages.

    Attributes:
        inputs: `(args, kwargs)` of the last call, or None.
        answer: What the model returned.
        outputs: What each layer returned in it.
    """

    def __init__(self, model: nn.Module, layers: Iterable[str], role: str) -> None:
        self.inputs: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self.answer: Any = None
        self.outputs: dict[str, list[Tensor]] = {}
        named = dict(model.named_modules())
        layers = list(dict.fromkeys(layers))
        for name in layers:
            if name not in named:
                known = [other for other in named if other]
                raise ConfigError(
                    f"hidden names {name!r}, and the {role} has no such layer."
                    f"{nearest(name, known)}"
                )

        def begin(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.inputs, self.answer, self.outputs = (args, kwargs), None, {}

        def end(module: nn.Module, args: Any, output: Any) -> None:
            self.answer = output

        self._handles: list[RemovableHandle] = [
            model.register_forward_pre_hook(Watcher(begin, model), with_kwargs=True),
            model.register_forward_hook(Watcher(end, model)),
        ]
        for name in layers:
            self._handles.append(self._watch(name, named[name]))

    def _watch(self, name: str, layer: nn.Module) -> RemovableHandle:
        def note(module: nn.Module, args: Any, output: Any) -> None:
            found = tensor_in(output)
            if found is not None:
                self.outputs.setdefault(name, []).append(found)

        return layer.register_forward_hook(Watcher(note, layer))

    def take(self) -> tuple[tuple[tuple[Any, ...], dict[str, Any]] | None, dict[str, list[Tensor]]]:
        """Return what was noted, and forget it: it holds a graph of gradients."""
        noted = self.inputs, self.outputs
        self.inputs, self.answer, self.outputs = None, None, {}
        return noted

    def remove(self) -> None:
        """Stop noting."""
        for handle in self._handles:
            handle.remove()
        self.take()
