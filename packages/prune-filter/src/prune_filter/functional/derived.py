"""A pruned tensor is a property of its module: computed when it is read, stored nowhere.

Were the masked tensor kept on the module, it would go stale with every optimizer step, it would
drag its autograd graph into `copy.deepcopy`, and `torch.export` would see a module that writes to
itself. A property has to live on a class. So a pruned module gets a subclass of its own class,
which has the same name, prints the same and is gone when the last pruned tensor is removed;
copies and pickles carry the original class and the names, never the subclass.
"""

from collections.abc import Callable, Iterable
from types import new_class
from typing import Any
from weakref import WeakValueDictionary

from torch import Tensor
from torch.nn import Module

# Modules of one class with the same tensors pruned share a class, and so their compiled code.
_classes: WeakValueDictionary[tuple[type[Module], frozenset[str]], type[Module]] = (
    WeakValueDictionary()
)


def derived_names(module: Module) -> frozenset[str]:
    """Return the names of the tensors that `module` derives from an original and a mask."""
    names: frozenset[str] = getattr(type(module), "_derived_names", frozenset())
    return names


def derive(module: Module, names: Iterable[str]) -> None:
    """Make `names`, and nothing else, the derived tensors of `module`."""
    base = getattr(type(module), "_underived", type(module))
    module.__class__ = _class_deriving(base, frozenset(names))


def announce(module: Module, name: str) -> None:
    """Show a new derived tensor to a module that keeps its own list, as recurrent layers do."""
    if hasattr(module, "_flat_weights"):
        setattr(module, name, getattr(module, name))
        delattr(module, name)


def masked(module: Module, name: str) -> Tensor:
    """Return the original tensor of `name` times its mask."""
    original: Tensor = getattr(module, f"{name}_orig")
    mask: Tensor = getattr(module, f"{name}_mask")
    return mask.to(dtype=original.dtype) * original


def _class_deriving(base: type[Module], names: frozenset[str]) -> type[Module]:
    if not names:
        return base
    found = _classes.get((base, names))
    if found is None:
        body: dict[str, Any] = {name: _derived(name) for name in names}
        body |= {
            "__module__": base.__module__,
            "__qualname__": base.__qualname__,
            "__doc__": base.__doc__,
            "__reduce_ex__": _reducer(base, names),
            "_underived": base,
            "_derived_names": names,
        }
        found = _classes[base, names] = new_class(
            base.__name__, (base,), exec_body=lambda namespace: namespace.update(body)
        )
    return found


def _derived(name: str) -> property:
    def read(self: Module) -> Tensor:
        if name in self.__dict__:
            held: Tensor = self.__dict__[name]
            return held
        for hook in self._forward_pre_hooks.values():
            if getattr(hook, "_tensor_name", None) == name:
                tensor: Tensor = hook.apply_mask(self)  # type: ignore[attr-defined]
                return tensor
        return masked(self, name)

    def hold(self: Module, value: Tensor) -> None:
        self.__dict__[name] = value

    def release(self: Module) -> None:
        self.__dict__.pop(name, None)

    return property(read, hold, release, f"`{name}_orig` with `{name}_mask` applied.")


def _reducer(base: type[Module], names: frozenset[str]) -> Callable[..., tuple[Any, ...]]:
    def reduce_ex(self: Module, protocol: Any) -> tuple[Any, ...]:
        reduced: Any = base.__reduce_ex__(self, protocol)
        create, arguments, *rest = reduced
        arguments = tuple(base if argument is type(self) else argument for argument in arguments)
        if rest and isinstance(rest[0], dict):
            rest[0] = {key: value for key, value in rest[0].items() if key not in names}
            # Recurrent layers keep a second list of their weights and bring it up to date
            # themselves; until then the originals stand in for what has a graph.
            if "_flat_weights" in rest[0]:
                rest[0]["_flat_weights"] = [
                    getattr(self, f"{name}_orig") if name in names else getattr(self, name, None)
                    for name in rest[0]["_flat_weights_names"]
                ]
        return _rebuilt, (create, arguments, tuple(sorted(names))), *rest

    return reduce_ex


def _rebuilt(
    create: Callable[..., Module], arguments: tuple[Any, ...], names: tuple[str, ...]
) -> Module:
    module = create(*arguments)
    derive(module, names)
    return module
