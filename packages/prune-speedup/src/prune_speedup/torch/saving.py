"""What the library that a model comes from will save of it.

`save_pretrained` writes the tensors and the config, and `from_pretrained` builds the model from the
config again. So after a model was made smaller, either its config says so, or what would be written
is a folder that nobody can read; then `save_pretrained` is refused, and says what to do instead.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from prune_core.errors import SpeedupError
from prune_core.traversal import modules_in
from prune_speedup.torch.model_config.build import (
    Shapes,
    built_like,
    same_outputs,
    shapes_of,
)
from prune_speedup.torch.model_config.find import find_values
from prune_speedup.torch.model_config.layer_configs import give_layers_their_configs
from prune_speedup.torch.model_config.numbers import (
    PER_LAYER,
    Keys,
    Values,
    integers,
    is_config,
    put_values,
)
from prune_speedup.torch.record.inputs import Found, arguments
from prune_speedup.torch.record.isolation import untouched
from prune_speedup.torch.resize.smaller import correct, corrections_of, kept_attributes
from prune_toolkit.running.restore import evaluating

__all__ = [
    "ConfigChange",
    "carries_config",
    "follow",
    "inputs_of",
    "put_config",
    "refuse_saving",
    "shapes_of",
]

Settings = list[tuple[list[str | int], int]]
"""Numbers of a config, in a form that JSON has: [keys, value]."""

NOT_COMPARED = "verify=False, and only a comparison shows which sizes in it do"


@dataclass(slots=True)
class ConfigChange:
    """What became of a model's config, or of those that parts of it carry.

    Attributes:
        values: `{"num_attention_heads": (old, new)}`; old is None where it was left open.
        missing: Why no config describes the small model; empty where one does.
        settings: The same values by the name of the module that carries the config.
        refused: `{module: reason}` of those whose `save_pretrained` is refused.
    """

    values: dict[str, tuple[int | None, int]] = field(default_factory=dict)
    missing: str = ""
    settings: dict[str, Settings] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """What to print."""
        lines = [
            f"{name} {new} (it was left open)" if old is None else f"{name} {old} → {new}"
            for name, (old, new) in self.values.items()
            if PER_LAYER not in name.split(".")
        ]
        by_layer: dict[str, list[int]] = {}
        for name, (_, new) in self.values.items():
            if PER_LAYER in (parts := name.split(".")):
                by_layer.setdefault(parts[-1], []).append(new)
        lines += [f"{name} by layer {', '.join(map(str, n))}" for name, n in by_layer.items()]
        if by_layer:
            lines.append("read it with prune_core.from_pretrained(folder)")
        if self.missing:
            saved = f"does not describe the small model, save it with save_pruned: {self.missing}"
            lines.append(saved)
        return lines

    def warning(self, model: str) -> str:
        """What to say when no config describes a model, which is called so.

        Args:
            model: The name of the model's class.
        """
        refused = (
            "save_pretrained() is refused, because from_pretrained() could not read what it would "
            "write"
            if self.refused
            else "a model built from it has the old sizes"
        )
        return (
            f"The smaller {model} is right, but its config cannot describe it: "
            f"{self.missing.rstrip('.')}. So {refused}. Save the model with report.save(path), and "
            "load it with prune_core.load_pruned(dense_model, path)."
        )


def carries_config(model: nn.Module) -> bool:
    """Whether a model, or a part of it, has a config, or a library's way of saving it."""
    return any(
        callable(getattr(type(module), "save_pretrained", None))
        or is_config(getattr(module, "config", None))
        for module in modules_in(model)
    )


def follow(
    model: nn.Module,
    example_inputs: Any,
    before: Shapes,
    *,
    compared: bool = True,
    returned: Found | None = None,
) -> ConfigChange | None:
    """Give a small model a config that describes it, or refuse to save it where none does.

    A config may belong to other models too, so it is a copy that is changed.

    Args:
        model: A small model.
        example_inputs: What the model is run with.
        before: The shapes that it had.
        compared: Whether models may be run to compare them.
        returned: What the model returns for the example, if that is known.

    Returns:
        What was done; None for a model that carries no config, or has kept its shapes.
    """
    after = shapes_of(model)
    if after == before:
        return None
    carriers = _carriers(model, before, after)
    change = ConfigChange()
    inputs = inputs_of(model, example_inputs, carriers) if compared and carriers else {}
    values: dict[Keys, int]
    needless = False
    for path, carrier in carriers.items():
        if compared and path not in inputs:
            values, missing = {}, "the example does not run it"
        elif compared:
            parts, own = (_part(before, path), _part(after, path)), None if path else returned
            values, missing, needless = _described(carrier, inputs[path], *parts, own)
        else:
            values, missing = {}, NOT_COMPARED
        if missing:
            change.missing = change.missing or _of(path, missing)
            continue
        old = dict(integers(carrier.config))
        change.settings[path] = [([*keys], value) for keys, value in values.items()]
        names = {keys: ".".join(map(str, (*filter(None, [path]), *keys))) for keys in values}
        change.values |= {names[keys]: (old.get(keys), value) for keys, value in values.items()}
        put_config(model, carrier.config, values)
        if needless:
            _as_built(carrier, values)
    changed = {name for name in before.keys() | after if before.get(name) != after.get(name)}
    described = {n for n in changed if any(_within(n, path) for path in change.settings)}
    for path, module in model.named_modules():
        if not callable(getattr(type(module), "save_pretrained", None)):
            continue
        if undescribed := sorted(n for n in changed - described if _within(n, path)):
            first = undescribed[0]
            why = change.missing or f"it says nothing of {first!r}, which is {after.get(first)} now"
            change.refused[path] = why
    change.missing = change.missing or next(iter(change.refused.values()), "")
    refuse_saving(model, change.refused)
    return change if carriers or change.refused else None


