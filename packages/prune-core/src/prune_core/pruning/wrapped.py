"""A model with wrappers in it: putting them in and out, and the masks in force."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from prune_core.config.names import by_known_names
from prune_core.errors import ConfigError, MaskError, PruneError, did_you_mean
from prune_core.masking import (
    Masks,
    PrunerModuleWrapper,
    bare,
    replace_modules,
    unwrap,
    weight_name,
    wrappers_in,
)
from prune_core.masking.files import load_masks
from prune_core.registry import get_engine
from prune_core.traversal import modules_in, named_modules

__all__ = ["WrappedModel"]


class WrappedModel:
    """The half of a pruner that knows where its wrappers are, and what they mask.

    There are two kinds of them. Those of the config's targets are there from the first. Others
    come when masks are closed: a normalisation behind a masked convolution is no target, but its
    bias has to be zero where the convolution's channel is.
    """

    def __init__(self) -> None:
        self.bound_model: nn.Module = nn.Module()
        self._wrappers: dict[str, PrunerModuleWrapper] = {}
        self._closing: dict[str, PrunerModuleWrapper] = {}
        self._focus: frozenset[str] | None = None

    # --- in and out -----------------------------------------------------------------------

    @property
    def is_wrapped(self) -> bool:
        """Whether the wrappers are in the model now; `prune_core.unwrap` takes them out as well."""
        own = self._all_wrappers()
        return bool(own) and not {*own}.isdisjoint(modules_in(self.bound_model))

    def wrap(self) -> nn.Module:
        """Put the wrappers in, and return the model; nothing happens when they are in already.

        Values that unwrapping set to zero come back, except where training has changed them.
        """
        if self.is_wrapped:
            return self.bound_model
        if others := list(wrappers_in(self.bound_model)):
            raise PruneError(
                f"The model is wrapped by another pruner ({others[0]!r} among others). Unwrap it "
                "first, prune_core.unwrap(model)."
            )
        for wrapper in self._all_wrappers():
            wrapper.training = wrapper.module.training
            wrapper.restore_dense()
        replace_modules(self.bound_model, {w.module: w for w in self._all_wrappers()})
        return self.bound_model

    def unwrap(self) -> nn.Module:
        """Take the wrappers out, zeros where masks were, and return the model.

        Nothing happens when they are out already.
        """
        if self.is_wrapped:
            unwrap(self.bound_model, self._all_wrappers())
        return self.bound_model

    @contextmanager
    def plain(self) -> Iterator[nn.Module]:
        """Take the wrappers out for a moment, without touching any value.

        What comes is the model itself, also where `DataParallel` or `torch.compile` holds it.
        """
        wrapped: dict[nn.Module, nn.Module] = {w: w.module for w in self._all_wrappers()}
        was_wrapped = replace_modules(self.bound_model, wrapped)
        try:
            with bare(self.bound_model) as model:
                yield model
        finally:
            if was_wrapped:
                replace_modules(self.bound_model, {module: w for w, module in wrapped.items()})

    def _all_wrappers(self) -> list[PrunerModuleWrapper]:
        return [*self._wrappers.values(), *self._closing.values()]

    def hand_over(self) -> nn.Module:
        """Leave the wrappers to the model, and return it.

        Who has the model unwraps it for good: no copy is kept then of what masks have covered.
        """
        for wrapper in self._all_wrappers():
            wrapper.for_good = True
        return self.bound_model

    def clear_model_references(self) -> None:
        """Let go of the model, for example to free its memory."""
        self.bound_model = nn.Module()
        self._wrappers, self._closing = {}, {}

    # --- which of them -------------------------------------------------------------------

    def get_modules_wrapper(self) -> OrderedDict[str, PrunerModuleWrapper]:
        """Return `{module name: wrapper}` in the model's order."""
        focus = self._focus
        return OrderedDict(
            (name, wrapper)
            for name, wrapper in self._wrappers.items()
            if focus is None or name in focus
        )

    @contextmanager
    def focused(self, names: Iterable[str]) -> Iterator[None]:
        """Let `get_modules_wrapper()` return only some modules for a while.

        So what collects, scores and allocates works on a part of a model.

        Args:
            names: The modules that count meanwhile.
        """
        before, self._focus = self._focus, frozenset(names)
        try:
            yield
        finally:
            self._focus = before

    def set_wrappers_attribute(self, name: str, value: Any) -> None:
        """Set an attribute on every wrapper; a tensor becomes a buffer, a copy on each.

        Args:
            name: The name of the attribute.
            value: Its value.
        """
        for wrapper in self._wrappers.values():
            if isinstance(value, Tensor):
                wrapper.register_buffer(name, value.clone())
            else:
                setattr(wrapper, name, value)

    # --- masks ----------------------------------------------------------------------------

    def close_masks(
        self, example_inputs: Any, coupling: Any = None, made: Masks | None = None
    ) -> Masks:
        """Mask what else keeps a masked channel from being zero, and return all masks in force.

        A normalisation after a masked convolution still adds its bias. With closed masks nothing
        is left of a masked channel, so that removing it changes nothing.

        Args:
            example_inputs: An input of the model: a tensor, a tuple or a dict.
            coupling: The units of the model, if they are known from such inputs.
            made: Masks that have just come into force, as they were made: of a view that repeats
                one row it need not be found out that rows are whole.
        """
        with self.plain() as model:
            if coupling is None:
                engine = get_engine("torch", wanted="closing masks over what follows a channel")
                coupling = engine.Coupling(model, example_inputs)
            more = coupling.closed(_as_made(self.masks, made or {}))
            modules = dict(named_modules(model, every_name=True))
        known = {**self._closing, **self._wrappers}
        self._put_in(self._closing_wrapper(n, modules[n]) for n in more if n not in known)
        for name, tensors in more.items():
            wrapper = self._wrappers.get(name) or self._closing[name]
            # A module may have parameters beside its weight and bias, which no wrapper masks.
            in_force = wrapper.masks
            covered = {n: mask & in_force[n] for n, mask in tensors.items() if n in in_force}
            wrapper.set_masks(covered)
        return self.masks

    def _closing_wrapper(self, name: str, module: nn.Module) -> PrunerModuleWrapper:
        wrapper = PrunerModuleWrapper(module, name, {"closes": True})
        self._closing[name] = wrapper
        return wrapper

    def _put_in(self, wrappers: Iterable[PrunerModuleWrapper]) -> None:
        """Put more wrappers into the model, all in one walk; if it is wrapped at all."""
        more = {wrapper.module: wrapper for wrapper in wrappers}
        if more and self.is_wrapped:
            replace_modules(self.bound_model, more)

    def load_masks(self, masks: Mapping[str, Mapping[str, Tensor]] | str | PathLike[str]) -> None:
        """Put masks in force, from a mapping or a file.

        Args:
            masks: `{module name: {tensor name: mask}}`, or the path of a file of masks.

        Raises:
            MaskError: When a mask does not fit; the masks in force stay as they are.
        """
        if isinstance(masks, str | PathLike):
            masks = load_masks(masks)
        wrappers = {wrapper.name: wrapper for wrapper in self._all_wrappers()}
        with self.plain() as model:
            modules = dict(named_modules(model, every_name=True))
        masks = by_known_names(masks, modules)
        closing: dict[str, nn.Module] = {}
        for name, tensors in masks.items():
            if name in wrappers:
                wrappers[name].check_masks(tensors)
                continue
            module = modules.get(name)
            if module is None or not _closes(module):
                raise MaskError(
                    f"The masks have {name!r}, which is not among the wrapped modules."
                    f"{did_you_mean(name, wrappers)}"
                )
            PrunerModuleWrapper(module, name, {}).check_masks(tensors)
            closing[name] = module
        made = {name: self._closing_wrapper(name, module) for name, module in closing.items()}
        self._put_in(made.values())
        wrappers |= made
        for name in self._outdated(masks):
            outdated = self._closing[name]
            outdated.put_masks({n: torch.ones_like(m) for n, m in outdated.masks.items()})
        for name, tensors in masks.items():
            wrappers[name].put_masks(tensors)

    def _outdated(self, masks: Mapping[str, Any]) -> Collection[str]:
        """Return the modules whose masks go when others come into force.

        What closed masks that are replaced says nothing of those that replace them.
        """
        replaced = self._wrappers.keys() <= masks.keys()
        return self._closing.keys() - masks.keys() if replaced else ()

    def masks_with(self, masks: Masks) -> Masks:
        """Return what will be in force when `load_masks()` has got some masks.

        Args:
            masks: The masks that `load_masks()` would get.
        """
        outdated = self._outdated(masks)
        return {n: tensors for n, tensors in self.masks.items() if n not in outdated} | masks

    @property
    def masks(self) -> Masks:
        """The masks in force, `{module name: {tensor name: mask}}`."""
        return {wrapper.name: wrapper.masks for wrapper in self._all_wrappers()}

    def show_pruned_weights(self, dim: int = 0) -> None:
        """Print, for each module, how many slices along `dim` have anything left.

        Args:
            dim: The axis whose slices are counted; 0 is that of output channels.
        """
        for name, wrapper in self._wrappers.items():
            mask = wrapper.masks[wrapper.target]
            if not -mask.ndim <= dim < mask.ndim:
                raise ConfigError(
                    f"dim is {dim}, and {name}.{wrapper.target} has the shape {tuple(mask.shape)}."
                )
            axes = [axis for axis in range(mask.ndim) if axis != dim % mask.ndim]
            left = mask.amax(dim=axes) if axes else mask
            print(f"simulated prune {name} remain/total: {int(left.sum())}/{len(left)}")


def _as_made(masks: Masks, made: Masks) -> Masks:
    """Return the same masks, and of those that were just made the tensors that were made."""
    return {
        name: {leaf: made.get(name, {}).get(leaf, mask) for leaf, mask in tensors.items()}
        for name, tensors in masks.items()
    }


def _closes(module: nn.Module | None) -> TypeGuard[nn.Module]:
    """Whether a module scales and shifts channels, so that masks of others may cover it too."""
    name = None if module is None else weight_name(module)
    return module is not None and name is not None and module.get_parameter(name).ndim == 1
