"""Sizes that a forward works out for itself, corrected where it uses them.

Some forwards write `x.reshape(B, N, C)` with a `C` read off another tensor, or a number in the
source: no attribute holds it. A correction says: in the k-th call of this function during a run
of this module, these numbers are these. It lives in a pair of hooks on the module, so the model
stays the same Python model, pickles, and follows any batch size.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode

from prune_speedup.torch.record.call_sites import SIZED, Number, Site, short_name, with_numbers

__all__ = ["Corrections", "correct", "corrections_of"]

Sizes = dict[tuple[str, int], dict[int, Number]]


class Corrections:
    """The corrections of one module: `sizes[function, occurrence][position] = number`."""

    def __init__(self, sizes: Sizes) -> None:
        """Hold corrections; `register` puts them to work."""
        self.sizes = sizes
        self._running: list[TorchFunctionMode] = []

    def enter(self, module: nn.Module, args: Any) -> None:
        """Begin to correct, as the module begins to run."""
        mode = _Correcting(self.sizes)
        mode.__enter__()  # type: ignore[no-untyped-call]
        self._running.append(mode)

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        """Stop correcting, whether or not the module has failed."""
        if self._running:
            self._running.pop().__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def register(self, module: nn.Module) -> None:
        """Correct every run of this module from now on."""
        module.register_forward_pre_hook(self.enter)
        module.register_forward_hook(self.leave, always_call=True)

    def unregister(self, module: nn.Module) -> None:
        """Correct this module no longer."""
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key, hook in list(hooks.items()):
                if getattr(hook, "__self__", None) is self:
                    del hooks[key]
                    module._forward_hooks_always_called.pop(key, None)


class _Correcting(TorchFunctionMode):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self._sizes = sizes
        self._counts: Counter[str] = Counter()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name, kwargs = short_name(func), kwargs or {}
        if name in SIZED:
            correction = self._sizes.get((name, self._counts[name]))
            self._counts[name] += 1
            if correction is not None:
                args, kwargs = with_numbers(args, kwargs, correction)
        return func(*args, **kwargs)


def corrections_of(module: nn.Module) -> Corrections | None:
    """The corrections that a module already has."""
    for hook in module._forward_pre_hooks.values():
        owner = getattr(hook, "__self__", None)
        if isinstance(owner, Corrections):
            return owner
    return None


def correct(model: nn.Module, site: Site, numbers: Mapping[int, Number]) -> None:
    """Correct some numbers, told by their position, of one call of a module.

    Corrections already there are replaced, never changed: whoever keeps the module's hooks to go
    back to them goes back to the old numbers too.
    """
    module = model.get_submodule(site.module)
    found = corrections_of(module)
    sizes = {} if found is None else {call: dict(old) for call, old in found.sizes.items()}
    sizes.setdefault((site.function, site.occurrence), {}).update(numbers)
    if found is not None:
        found.unregister(module)
    Corrections(sizes).register(module)
