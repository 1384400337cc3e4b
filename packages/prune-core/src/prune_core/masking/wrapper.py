"""A module whose weights are seen through masks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx import Proxy
from torch.utils.hooks import RemovableHandle

from prune_core.errors import MaskError
from prune_core.masking.axes import masked_names, weight_name
from prune_core.masking.channels import result_by_channels
from prune_core.masking.plain_names import DENSE, SUFFIX, name_plainly, to_plain_names, to_wrapper
from prune_core.masking.rewrite import Rewrites
from prune_core.masking.sharded import is_sharded, local, sharded_like
from prune_core.masking.slices import whole_rows
from prune_core.masking.substitution import call_with
from prune_core.masking.watcher import Watcher

__all__ = ["Masks", "PrunerModuleWrapper"]

Masks = dict[str, dict[str, Tensor]]
"""`{module name: {tensor name: mask}}`: 1 where a value stays."""


class PrunerModuleWrapper(nn.Module):
    """Stands in a model for the module it wraps, and multiplies masks into its parameters.

    Where whole channels are masked, a layer computes the others alone, or has its results
    multiplied instead of its weights, which is the same and takes less. The parameters themselves
    stay where they are and what they are, so an optimizer made before wrapping goes on training
    them; only the forward, and whoever reads `wrapper.weight` from outside, sees them masked. Masks
    are boolean buffers, `weight_mask` and `bias_mask`: one byte for each value. Other attributes
    are those of the wrapped module, to read and to set.

    Attributes:
        module: The wrapped module.
        name: Its name in the model.
        config: The settings that the `config_list` gives it.
        rewrites: Values that pruning has changed beside its masks, of this module or of others.
        for_good: Whether no pruner is left that could put the wrapper back once it is out.
    """

    module: nn.Module
    name: str
    config: dict[str, Any]
    target: str
    masked_names: tuple[str, ...]
    rewrites: Rewrites
    for_good: bool
    weight_mask: Tensor
    bias_mask: Tensor | None
    _removed: dict[str, Tensor]
    _watching: dict[str, OrderedDict[int, Watcher]]

    def __init__(self, module: nn.Module, name: str, config: Mapping[str, Any]) -> None:
        super().__init__()
        target = weight_name(module)
        if target is None:
            raise MaskError(f"Module {name!r}, a {type(module).__name__}, has no weight to mask.")
        # At once, for at each assignment torch asks whether a tensor or a module is meant.
        vars(self).update(
            name=name,
            config=dict(config),
            target=target,
            training=module.training,
            masked_names=masked_names(module),
            rewrites=Rewrites(),
            for_good=False,
            _removed={},
            _watching={},
        )
        # None stands for a mask of ones, which would cost memory and time to no effect. A module
        # may have a buffer of the same name, for which register_buffer() would refuse ours.
        for tensor in (target, target.removesuffix("weight") + "bias", *self.masked_names):
            self._buffers[tensor + SUFFIX] = None
        register: Any = self.register_load_state_dict_post_hook
        register(name_plainly)
        # Last, because from now on what is set goes to the module if it has something of that name.
        self.module = module

    def parameter(self, name: str) -> Tensor:
        """Return a parameter of the wrapped module, or what stands in for it at the moment.

        While `torch.func.functional_call` runs, that is a tensor which is no parameter.

        Args:
            name: `"weight"`, `"bias"` or another that is masked.
        """
        module = self._modules["module"]  # past __getattr__: this is asked for again and again
        assert module is not None
        held = module._parameters[name]
        assert held is not None
        return held

    @property
    def masks(self) -> dict[str, Tensor]:
        """`{tensor name: mask}`, ones where nothing is masked yet; `set_masks` changes them."""
        return {name: self._mask_or_ones(name) for name in self.masked_names}

    def _mask_or_ones(self, name: str) -> Tensor:
        mask = self._buffers[name + SUFFIX]
        if mask is None:
            parameter = self.parameter(name)
            mask = torch.ones(parameter.shape, dtype=torch.bool, device=_home(parameter))
        return mask

    def set_masks(self, masks: Mapping[str, Tensor | None]) -> None:
        """Put masks in force; any number type with zeros and ones will do.

        Boolean masks are taken as they are, not copied.

        Args:
            masks: `{tensor name: mask}`; None leaves that tensor as it is.

        Raises:
            MaskError: When a mask is for a tensor that is not there, has another shape, or holds
                something else than zeros and ones. Nothing is changed then.
        """
        self.check_masks(masks)
        self.put_masks(masks)

    def put_masks(self, masks: Mapping[str, Tensor | None]) -> None:
        """Put masks in force that `check_masks` has seen.

        Args:
            masks: A mask for each parameter, by name.
        """
        for name, mask in masks.items():
            if mask is not None:
                home = _home(self.parameter(name))
                # Not a view that repeats itself: such a mask could not be written to.
                own = mask.detach() if all(mask.stride()) else mask.detach().contiguous()
                self._buffers[name + SUFFIX] = own.to(home, torch.bool)

    def check_masks(self, masks: Mapping[str, Tensor | None]) -> None:
        """Raise what `set_masks` would raise, and change nothing.

        Args:
            masks: `{tensor name: mask}`.
        """
        for name, mask in masks.items():
            if mask is not None:
                self._check(name, mask)

    def _check(self, name: str, mask: Tensor) -> None:
        if name not in self.masked_names:
            raise MaskError(
                f"Masks of {self.name!r} have {name!r}; this {type(self.module).__name__} is "
                f"masked in {', '.join(self.masked_names)}."
            )
        shape = self.parameter(name).shape
        if mask.shape != shape:
            raise MaskError(
                f"The mask of {self.name}.{name} has the shape {tuple(mask.shape)}; the tensor "
                f"has {tuple(shape)}."
            )
        if mask.is_meta:
            raise MaskError(
                f"The mask of {self.name}.{name} is on the meta device, where it has no values."
            )
        if mask.dtype != torch.bool:
            binary = (mask == 0) | (mask == 1)
            if not bool(binary.all()):
                value = mask[~binary].flatten()[0].item()
                raise MaskError(
                    f"The mask of {self.name}.{name} holds {value}; a mask holds 0 (pruned) and 1."
                )

    def masked_count(self, name: str) -> int:
        """Return how many values of a parameter are masked.

        Args:
            name: The name of the tensor.
        """
        mask = self._buffers[name + SUFFIX]
        if mask is None:
            return 0
        # numpy counts bytes several times faster than torch, and no thread has to wake for it.
        kept = np.count_nonzero(mask.numpy()) if mask.is_cpu else int(mask.count_nonzero())
        return mask.numel() - int(kept)

    def masked(self, name: str) -> Tensor:
        """Return a parameter as the forward sees it; gradients reach the parameter.

        Args:
            name: The name of the tensor.
        """
        parameter, mask = self.parameter(name), self._buffers[name + SUFFIX]
        seen = parameter if mask is None else parameter * _factor(mask, parameter)
        watching = self._watching.get(name)
        if watching and seen.requires_grad:
            # On a parameter a hook would stay for good; on a view, it goes with this forward.
            seen = seen.view_as(seen)
            for watcher in watching.values():
                seen.register_hook(partial(watcher, self))  # type: ignore[no-untyped-call]
        return seen

    def watch_gradient(self, name: str, look: Callable[[Tensor], None]) -> RemovableHandle:
        """Call a function with each gradient of a parameter as the forward sees it.

        A masked value gets a gradient there, the one that it would have if it were not masked;
        the parameter itself gets zero for it, since its product with the mask does not depend on
        it: `d(w·m)/dw = m`.

        Args:
            name: The parameter.
            look: A function of the gradient.
        """
        watching = self._watching.setdefault(name, OrderedDict())
        handle = RemovableHandle(watching)
        watching[handle.id] = Watcher(lambda wrapper, gradient: look(gradient), self)
        return handle

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the wrapped module with masked parameters."""
        if _has_proxy(args) or _has_proxy(kwargs.values()):
            raise MaskError(
                f"torch.fx would record the wrapped module {self.name!r} without its masks. Unwrap "
                "the model first, prune_core.unwrap(model), or use torch.export, which keeps them."
            )
        module = self._modules["module"]
        assert module is not None
        for name in self.masked_names:
            if name in module.__dict__ or name not in module._parameters:
                raise MaskError(
                    f"{self.name}.{name} is no parameter any more while the model runs, so its "
                    "mask cannot reach it; FullyShardedDataParallel replaces parameters in that "
                    "way. torch.distributed.fsdp.fully_shard() leaves them, and works."
                )
        if torch.compiler.is_compiling():
            return functional_call(module, self._seen(), args, kwargs)
        if not any(self._watching.values()) and not torch._C._get_tracing_state():
            result = result_by_channels(module, self._buffers, args, kwargs)
            if result is not None:
                return result
        if module._modules:
            return functional_call(module, self._seen(), args, kwargs)
        return call_with(module, self._seen(), args, kwargs)

    def _seen(self) -> dict[str, Tensor]:
        """Return the parameters as the forward sees them."""
        return {name: self.masked(name) for name in self.masked_names}

    def apply_masks(self) -> None:
        """Write zeros into the parameters where they are masked.

        What was there is remembered, unless nobody is left to wrap the module again.
        """
        with torch.no_grad():
            for name, parameter, kept in self._masked_places():
                if parameter.is_meta:
                    raise MaskError(
                        f"{self.name}.{name} is on the meta device, where no zeros can be written "
                        "into it. Load the weights first."
                    )
                rows = whole_rows(kept) if kept.ndim > 1 else None
                if rows is not None:  # the same values in the same order, found many times faster
                    places = (~rows).nonzero().flatten()
                    if not self.for_good:
                        self._removed[name] = parameter.index_select(0, places).flatten()
                    parameter.index_fill_(0, places, 0.0)
                else:
                    removed = ~kept
                    if not self.for_good:
                        self._removed[name] = parameter[removed]
                    parameter.masked_fill_(removed, 0.0)

    def restore_dense(self) -> None:
        """Undo `apply_masks`, but for values that have been trained to something since."""
        if not self._removed:
            return
        with torch.no_grad():
            for name, parameter, kept in self._masked_places():
                values = self._removed.get(name)
                if values is None:
                    continue
                removed = ~kept
                if int(removed.sum()) == values.numel():
                    now = parameter[removed]
                    parameter[removed] = torch.where(now == 0, values.to(now), now)
        self._removed = {}

    def drop_masks(self) -> None:
        """Mask nothing any longer. What a wrapper holds may live on until Python looks for it."""
        self._buffers.update(dict.fromkeys([name + SUFFIX for name in self.masked_names]))

    def _masked_places(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Yield masked parameters, or what this process has of them, with their masks."""
        for name in self.masked_names:
            mask = self._buffers[name + SUFFIX]
            if mask is not None:
                parameter = self.parameter(name)
                if is_sharded(parameter):
                    yield name, local(parameter), local(sharded_like(mask, parameter))
                else:
                    yield name, parameter, mask

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # Masks follow to another device. They keep their values and their type whatever is done to
        # weights: `to_empty()` would leave rubbish, and `type()` no booleans.
        keys = [name + SUFFIX for name in self.masked_names]
        before = {key: mask for key in keys if (mask := self._buffers[key]) is not None}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for key, mask in before.items():
            now = self._buffers[key]
            assert now is not None
            if now.is_meta:
                self._buffers[key] = mask.cpu()
            elif now is not mask:
                self._buffers[key] = torch.empty_like(now, dtype=torch.bool).copy_(mask)
        return self

    def __getattr__(self, name: str) -> Any:
        state = self.__dict__
        if name == "module" and name in state.get("_modules", ()):  # what is asked for most often
            return state["_modules"][name]
        masked, buffers = state.get("masked_names", ()), state.get("_buffers", {})
        tensor = name.removesuffix(SUFFIX)
        if name in buffers and tensor in masked and buffers[name] is None:
            # Somebody wants to see the mask, perhaps to write into it.
            buffers[name] = self._mask_or_ones(tensor)
        try:
            return super().__getattr__(name)
        except AttributeError:
            module = state.get("_modules", {}).get("module")
            # Python asks for `__deepcopy__` and the like; the module's own would lose the masks.
            if module is None or name.startswith("__"):
                raise
            if name in masked:
                return self.masked(name)
            dense = name.removesuffix(DENSE)
            if dense != name and dense in masked and not hasattr(module, name):
                return self.parameter(dense)
            return getattr(module, name)

    def __setattr__(self, name: str, value: Any) -> None:
        state = self.__dict__
        if type(value) is bool and name in state:  # as train() and eval() do with every module
            state[name] = value
            return
        module = state.get("_modules", {}).get("module")
        tensor, dense = name.removesuffix(SUFFIX), name.removesuffix(DENSE)
        if module is None or name in state:
            super().__setattr__(name, value)
        elif dense != name and dense in self.masked_names and not hasattr(module, name):
            setattr(module, dense, value)
        elif name in self._buffers and tensor in self.masked_names and isinstance(value, Tensor):
            self.set_masks({tensor: value})
        elif name not in self._buffers and (name in vars(module) or name in module._parameters):
            # What is read from the wrapped module is written there, where the forward sees it.
            setattr(module, name, value)
        else:
            super().__setattr__(name, value)

    def state_dict(
        self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False
    ) -> Any:
        """Return what a plain module of this kind would, and what a wrapped one needs besides.

        `weight` is the masked weight; where something is masked, `weight_mask` and `weight_orig`,
        the parameter itself, stand beside it.
        """
        state = super().state_dict(
            *args, destination=destination, prefix=prefix, keep_vars=keep_vars
        )
        to_plain_names(self, state, prefix, keep_vars)
        return state

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Send what has a plain name to the wrapped module; a dense weight instead of a masked."""
        to_wrapper(self, state_dict, prefix, local_metadata, missing_keys)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        self.__dict__["_loading"] = prefix, error_msgs

    def _fqn_modifiers(self) -> dict[str, str]:
        """Tell torch's distributed checkpoints which child leaves no trace in the names."""
        return {"": "module"}


def _has_proxy(values: Iterable[Any]) -> bool:
    for value in values:  # noqa: SIM110 - any() would make a generator at each call of each layer
        if isinstance(value, Proxy):
            return True
    return False


def _factor(mask: Tensor, parameter: Tensor) -> Tensor:
    """Return what a parameter is multiplied by: its mask, or a number for each whole row.

    A processor multiplies by bytes three to fifteen times faster than by booleans or with
    where(); the view costs nothing. In a large tensor a number for each row is faster again, by
    more than it takes to look at the mask: that of [[1, 1], [0, 0]] is [[1], [0]]. What was seen is
    not remembered, since a mask may be written to in ways that torch does not count, as by numpy.
    Compilers multiply by the mask where they compute. `torch.jit.trace` records no view of bytes.
    """
    if torch._C._get_tracing_state():
        return mask
    factor = mask.view(torch.uint8)
    if is_sharded(parameter) or parameter.is_meta:
        return sharded_like(factor.to("meta") if parameter.is_meta else factor, parameter)
    if not mask.is_cpu or mask.numel() < _ROWS_PAY_FROM or torch.compiler.is_compiling():
        return factor
    try:
        rows = whole_rows(mask)
    except RuntimeError:  # a transform of torch.func runs, where tensors have no numbers
        return factor
    if rows is None:
        return factor
    return rows.view((-1,) + (1,) * (mask.ndim - 1)).view(torch.uint8)


_ROWS_PAY_FROM = 100_000
"""Weights in a tensor: with fewer, looking at the mask takes longer than it saves."""


def _home(parameter: Tensor) -> torch.device:
    """Return where the mask of a parameter is kept: on the meta device it would be forgotten."""
    return torch.device("cpu") if parameter.is_meta else parameter.device
