"""What all pruners of torch models share: targets, wrappers, masks, and ways out."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any, ClassVar, TypeGuard

import torch
from torch import Tensor, nn

from prune_core.compat import understands
from prune_core.compressed import Compressed, model_of
from prune_core.config import Algorithm, Key, load_config, parse
from prune_core.config.names import by_known_names
from prune_core.errors import ConfigError, MaskError, PruneError, did_you_mean
from prune_core.masking import (
    Masks,
    PrunerModuleWrapper,
    bare,
    check_model,
    find_targets,
    replace_modules,
    unwrap,
    weight_name,
    wrappers_in,
)
from prune_core.masking.files import load_masks, save_masks
from prune_core.options import ChecksOptions
from prune_core.pruning.compat import ANY_PRUNER
from prune_core.pruning.export import export_model
from prune_core.pruning.summary import Summary, summarise
from prune_core.registry import get_engine

__all__ = ["WEIGHTED_TYPES", "Pruner"]

ConfigList = Sequence[Mapping[str, Any]] | str | PathLike[str]

WEIGHTED_TYPES = (
    *(f"Conv{n}d" for n in (1, 2, 3)),
    *(f"ConvTranspose{n}d" for n in (1, 2, 3)),
    *("Linear", "Conv1D", "Bilinear", "PReLU", "Embedding", "EmbeddingBag", "MultiheadAttention"),
)


class Pruner(metaclass=ChecksOptions):
    """Selects modules of a model, wraps them, and keeps their masks.

    A subclass says what it prunes and which further keys its `config_list` may have, and makes
    masks in `compress()`. What it can do is declared in class attributes: the one-line `prune()`,
    budgets, searches, `prune show` and `check_pruner` read them here and nowhere else.

    Args:
        model: The model, wrapped in place. Its parameters stay the objects that they are. Where it
            and the rules are None, both come later, with `reset()`.
        config_list: The rules, or the path of a YAML file that holds them.

    Attributes:
        granularity: `"channels"` where there is a score for each output channel of a module, so
            that whole channels go and a budget can be met; `"weights"` where there is one for each
            weight; empty where that depends on another algorithm.
        modes: What `mode=` may be, the default first.
        needs_data: Whether it needs the user's code to run the model, as `calibrate=`. A gradual
            schedule lets it look at the training instead, unless it is given something.
        needs_labels: Whether that code must also compute a loss and call `backward()`.
        default_types: The classes that `"default"` in a `config_list` stands for.
        supported_types: The classes that it prunes, or empty for any that has a weight.
        config_keys: Further keys of a `config_list` that it understands.
    """

    granularity: ClassVar[str] = ""
    modes: ClassVar[tuple[str, ...]] = ("normal",)
    needs_data: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False
    default_types: ClassVar[tuple[str, ...]] = WEIGHTED_TYPES
    supported_types: ClassVar[tuple[str, ...]] = ()
    config_keys: ClassVar[tuple[str | Key, ...]] = ()

    @understands(ANY_PRUNER)
    def __init__(self, model: nn.Module | None, config_list: ConfigList | None) -> None:
        self._wrappers: dict[str, PrunerModuleWrapper] = {}
        self._focus: frozenset[str] | None = None
        # Modules that are not pruned, but masked where others are: see close_masks().
        self._closing: dict[str, PrunerModuleWrapper] = {}
        self.bound_model: nn.Module = nn.Module()
        if model is not None or config_list is not None:
            self.reset(model, config_list)  # type: ignore[arg-type]  # it says what is missing

    # --- life cycle -----------------------------------------------------------------------

    def reset(self, model: nn.Module, config_list: ConfigList) -> None:
        """Start anew with another model or another config; an old model is unwrapped first.

        Args:
            model: The model to prune from now on.
            config_list: The rules, or the path of a YAML or JSON file that holds them.
        """
        model = model_of(model)
        check_model(model, compiled=False)
        if isinstance(config_list, str | PathLike):
            config_list = load_config(config_list)
        entries = parse(config_list, self.config_keys)
        # The old wrappers go for good only when nothing can be wrong any more.
        with self.plain():
            self.validate_config(model, config_list)
            with bare(model) as inside:
                targets = find_targets(inside, entries, self._algorithm())
        self.unwrap()
        self.bound_model = model
        self.config_list = config_list
        self._closing = {}
        self._wrappers = {
            target.name: PrunerModuleWrapper(target.module, target.name, target.config)
            for target in targets
        }
        self.wrap()

    def _algorithm(self) -> Algorithm:
        return Algorithm(
            type(self).__name__,
            self.default_types,
            self.supported_types,
            channels=self.granularity == "channels",
        )

    def validate_config(self, model: nn.Module, config_list: Sequence[Mapping[str, Any]]) -> None:
        """Check what only this algorithm knows; the common rules have been checked already.

        Args:
            model: The model.
            config_list: The rules, as they were given.
        """
        self._validate_config_before_canonical(model, config_list)

    def _validate_config_before_canonical(
        self, model: nn.Module, config_list: Sequence[Mapping[str, Any]]
    ) -> None:
        """Check more; subclasses written for the predecessor override this one."""

    def clear_model_references(self) -> None:
        """Let go of the model, for example to free its memory."""
        self.bound_model = nn.Module()
        self._wrappers, self._closing = {}, {}

    @property
    def is_wrapped(self) -> bool:
        """Whether the wrappers are in the model now; `prune_core.unwrap` takes them out as well."""
        own = {id(wrapper) for wrapper in self._all_wrappers()}
        return any(id(module) in own for module in self.bound_model.modules())

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

    # --- masks ----------------------------------------------------------------------------

    def compress(self, example_inputs: Any = None) -> Compressed[nn.Module, Masks]:
        """Make masks, put them in force, and return the wrapped model and the masks.

        What is returned, a `Compressed`, unpacks to the two and can be used as the model.

        Args:
            example_inputs: An input of the model. With it, masks are closed: what can only be
                removed together is masked together.
        """
        raise NotImplementedError

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

    def generate_module_groups(self) -> dict[int, list[str]]:
        """Return `{entry of the config_list: module names}`."""
        groups: dict[int, list[str]] = defaultdict(list)
        for name, wrapper in self._wrappers.items():
            groups[wrapper.config["entry"]].append(name)
        return dict(groups)

    def get_origin2wrapped_parameter_name_map(self) -> dict[str, str]:
        """Return `{parameter name before wrapping: name while wrapped}`."""
        if not self.is_wrapped:
            raise PruneError("The model is not wrapped now; call pruner.wrap() first.")
        now = {id(p): name for name, p in self.bound_model.named_parameters()}
        with self.plain() as model:
            return {name: now[id(p)] for name, p in model.named_parameters()}

    @contextmanager
    def plain(self) -> Iterator[nn.Module]:
        """Take the wrappers out for a moment, without touching any value.

        What comes is the model itself, also where `DataParallel` or `torch.compile` holds it.
        """
        wrappers = list(self._all_wrappers()) if self.is_wrapped else []
        replace_modules(self.bound_model, {w: w.module for w in wrappers})
        try:
            with bare(self.bound_model) as model:
                yield model
        finally:
            replace_modules(self.bound_model, {w.module: w for w in wrappers})

    def _all_wrappers(self) -> Iterable[PrunerModuleWrapper]:
        return [*self._wrappers.values(), *self._closing.values()]

    def close_masks(self, example_inputs: Any, coupling: Any = None) -> Masks:
        """Mask what else keeps a masked channel from being zero, and return all masks in force.

        A normalisation after a masked convolution still adds its bias. With closed masks nothing
        is left of a masked channel, so that removing it changes nothing.

        Args:
            example_inputs: An input of the model: a tensor, a tuple or a dict.
            coupling: The units of the model, if they are known from such inputs.
        """
        with self.plain() as model:
            if coupling is None:
                engine = get_engine("torch", wanted="closing masks over what follows a channel")
                coupling = engine.Coupling(model, example_inputs)
            more = coupling.closed(self.masks)
            modules = dict(model.named_modules(remove_duplicate=False))
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
        wrapped = self.is_wrapped
        more = {wrapper.module: wrapper for wrapper in wrappers}
        if wrapped and more:
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
            modules = dict(model.named_modules(remove_duplicate=False))
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

    def save_masks(self, path: str | PathLike[str]) -> None:
        """Write the masks in force to a safetensors file.

        Args:
            path: The file to write.
        """
        config = {name: wrapper.config for name, wrapper in self._wrappers.items()}
        save_masks(path, self.masks, algorithm=type(self).__name__, config=config)

    # --- seeing and keeping ---------------------------------------------------------------

    def summary(self) -> Summary:
        """Return a table of what is masked; `print()` shows it."""
        return summarise(self._wrappers.values())

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

    def export_model(
        self,
        model_path: str | PathLike[str],
        mask_path: str | PathLike[str] | None = None,
        onnx_path: str | PathLike[str] | None = None,
        input_shape: Sequence[int] | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        """Write the masked model, and whatever else is asked, to files.

        Args:
            model_path: Gets the state dict under the names that it had before wrapping, zeros
                where masked; safetensors if the name ends so, otherwise for `torch.load`.
            mask_path: Gets the masks.
            onnx_path: Gets the model as ONNX, for any batch size; needs `input_shape`.
            input_shape: Shape of the input for ONNX, the batch included.
            device: Where the ONNX export runs; the model's own unless given.
        """
        export_model(self.bound_model, model_path, onnx_path, input_shape, device)
        if mask_path is not None:
            self.save_masks(mask_path)

    # --- the same under the names of older releases ----------------------------------------

    def _wrap_model(self) -> None:
        """`wrap()`."""
        self.wrap()

    def _unwrap_model(self) -> None:
        """`unwrap()`."""
        self.unwrap()

    def wrap_model(self) -> None:
        """`wrap()`."""
        self.wrap()

    def unwrap_model(self) -> None:
        """`unwrap()`."""
        self.unwrap()

    def get_masks(self) -> Masks:
        """Return `masks`."""
        return self.masks

    def get_pruned_weights(self, dim: int = 0) -> None:
        """`show_pruned_weights()`.

        Args:
            dim: As there.
        """
        self.show_pruned_weights(dim)

    def load_model_state_dict(self, model_state: Mapping[str, Any]) -> None:
        """Load a state dict of the model without wrappers; masks stay in force.

        Args:
            model_state: What `state_dict()` of the model without wrappers returned.
        """
        with self.plain() as model:
            model.load_state_dict(model_state)

    # --- called from training loops; algorithms that need it override ----------------------

    def update_epoch(self, epoch: int) -> None:
        """Hear that an epoch begins.

        Args:
            epoch: Its number, from 0.
        """

    def step(self) -> None:
        """Hear that an optimizer step was made."""


def _closes(module: nn.Module | None) -> TypeGuard[nn.Module]:
    """Whether a module scales and shifts channels, so that masks of others may cover it too."""
    name = None if module is None else weight_name(module)
    return module is not None and name is not None and module.get_parameter(name).ndim == 1
