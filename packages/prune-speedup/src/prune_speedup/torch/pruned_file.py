"""A small model from a file, into a freshly built dense one.

A file may be damaged, of another model, or made to do harm. So nothing of it is used before all of
it has been checked: the header against its schema, then header and tensors against the model. What
is written afterwards is what `shrink` writes, and nothing else: tensors of the kind that is there,
no larger; whole numbers in the place of larger ones; corrections of calls that take sizes. If
something fails even then, the model is put back.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from itertools import chain
from os import PathLike, fspath
from typing import Any

from torch import Tensor, nn

from prune_core.config.names import find_names
from prune_core.errors import SpeedupError, did_you_mean
from prune_core.masking import bare, check_model, wrappers_in
from prune_speedup.torch.model_config.build import built_like, shapes_of
from prune_speedup.torch.model_config.numbers import PER_LAYER, is_config
from prune_speedup.torch.parts import put
from prune_speedup.torch.resize.copying import keep_in_copies
from prune_speedup.torch.resize.corrections import from_plain
from prune_speedup.torch.resize.layers import resize, sizes_written
from prune_speedup.torch.resize.smaller import correct
from prune_speedup.torch.resize.traced_integers import Source, read, write
from prune_speedup.torch.saving import put_config, refuse_saving
from prune_speedup.torch.schema import parse_json
from prune_speedup.torch.surgery import FORMAT, FORMAT_VERSION, MARK, Surgery, keep_children
from prune_speedup.torch.tensors import Snapshot

__all__ = ["load_pruned"]

_GAINS_BIAS = (nn.Linear, nn.modules.conv._ConvNd)


class _RefusedError(Exception):
    """What is wrong with a file, without its name."""


def load_pruned(model: nn.Module, path: str | PathLike[str]) -> nn.Module:
    """Make a freshly built dense model the small one that a file holds.

    Args:
        model: A dense model of the same class and configuration, changed in place. Its
            parameters stay the objects that they are.
        path: Written by `save_pruned`, or by `SpeedupReport.save`.

    Returns:
        `model`.

    Raises:
        SpeedupError: The file is missing, damaged, or of another model; the model is untouched.
    """
    check_model(model, compiled=False)
    with bare(model) as plain:
        untouched = Snapshot(plain)
        try:
            surgery, tied, tensors = _read(path)
            _take_out(plain, surgery)
            _keep_children(plain, surgery.children)
            _renumber(plain, surgery)
            small = _Small(plain, surgery, tied, tensors)
            small.check()
            small.apply()
        except _RefusedError as error:
            untouched.restore()
            raise SpeedupError(f"{path}: {error}") from None
        except BaseException:
            untouched.restore()
            raise
    return model


def _read(
    path: str | PathLike[str],
) -> tuple[Surgery, dict[str, str], dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        path = fspath(path)
        with open(path, "rb"):  # noqa: PTH123 - what the system says of a path is clearer
            pass
    except OSError as error:
        raise _RefusedError(f"{error.strerror or error}.") from None
    except (TypeError, ValueError) as error:
        raise SpeedupError(f"{path!r} cannot be the path of a file: {error}.") from None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") == FORMAT:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise _RefusedError(f"it is damaged or no safetensors file: {error}.") from None
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise _RefusedError(
            f"it holds tensors of a type that torch does not have: {error}."
        ) from None
    if metadata.get("format") != FORMAT:
        raise _RefusedError(
            f"it is a safetensors file, but not one that save_pruned wrote: its header does not "
            f"say format {FORMAT!r}."
        )
    if metadata.get("format_version") != FORMAT_VERSION:
        raise _RefusedError(
            f"it has format version {metadata.get('format_version')}; this prune-speedup reads "
            f"version {FORMAT_VERSION}. Upgrade prune-speedup."
        )
    try:
        surgery = parse_json(metadata.get("surgery", ""), Surgery, "surgery")
        tied = parse_json(metadata.get("tied", ""), dict[str, str], "tied")
    except ValueError as error:
        raise _RefusedError(f"its header is damaged: {error}.") from None
    return surgery, tied, {name: tensor.cpu() for name, tensor in tensors.items()}


def _take_out(model: nn.Module, surgery: Surgery) -> None:
    """Take out the blocks that the model in the file lacks."""
    for step in surgery.blocks:
        try:
            step.apply(model)
        except (SpeedupError, LookupError, AttributeError, TypeError, ValueError) as error:
            raise _RefusedError(f"it takes blocks out of another model: {error}") from None


def _keep_children(model: nn.Module, children: Mapping[str, list[int]]) -> None:
    """Take the modules out of lists that the small model has no longer."""
    modules = dict(model.named_modules(remove_duplicate=False))
    for name, stay in children.items():
        held = modules.get(name)
        if not isinstance(held, nn.ModuleList | nn.ModuleDict):
            raise _RefusedError(f"it takes modules out of {name!r}, which is no list of modules.")
        if not stay or stay != sorted({*stay} & {*range(len(held))}):
            raise _RefusedError(
                f"it keeps the modules {stay} of {name!r}, which has {len(held)}. Is the model "
                "dense?"
            )
        keep_children(held, stay)


def _renumber(model: nn.Module, surgery: Surgery) -> None:
    """Give the tokens that the model names the ids that they have in the file."""
    for written in surgery.tokens:
        try:
            written.apply(model)
        except (SpeedupError, LookupError, AttributeError, TypeError, ValueError) as error:
            raise _RefusedError(f"it takes tokens out of another model: {error}") from None


class _Small:
    """What a file makes of a model: checked first, then done."""

    def __init__(
        self,
        model: nn.Module,
        surgery: Surgery,
        tied: Mapping[str, str],
        tensors: Mapping[str, Tensor],
    ) -> None:
        self.model, self.surgery = model, surgery
        self.modules = dict(model.named_modules(remove_duplicate=False))
        saved: dict[str, Any] = model.state_dict(keep_vars=True)
        self.own: dict[str, Any] = dict(model.named_buffers(remove_duplicate=False)) | saved
        self.required = list(saved)
        names = find_names([*tensors, *tied, *tied.values()], self.own)
        # A layer that only gains its bias is known by the layer's name.
        self.tensors = {names[name]: tensor for name, tensor in tensors.items()}
        self.tied = {names[name]: names[first] for name, first in tied.items()}

    def check(self) -> None:
        """Refuse whatever does not fit, before anything is done."""
        if wrapped := wrappers_in(self.model):
            raise _RefusedError(
                f"it goes into a plain model, and {next(iter(wrapped))!r} is wrapped by a pruner; "
                "unwrap the model first, prune_core.unwrap(model)."
            )
        self._check_names()
        for name, tensor in self.tensors.items():
            if name in self.own:
                self._check_tensor(name, tensor)
        self._check_ties()
        surgery = self.surgery
        changed = (
            *(surgery.attributes, surgery.sizes, surgery.kept, surgery.corrections),
            *(surgery.config, surgery.refused),
        )
        for name in chain(*changed):
            if name not in self.modules:
                raise _RefusedError(f"it changes {name!r}, and the model has no such module.")
        for name in self.surgery.biases:
            self._check_bias(name)
        for module, attributes in self.surgery.attributes.items():
            for name, value in attributes.items():
                self._check_attribute(module, name, value)
        for module, settings in self.surgery.config.items():
            for keys, value in settings:
                self._check_setting(module, keys, value)
        for module, sizes in self.surgery.sizes.items():
            for path, value in sizes:
                self._check_size(Source(module, tuple(path)), value)
        for module, corrections in self.surgery.corrections.items():
            if not all(path for path, _ in corrections):
                raise _RefusedError(f"it corrects nothing that is there in {module!r}.")
        for module, kept in self.surgery.kept.items():
            for name in kept:
                if name not in vars(self.modules[module]):
                    raise _RefusedError(
                        f"it keeps {name!r} of {module!r}, which has no such thing."
                    )

    def _check_names(self) -> None:
        names = {**dict.fromkeys(self.tensors), **self.tied}
        for name in (*names, *self.tied.values()):
            if name not in self.own and name not in self.surgery.biases:
                raise _RefusedError(
                    f"it has {name!r}, and the model has no such tensor."
                    f"{did_you_mean(name, self.own)} Is it built like the one that was pruned?"
                )
        missing = [name for name in self.required if name not in names]
        if missing:
            raise _RefusedError(
                f"it lacks {missing[0]!r}, which the model has. Is it built like the one that was "
                "pruned?"
            )

    def _check_tensor(self, name: str, tensor: Tensor) -> None:
        own = self.own[name]
        if not isinstance(own, Tensor):
            raise _RefusedError(f"it has the tensor {name!r}, which is none in the model.")
        if own.is_meta:
            raise _RefusedError(
                f"{name!r} of the model is on the meta device, where it has no numbers to be "
                "replaced. Build the model on a real device."
            )
        kinds = [(t.is_floating_point(), t.is_complex()) for t in (own, tensor)]
        if kinds[0] != kinds[1] or (not any(kinds[0]) and own.dtype != tensor.dtype):
            raise _RefusedError(
                f"{name!r} holds {_called(tensor)} in it and {_called(own)} in the model."
            )
        larger = any(n > o for n, o in zip(tensor.shape, own.shape, strict=False))
        if tensor.ndim != own.ndim or larger:
            raise _RefusedError(
                f"{name!r} is {tuple(tensor.shape)} in it and {tuple(own.shape)} in the model; "
                "pruning never makes a tensor larger. Is the model dense?"
            )

    def _check_ties(self) -> None:
        """What is one tensor in the file must be one in the model, and the other way round."""
        first: dict[int, str] = {}
        for name in self.required:
            if not isinstance(self.own[name], Tensor):
                continue
            known = first.setdefault(id(self.own[name]), name)
            if self.tied.get(name, name) != self.tied.get(known, known):
                raise _RefusedError(
                    f"{known!r} and {name!r} are one tensor in the model, and two in the file."
                )
        for name, other in self.tied.items():
            if self.own.get(name) is not self.own.get(other) or other not in self.tensors:
                raise _RefusedError(
                    f"{other!r} and {name!r} are one tensor in the file, and two in the model."
                )

    def _check_bias(self, name: str) -> None:
        path, _, leaf = name.rpartition(".")
        layer, tensor = self.modules.get(path), self.tensors.get(name)
        weight = None if layer is None else self.tensors.get(f"{path}.weight".lstrip("."))
        if (
            leaf != "bias"
            or not isinstance(layer, _GAINS_BIAS)
            or layer.bias is not None
            or tensor is None
            or weight is None
            or tensor.ndim != 1
            or tensor.dtype != weight.dtype
        ):
            raise _RefusedError(f"it gives {path!r} the bias {name!r}, which that cannot have.")

    def _check_attribute(self, module: str, name: str, value: int | list[int]) -> None:
        holder = self.modules[module]
        old = vars(holder).get(name)
        written = sizes_written(type(holder))
        if type(old) is int and isinstance(value, int):
            fits = _smaller([value], [old])
        elif isinstance(old, list | tuple) and isinstance(value, list):
            fits = _smaller(value, [*old])
        else:
            fits = False
        if not fits or not (written is None or name in written):
            raise _RefusedError(
                f"it sets {name!r} of {module or 'the model'}, a {type(holder).__name__}, to "
                f"{value}, and what is there ({_plainly(old)}) is no size that pruning makes "
                "smaller."
            )

    def _check_size(self, source: Source, value: int) -> None:
        """An integer within a tuple, a list or a dict that a module keeps."""
        old: Any = None
        with suppress(LookupError, TypeError, AttributeError):
            old = read(self.model, source)
        if type(old) is not int or not _smaller([value], [old]):
            raise _RefusedError(
                f"it sets {source} to {value}, and what is there ({_plainly(old)}) is no size that "
                "pruning makes smaller."
            )

    def _check_setting(self, module: str, keys: list[str | int], value: int) -> None:
        """A size that a config has, or one that its model makes up where it has none."""
        holder: Any = getattr(self.modules[module], "config", None)
        if PER_LAYER in keys[:-2]:
            # A number of one layer: what it may be is said by the number of all.
            at = keys.index(PER_LAYER)
            keys = [*keys[:at], *keys[at + 2 :]]
        *outer, last = keys or [""]
        for key in outer:
            holder = _held(holder, key)
        old = _held(holder, last)
        if isinstance(last, str) and is_config(holder):
            made_up = last.isidentifier() and not last.startswith("_")
            made_up = made_up and getattr(holder, last, None) is None
        else:
            made_up = False
        if value < 1 or not (made_up or (type(old) is int and value <= old)):
            raise _RefusedError(
                f"it sets {'.'.join(map(str, keys))!r} in the config of {module or 'the model'} to "
                f"{value}, and there is no size that pruning makes smaller."
            )

    def apply(self) -> None:
        """Do what the file says."""
        for name, tensor in self.tensors.items():
            if name in self.own:
                put(self.own[name], tensor.to(self.own[name].device), None)
        for name in self.surgery.biases:
            layer = self.modules[name.rpartition(".")[0]]
            device = layer.get_parameter("weight").device
            layer.register_parameter("bias", nn.Parameter(self.tensors[name].to(device)))
        for module, attributes in self.surgery.attributes.items():
            for name, value in attributes.items():
                own = self.modules[module].__dict__
                same = list if isinstance(own[name], list) else tuple
                own[name] = same(value) if isinstance(value, list) else value
        resize(self.model)
        for module, attributes in self.surgery.attributes.items():
            for name, value in attributes.items():
                now = vars(self.modules[module])[name]
                if value != (list(now) if isinstance(now, tuple) else now):
                    raise _RefusedError(
                        f"it says that {name!r} of {module!r} is {value}, and by the tensors in it "
                        f"that is {now}."
                    )
        for module, sizes in self.surgery.sizes.items():
            for path, value in sizes:
                write(self.model, Source(module, tuple(path)), value)
        for module in {**self.surgery.kept, **self.surgery.corrections}:
            own = vars(self.modules[module])
            kept = tuple((name, own[name]) for name in self.surgery.kept.get(module, ()))
            corrections = from_plain(self.surgery.corrections.get(module, []))
            try:
                correct(self.modules[module], corrections, kept)
            except (SpeedupError, LookupError, AttributeError, SyntaxError) as error:
                raise _RefusedError(f"it corrects {module!r}, and {error}") from None
        for module, settings in self.surgery.config.items():
            values = {tuple(keys): value for keys, value in settings}
            carrier: Any = self.modules[module]
            put_config(self.model, carrier.config, values)
            if shapes_of(built_like(carrier, {})) != shapes_of(carrier):
                raise _RefusedError(f"the config in it makes another {type(carrier).__name__}.")
        refuse_saving(self.model, self.surgery.refused)
        self.model.__dict__[MARK] = self.surgery
        keep_in_copies(self.model, {"": [MARK]})


def _smaller(news: list[int], olds: list[Any]) -> bool:
    """Whether each of some numbers is no larger than another, and of the same sign."""
    return len(news) == len(olds) and all(
        type(old) is int and abs(new) <= abs(old) and new * old >= 0
        for new, old in zip(news, olds, strict=True)
    )


def _held(holder: Any, key: str | int) -> Any:
    """What stands in a config, or in a list in one; None where nothing does."""
    if isinstance(holder, list) and isinstance(key, int) and 0 <= key < len(holder):
        return holder[key]
    return vars(holder).get(key) if is_config(holder) and isinstance(key, str) else None


def _called(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _plainly(value: Any) -> str:
    return repr(value) if isinstance(value, int | float | str | None) else type(value).__name__
