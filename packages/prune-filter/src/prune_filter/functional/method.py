"""The base of every pruning method, and the container that chains several on one tensor."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import Module

from prune_core.errors import ConfigError
from prune_filter.functional._errors import (
    ArgumentTypeError,
    MisuseError,
)
from prune_filter.functional.arguments import checked_scores, tensor_to_prune
from prune_filter.functional.derived import announce, derive, derived_names, masked
from prune_filter.functional.remaining import left_to


class BasePruningMethod(ABC):
    """The base of every pruning method: it knows how to apply a mask, a subclass which.

    A subclass says in `PRUNING_TYPE` what it acts on (`"unstructured"`: single entries,
    `"structured"`: channels along its `dim`, `"global"`: the tensor as it is) and computes the
    mask in `compute_mask`. An applied method is a forward pre-hook of its module.

    >>> class EveryOther(BasePruningMethod):
    ...     PRUNING_TYPE = "unstructured"
    ...     def compute_mask(self, t, default_mask):
    ...         mask = default_mask.clone()
    ...         mask.view(-1)[::2] = 0
    ...         return mask
    >>> layer = torch.nn.Linear(1, 4)
    >>> _ = EveryOther.apply(layer, "bias")
    >>> layer.bias_mask
    tensor([0., 1., 0., 1.])
    """

    PRUNING_TYPE: ClassVar[str]

    _tensor_name: str | None = None

    def __call__(self, module: Module, inputs: Any) -> None:
        """Refresh the pruned tensor before a forward.

        What is derived needs no refreshing; only a value that was assigned over it is let go.
        """
        name = self._name()
        if name not in derived_names(module):
            setattr(module, name, self.apply_mask(module))
        elif name in module.__dict__:
            delattr(module, name)

    @abstractmethod
    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """Compute the mask of `t`.

        Args:
            t: the importance of each entry, by default the tensor to prune itself.
            default_mask: what earlier pruning left, ones where nothing was pruned. What it has
                pruned must stay pruned.

        Returns:
            A mask of the shape of `t`, 0 where an entry is pruned.
        """

    def apply_mask(self, module: Module) -> Tensor:
        """Return the original tensor of `module` with its mask applied.

        Raises:
            MisuseError: an AssertionError, this method was never applied to a tensor.
        """
        return masked(module, self._name())

    @classmethod
    def apply(
        cls,
        module: Module,
        name: str,
        *args: Any,
        importance_scores: Tensor | None = None,
        **kwargs: Any,
    ) -> "BasePruningMethod":
        """Prune the parameter `name` of `module`, on top of what was pruned before.

        The parameter moves to `<name>_orig`, the mask to the buffer `<name>_mask`, and `<name>`
        is the product of the two from then on. When anything fails, `module` is as it was.

        Args:
            module: the module.
            name: the name of a parameter of `module`.
            *args: arguments of the method's own `__init__`.
            importance_scores: what the mask is computed from in place of the tensor's values; of
                the same shape.
            **kwargs: keyword arguments of the method's own `__init__`.

        Returns:
            The hook that is now in place: the method, or the container that chains it with those
            before.
        """
        key, previous = hook_of(module, name)
        method = cls(*args, **kwargs)
        method._tensor_name = name
        tensor = tensor_to_prune(module, name, pruned=previous is not None)
        scores = checked_scores(importance_scores, tensor, f"parameter {name!r}")
        with _as_it_was_on_error(module, previous):
            hook = method if previous is None else _chained(previous, method)
            mask = (
                torch.ones_like(tensor)
                if previous is None
                else getattr(module, f"{name}_mask")
                .detach()
                .clone(memory_format=torch.contiguous_format)
            )
            # A mask with a graph of its own could not be copied, and would be backpropagated twice.
            with torch.no_grad():
                mask = hook.compute_mask(scores, default_mask=mask)
            if previous is None:
                module.register_parameter(f"{name}_orig", module._parameters.pop(name))
            else:
                del module._forward_pre_hooks[key]
            module.register_buffer(f"{name}_mask", mask)
            module.register_forward_pre_hook(hook)
            derive(module, derived_names(module) | {name})
            # Whatever may not fit must show now, while the module can still be restored.
            plain = type(hook).apply_mask is BasePruningMethod.apply_mask
            if not (plain and mask.shape == tensor.shape and mask.device == tensor.device):
                getattr(module, name)
            announce(module, name)
        return hook

    def prune(
        self,
        t: Tensor,
        default_mask: Tensor | None = None,
        importance_scores: Tensor | None = None,
    ) -> Tensor:
        """Return a pruned version of a tensor that belongs to no module.

        Args:
            t: the tensor.
            default_mask: the mask of earlier pruning; by default nothing was pruned.
            importance_scores: what the mask is computed from in place of `t`; of the same shape.
        """
        scores = checked_scores(importance_scores, t, "the tensor")
        default_mask = torch.ones_like(t) if default_mask is None else default_mask
        return t * self.compute_mask(scores, default_mask=default_mask)

    def remove(self, module: Module) -> None:
        """Make the pruning of `module` permanent; its hook is left to the function `remove`.

        The original parameter object takes the masked values and its old name back, so that an
        optimizer that knows it goes on.

        Raises:
            MisuseError: an AssertionError, this method was never applied to a tensor.
        """
        name = self._name()
        values = self.apply_mask(module).detach()
        original = module._parameters[f"{name}_orig"]
        assert original is not None
        delattr(module, name)
        derive(module, derived_names(module) - {name})
        original.data = values
        del module._parameters[f"{name}_orig"]
        del module._buffers[f"{name}_mask"]
        setattr(module, name, original)

    def _name(self) -> str:
        if self._tensor_name is None:
            raise MisuseError(
                f"This {type(self).__name__} belongs to no tensor yet; call "
                f"{type(self).__name__}.apply(module, name, ...) first."
            )
        return self._tensor_name


class PruningContainer(BasePruningMethod):
    """The methods that pruned one tensor, one after the other; it iterates over them in order.

    Args:
        *args: methods that act on one tensor. For an empty container set `_tensor_name` before
            adding any.
    """

    def __init__(self, *args: BasePruningMethod) -> None:
        self._pruning_methods: tuple[BasePruningMethod, ...] = ()
        for method in args:
            if self._tensor_name is None:
                self._tensor_name = getattr(method, "_tensor_name", None)
            self.add_pruning_method(method)

    def add_pruning_method(self, method: BasePruningMethod) -> None:
        """Add a method that acts on this container's tensor.

        Raises:
            ArgumentTypeError: a TypeError, it is no pruning method.
            ConfigError: a ValueError, it acts on another tensor.
        """
        if not isinstance(method, BasePruningMethod):
            raise ArgumentTypeError(
                f"{method!r} is a {type(method).__name__}; a container holds instances of "
                "BasePruningMethod."
            )
        if method._tensor_name != self._tensor_name:
            raise ConfigError(
                f"The container prunes {self._tensor_name!r} and the {type(method).__name__} "
                f"{method._tensor_name!r}; both must act on the same tensor."
            )
        self._pruning_methods += (method,)

    def __len__(self) -> int:
        return len(self._pruning_methods)

    def __iter__(self) -> Iterator[BasePruningMethod]:
        return iter(self._pruning_methods)

    def __getitem__(self, idx: int) -> BasePruningMethod:
        return self._pruning_methods[idx]

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """Let the latest method prune what `default_mask` has left.

        It sees the entries left (in a row) when it is unstructured, the channels of which
        anything is left when it is structured, and all of `t` when it is global.

        Args:
            t: the importance of each entry.
            default_mask: the mask of the methods before.

        Returns:
            The mask of all methods together, in the type of `t`.
        """
        method = self._pruning_methods[-1]
        left = left_to(method, t, default_mask)
        mask = default_mask.to(dtype=t.dtype, copy=True)
        mask[left] = method.compute_mask(t[left], default_mask=default_mask[left]).to(mask.dtype)
        return mask


def hook_of(module: Module, name: str) -> tuple[int, BasePruningMethod | None]:
    """Return the pruning hook of the tensor `name`, if any, and its key."""
    hooks = [
        (key, hook)
        for key, hook in module._forward_pre_hooks.items()
        if isinstance(hook, BasePruningMethod) and hook._tensor_name == name
    ]
    if len(hooks) > 1:
        raise MisuseError(
            f"{name!r} of {type(module).__name__} has {len(hooks)} pruning hooks; it must have "
            "one. Chain methods in a PruningContainer."
        )
    return hooks[0] if hooks else (-1, None)


def _chained(previous: BasePruningMethod, method: BasePruningMethod) -> "PruningContainer":
    container = previous if isinstance(previous, PruningContainer) else PruningContainer(previous)
    container.add_pruning_method(method)
    return container


@contextmanager
def _as_it_was_on_error(module: Module, previous: BasePruningMethod | None) -> Iterator[None]:
    tables: list[Any] = [module._parameters, module._buffers, module._forward_pre_hooks]
    contents = [table.copy() for table in tables]
    names = derived_names(module)
    methods = previous._pruning_methods if isinstance(previous, PruningContainer) else ()
    try:
        yield
    except BaseException:
        for table, content in zip(tables, contents, strict=True):
            table.clear()
            table.update(content)
        derive(module, names)
        if isinstance(previous, PruningContainer):
            previous._pruning_methods = methods
        raise