def _of(path: str, missing: str) -> str:
    return f"of {path!r}: {missing}" if path else missing


def _within(name: str, path: str) -> bool:
    return not path or name.startswith(f"{path}.")


def _carriers(model: nn.Module, before: Shapes, after: Shapes) -> dict[str, nn.Module]:
    """The outermost modules that carry a config and have changed."""
    found: dict[str, nn.Module] = {}
    for path, module in model.named_modules():
        config = getattr(module, "config", None)
        if any(_within(path, known) for known in found) or not is_config(config):
            continue
        if hasattr(type(config), "from_dict") and _part(before, path) != _part(after, path):
            found[path] = module
    return found


def _part(shapes: Shapes, path: str) -> dict[str, tuple[int, ...]]:
    """The shapes of a module, by the names that they have in it."""
    start = f"{path}." if path else ""
    return {n.removeprefix(start): s for n, s in shapes.items() if n.startswith(start)}


def _described(
    carrier: nn.Module,
    inputs: tuple[tuple[Any, ...], dict[str, Any]],
    before: Shapes,
    after: Shapes,
    returned: Found | None,
) -> tuple[dict[Keys, int], str, bool]:
    """The numbers with which a carrier's config describes it, and whether they do so alone.

    A forward may read what it does from the config. Then corrections of its source, made before
    the config was changed, are no longer needed, nor do they know the numbers that it reads now.
    """
    args, kwargs = inputs
    expected: Any = returned

    def as_expected(found: Any) -> bool:
        nonlocal expected
        if expected is returned and (returned is None or not same_outputs(returned, found)):
            # What was seen while it was watched may come of other kernels, which round otherwise.
            expected = carrier(*args, **kwargs)
        return same_outputs(expected, found)

    with untouched(carrier), evaluating(carrier), torch.no_grad():
        values, missing = find_values(carrier, args, kwargs, as_expected, before, after)
        if missing:
            return {}, missing, False
        put_config(carrier, carrier.config, values)
        kinds = {module: (type(module), dict(vars(module))) for module in carrier.modules()}
        for alone in (True, False) if any(map(corrections_of, kinds)) else (False,):
            if alone:
                _as_built(carrier, values)
            try:
                same = same_outputs(expected, carrier(*args, **kwargs))
            except (RuntimeError, SpeedupError):
                same = False
            finally:
                for module, (kind, attributes) in kinds.items():
                    module.__class__ = kind
                    vars(module).update(attributes)
            if same:
                return values, "", alone
    why = "with a config that describes its tensors the model computes something else"
    return {}, why, False


def _as_built(carrier: nn.Module, values: Values) -> None:
    """Take the corrections out of a carrier, and the sizes that its library would write down."""
    built = dict(built_like(carrier, values).named_modules())
    for name, module in carrier.named_modules():
        if corrections_of(module):
            correct(module, (), tuple(kept_attributes(module).items()))
            new = vars(built[name]) if name in built else {}
            for key, value in vars(module).items():
                if type(value) is int and type(new.get(key)) is int:
                    vars(module)[key] = new[key]


def inputs_of(
    model: nn.Module, example_inputs: Any, carriers: Mapping[str, nn.Module]
) -> dict[str, tuple[tuple[Any, ...], dict[str, Any]]]:
    """What each of these modules is called with when the model runs."""
    args, kwargs = arguments(example_inputs)
    if list(carriers) == [""]:
        return {"": (args, kwargs)}
    seen: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}

    def listener(path: str) -> Any:
        def listen(module: nn.Module, args: Any, kwargs: Any) -> None:
            seen.setdefault(path, (args, kwargs))

        return listen

    with untouched(model), evaluating(model), torch.no_grad():
        handles = [
            module.register_forward_pre_hook(listener(path), with_kwargs=True)
            for path, module in carriers.items()
        ]
        try:
            model(*args, **kwargs)
        finally:
            for handle in handles:
                handle.remove()
    return seen


def put_config(model: nn.Module, config: Any, values: Values) -> None:
    """Put a changed copy of a config where modules of a model hold the config itself."""
    copied: dict[int, Any] = {}
    changed = copy.deepcopy(config, copied)
    put_values(changed, values)
    for module in model.modules():
        own = vars(module)
        for name, value in own.items():
            own[name] = _with_copies(value, copied)
    give_layers_their_configs(model, changed)


def _with_copies(value: Any, copied: Mapping[int, Any]) -> Any:
    if is_config(value):
        return copied.get(id(value), value)
    if type(value) in (list, tuple):
        news = [_with_copies(item, copied) for item in value]
        if any(new is not old for new, old in zip(news, value, strict=True)):
            return type(value)(news)
    return value


class _Refusal:
    """What stands in the place of a model's `save_pretrained`; it is copied and pickled with it."""

    def __init__(self, model: str, why: str) -> None:
        self.model, self.why = model, why

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise SpeedupError(
            f"from_pretrained() could not read what save_pretrained() would write: the config does "
            f"not describe this smaller {self.model} ({self.why}). Write it with "
            "prune_core.save_pruned(model, path), and read it with "
            "prune_core.load_pruned(dense_model, path)."
        )


def refuse_saving(model: nn.Module, refused: Mapping[str, str]) -> None:
    """Let `save_pretrained` of these modules, `{name: reason}`, and of no others be refused."""
    for path, module in model.named_modules():
        if isinstance(vars(module).get("save_pretrained"), _Refusal):
            del vars(module)["save_pretrained"]
        if path in refused:
            vars(module)["save_pretrained"] = _Refusal(type(module).__name__, refused[path])
