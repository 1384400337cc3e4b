"""Models whose layers are built each from a config of its own.

A config of transformers can say in what single layers differ from the others
(`config.per_layer_config`). Few models read it: they give every layer the config that holds for
all. So while such a model is built, the constructors of its layers are handed the layer's own.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from prune_speedup.torch.model_config.numbers import PER_LAYER, Keys, is_config
from prune_speedup.torch.resize.smaller import plain_class

__all__ = [
    "are_of_several_kinds",
    "by_layer",
    "give_layers_their_configs",
    "holders_of",
    "layer_classes",
    "rows_of",
]


def holders_of(config: Any, keys: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    """Yield the configs that can speak of single layers: a config, and those in it."""
    count = getattr(config, "num_hidden_layers", None)
    if hasattr(type(config), PER_LAYER) and type(count) is int and count > 1:
        yield keys, config
    for key, value in vars(config).items():
        if is_config(value) and not key.startswith("_"):
            yield from holders_of(value, (*keys, key))


def rows_of(model: nn.Module, count: int) -> dict[str, nn.ModuleList]:
    """Return the outermost lists of that many modules, by name."""
    rows: dict[str, nn.ModuleList] = {}
    for name, module in model.named_modules():
        inner = any(name.startswith(f"{row}.") for row in rows)
        if isinstance(module, nn.ModuleList) and len(module) == count and not inner:
            rows[name] = module
    return rows


def are_of_several_kinds(model: nn.Module, config: Any) -> bool:
    """Whether some layers of a model have other tensors than their neighbours, as mixtures have."""
    return any(
        {*layer.state_dict()} != {*row[0].state_dict()}
        for _, holder in holders_of(config)
        for row in rows_of(model, holder.num_hidden_layers).values()
        for layer in row
    )


def layer_classes(model: nn.Module, config: Any) -> set[type[nn.Module]]:
    """Return the classes of the layers of a model that a config can speak of."""
    return {
        plain_class(type(layer))
        for _, holder in holders_of(config)
        for row in rows_of(model, holder.num_hidden_layers).values()
        for layer in row
    }


@contextmanager
def by_layer(kinds: Iterable[type[nn.Module]]) -> Iterator[None]:
    """Let modules of these classes be built from the configs of their layers, in their order."""
    built: Counter[type] = Counter()
    inside: set[int] = set()

    def wrap(construct: Callable[..., None]) -> Callable[..., None]:
        def construct_layer(self: nn.Module, *args: Any, **kwargs: Any) -> None:
            if id(self) in inside:  # a class above it, whose turn has been already
                construct(self, *args, **kwargs)
                return
            given = next((a for a in (*args, *kwargs.values()) if _speaks_of_layers(a)), None)
            own = given
            if given is not None:
                own = given.per_layer_config[built[type(given)] % given.num_hidden_layers]
                built[type(given)] += 1
            inside.add(id(self))
            try:
                construct(
                    self,
                    *(own if arg is given else arg for arg in args),
                    **{name: own if arg is given else arg for name, arg in kwargs.items()},
                )
            finally:
                inside.discard(id(self))

        return construct_layer

    changed: list[tuple[Any, Any]] = []
    try:
        for kind in kinds:
            own = vars(kind).get("__init__")
            changed.append((kind, own))
            kind.__init__ = wrap(kind.__init__)  # type: ignore[method-assign]
        yield
    finally:
        for kind, own in changed:
            if own is None:
                del kind.__init__
            else:
                kind.__init__ = own


def _speaks_of_layers(value: Any) -> bool:
    return is_config(value) and bool(getattr(value, "is_heterogeneous", False))


def give_layers_their_configs(model: nn.Module, config: Any) -> None:
    """Put the configs of single layers where modules of these layers hold one of that kind."""
    for _, holder in holders_of(config):
        if not _speaks_of_layers(holder):
            continue
        for row in rows_of(model, holder.num_hidden_layers).values():
            for layer, own in zip(row, holder.per_layer_config, strict=True):
                for module in layer.modules():
                    for name, value in vars(module).items():
                        if type(value) is type(holder):
                            vars(module)[name] = own
