"""What speedup did to a model besides its numbers, and how to do it to another one.

A small model is a dense one with smaller tensors, other sizes in its attributes, and here and
there a correction (see `corrections`). The last two fit in a page of JSON, which travels in the
header of the file that holds the tensors. So a small model is loaded into a freshly built dense
one, and nothing in the file is code.
"""

from __future__ import annotations

import copy
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from os import PathLike
from typing import Any

from torch import Tensor, nn

from prune_core.__about__ import __version__
from prune_core.errors import SpeedupError
from prune_core.files import write_safetensors
from prune_core.masking import bare, wrappers_in
from prune_core.traversal import modules_in, named_modules, named_parameters, named_tensors
from prune_speedup.torch.depth.steps import Step
from prune_speedup.torch.resize.attributes import Changed
from prune_speedup.torch.resize.copying import keep_in_copies
from prune_speedup.torch.resize.corrections import PlainCorrection, to_plain
from prune_speedup.torch.resize.smaller import corrections_of, kept_attributes
from prune_speedup.torch.saving import ConfigChange
from prune_speedup.torch.vocabulary.renumbering import Renumbering

__all__ = [
    "Surgery",
    "content_of",
    "keep_children",
    "plain_attributes",
    "record_step",
    "record_surgery",
    "record_tokens",
    "save_pruned",
    "shapes_of_tensors",
]

FORMAT, FORMAT_VERSION = "prune-model", "1"
MARK = "_prune_surgery"

_NEVER_PLAIN = frozenset({dict, OrderedDict, set, bool, str, float, type(None)})

Attributes = dict[str, dict[str, int | list[int]]]


@dataclass(slots=True)
class Surgery:
    """What to do to a dense model so that the small tensors fit.

    Attributes:
        attributes: `{module: {attribute: value}}`.
        sizes: `{module: [[path, value], ...]}` of integers within a tuple, a list or a dict.
        kept: `{module: [attribute, ...]}` of attributes that the module's class would not copy.
        corrections: `{module: [correction, ...]}`, see `corrections.to_plain`.
        biases: Names of biases that the dense model lacks: a constant was folded into them.
        buffers: Names of smaller buffers that the model's own `state_dict` does not save.
        config: `{module: [(keys, value), ...]}` of the configs that modules carry.
        refused: `{module: reason}` of those whose own `save_pretrained` nobody could read.
        blocks: What was taken out as a whole, step by step, before all of the above is done.
        children: `{module: [number, ...]}` of lists of modules, and which of these stayed. They
            go by the names of the first ones then.
        tokens: The token ids that are written down, and which tokens stayed, each time that some
            were taken out of a vocabulary.
    """

    attributes: Attributes = field(default_factory=dict)
    sizes: dict[str, list[tuple[list[str | int], int]]] = field(default_factory=dict)
    kept: dict[str, list[str]] = field(default_factory=dict)
    corrections: dict[str, list[PlainCorrection]] = field(default_factory=dict)
    biases: list[str] = field(default_factory=list)
    buffers: list[str] = field(default_factory=list)
    config: dict[str, list[tuple[list[str | int], int]]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    blocks: list[Step] = field(default_factory=list)
    children: dict[str, list[int]] = field(default_factory=dict)
    tokens: list[Renumbering] = field(default_factory=list)


def keep_children(module: nn.Module, stay: Sequence[int]) -> None:
    """Leave of a list or dict of modules only some, under the names of the first ones.

    A forward that asks for `experts["expert_0"]` or for `experts[0]` finds one there.
    """
    names = list(module._modules)
    children = [module._modules[names[at]] for at in stay]
    module._modules.clear()
    module._modules.update(zip(names, children, strict=False))


def plain_attributes(model: nn.Module) -> Attributes:
    """Return the whole numbers that modules write down, by module and attribute."""
    return {
        name: {
            key: _listed(value)
            for key, value in vars(module).items()
            if type(value) not in _NEVER_PLAIN and _is_plain(value)  # as most of it never is
        }
        for name, module in named_modules(model, every_name=True)
    }


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | list) else value


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return bool(value) and all(type(item) is int for item in value)
    return type(value) is int


