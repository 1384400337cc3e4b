"""What `compress()` returns: a model and its masks, in one object."""

from __future__ import annotations

from typing import Any, Generic, Self, TypeVar

__all__ = ["Compressed", "model_of"]

Model = TypeVar("Model")
Masks = TypeVar("Masks")


class Compressed(tuple[Model, Masks], Generic[Model, Masks]):
    """A model and its masks: a pair that can be used as the model.

    `model, masks = pruner.compress()` unpacks it. Scripts for the predecessor's first releases
    write `model = pruner.compress()` and go on with a model, so calls and attributes are those of
    the model: `model(x)`, `model.train()`, `model.parameters()`, `model.fc = other`. Code that asks
    for the type of a model, such as `torch.onnx.export` or `DataParallel`, needs the model itself,
    which is `model[0]`.

    Example:
        >>> _, masks = pair = Compressed(str.upper, {"conv": {}})
        >>> masks
        {'conv': {}}
        >>> pair("used as the model")
        'USED AS THE MODEL'
    """

    __slots__ = ()

    def __new__(cls, model: Model, masks: Masks) -> Self:
        """Pair a model and its masks."""
        return super().__new__(cls, (model, masks))

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model."""
        model: Any = self[0]
        return model(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        # Python asks for `__deepcopy__` and the like; the model's own would lose the masks.
        if name.startswith("__"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self[0], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self[0], name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self[0], name)

    def __repr__(self) -> str:
        return repr(self[0])


def model_of(model: Any) -> Any:
    """Return the model of what `compress()` returned, or the model that was given instead."""
    return model[0] if isinstance(model, Compressed) else model