def record_surgery(
    model: nn.Module,
    before: Attributes,
    shapes: Mapping[str, Any],
    config: ConfigChange | None,
    changed: Changed,
    children: Mapping[str, Sequence[int]] | None = None,
) -> None:
    """Note on the model what has changed since `before`, and since any earlier surgery.

    Args:
        model: The small model.
        before: The numbers that its modules wrote down.
        shapes: The shapes that its tensors had.
        config: What became of the config that it carries.
        changed: The integers that were found to be sizes.
        children: Which modules of a list stayed, where some have gone.
    """
    # Whoever puts the model back, as a rehearsal does, has the notes of before, and not these.
    surgery: Surgery = copy.deepcopy(vars(model).get(MARK)) or Surgery()
    for name, stay in (children or {}).items():
        earlier = surgery.children.get(name)
        surgery.children[name] = [at if earlier is None else earlier[at] for at in stay]
    surgery.biases += [name for name in named_parameters(model) if name not in shapes]
    if not all(map(_saves_all, modules_in(model))):
        saved = model.state_dict(keep_vars=True)
        surgery.buffers += [
            name
            for name, buffer in model.named_buffers()
            if name not in saved and buffer.shape != shapes[name] and name not in surgery.buffers
        ]
    for name, module in named_modules(model, every_name=True):
        now = vars(module)
        others = {
            key: _listed(now[key])
            for key, value in before.get(name, {}).items()
            if key in now and _is_plain(now[key]) and _listed(now[key]) != value
        }
        if others:
            surgery.attributes.setdefault(name, {}).update(others)
    for source, (_, new) in changed.items():
        if len(source.path) > 1:
            surgery.sizes.setdefault(source.module, []).append(([*source.path], new))
    modules = named_modules(model)
    surgery.kept = {name: [*found] for name, each in modules if (found := kept_attributes(each))}
    surgery.corrections = {
        name: to_plain(made) for name, each in modules if (made := corrections_of(each))
    }
    if config is not None:
        for name, settings in config.settings.items():
            known = {tuple(keys): value for keys, value in surgery.config.get(name, [])}
            known |= {tuple(keys): value for keys, value in settings}
            surgery.config[name] = [([*keys], value) for keys, value in known.items()]
        surgery.refused = dict(config.refused)
    model.__dict__[MARK] = surgery
    keep_in_copies(model, {"": [MARK]})


def _saves_all(module: nn.Module) -> bool:
    """Whether the `state_dict` of a module is sure to have all of its buffers."""
    kind = type(module)
    return (
        not module._non_persistent_buffers_set
        and not module._state_dict_hooks
        and kind.state_dict is nn.Module.state_dict
        and kind._save_to_state_dict is nn.Module._save_to_state_dict
    )


def record_step(model: nn.Module, step: Step) -> None:
    """Note on a model that blocks were taken out of it, and call by its new name what stays."""
    surgery: Surgery = vars(model).get(MARK) or Surgery()
    changed: dict[str, Any] = {
        "blocks": [*surgery.blocks, step],
        "tokens": [each.renamed(step.now) for each in surgery.tokens],
    }
    for each in fields(surgery):
        known = getattr(surgery, each.name)
        if isinstance(known, dict):
            changed[each.name] = {
                new: value for name, value in known.items() if (new := step.now(name)) is not None
            }
        elif each.name not in changed:
            changed[each.name] = [new for name in known if (new := step.now(name)) is not None]
    model.__dict__[MARK] = Surgery(**changed)
    keep_in_copies(model, {"": [MARK]})


def record_tokens(model: nn.Module, written: Renumbering) -> None:
    """Note on a model that tokens were taken out of its vocabulary."""
    surgery: Surgery = vars(model).get(MARK) or Surgery()
    model.__dict__[MARK] = replace(surgery, tokens=[*surgery.tokens, written])
    keep_in_copies(model, {"": [MARK]})


def shapes_of_tensors(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all parameters and buffers, also of buffers that are not saved."""
    return {name: tuple(tensor.shape) for name, tensor in named_tensors(model).items()}


def save_pruned(model: nn.Module, path: str | PathLike[str]) -> None:
    """Write a small model to a safetensors file, from which `load_pruned` brings it back.

    Args:
        model: A model that `shrink` has made smaller, trained since or not.
        path: The file; it appears whole or not at all.

    Raises:
        SpeedupError: The model is still wrapped.
    """
    with bare(model) as plain:
        metadata, tensors = content_of(plain)
    write_safetensors(path, tensors, metadata)


def content_of(model: nn.Module) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return the header and the tensors of a file."""
    wrapped = wrappers_in(model)
    if wrapped:
        raise SpeedupError(
            f"The model is wrapped ({next(iter(wrapped))!r} among others); take the masks out "
            "with prune_core.unwrap(model) before saving it."
        )
    if vars(model).get("_prune_graph"):
        raise SpeedupError(
            "This is a graph, which no freshly built model can become; write it with "
            "torch.export.save(torch.export.export(model, inputs), path)."
        )
    surgery: Surgery = vars(model).get(MARK) or Surgery()
    names, tensors = _untied(model)
    tensors |= {name: model.get_buffer(name).contiguous() for name in surgery.buffers}
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "prune_core": __version__,
        "surgery": json.dumps(asdict(surgery)),
        "tied": json.dumps(names),
    }
    return metadata, tensors


def _untied(model: nn.Module) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return each tensor once, and the first name of those that go by several."""
    first: dict[int, str] = {}
    tied: dict[str, str] = {}
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        known = first.setdefault(id(tensor), name)
        if known == name:
            tensors[name] = tensor.detach().contiguous()
        else:
            tied[name] = known
    return tied, tensors
