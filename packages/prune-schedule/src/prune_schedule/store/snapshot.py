"""Snapshots of a run: model, masks, optimizer, random numbers."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from glob import escape
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from prune_core import ConfigError, PruneError, Pruner
from prune_core.files import replacing
from prune_core.masking import PrunerModuleWrapper
from prune_core.masking.sharded import is_sharded
from prune_schedule.run.interruption import undisturbed
from prune_schedule.run.processes import everyone, is_first, rank
from prune_toolkit.running.random_state import put_random, take_random

__all__ = ["MasksInForce", "Plain", "Snapshots", "Stateful"]

FORMAT = "prune-schedule-1"


class Stateful(Protocol):
    """An optimizer, a learning-rate scheduler, or anything else that keeps state in this way."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state, as tensors and plain data."""

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any:
        """Go on from a state."""


class Plain:
    """The state of a pruner's model, under the names without wrappers.

    Which wrappers are in it may differ between then and now; masks are kept by the pruner.
    """

    def __init__(self, pruner: Pruner) -> None:
        self._pruner = pruner

    @property
    def model(self) -> nn.Module:
        """The model, as it is now."""
        return self._pruner.bound_model

    def state_dict(self) -> dict[str, Any]:
        """Return parameters and buffers, without masks."""
        with self._pruner.plain() as model:
            return model.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        """Put them back."""
        with self._pruner.plain() as model:
            model.load_state_dict(state_dict)


class MasksInForce:
    """The masks of a pruner, beside the `Plain` model that they mask."""

    def __init__(self, pruner: Pruner) -> None:
        self._pruner = pruner

    def state_dict(self) -> dict[str, Any]:
        """Return the masks, `{module: {tensor: mask}}`."""
        return {name: dict(tensors) for name, tensors in self._pruner.masks.items()}

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        """Put them back in force."""
        self._pruner.load_masks(state_dict)


class Snapshots:
    """Keeps the latest snapshot of a run, in a file or in memory.

    A file is written under another name and then renamed, so a process that is killed leaves the
    one before or the one after. It is read with `weights_only=True`: it cannot run code.

    Args:
        path: The file, or None to keep the snapshot in memory.
        run: What the run does, as plain data: a file of another run is refused.
        parts: What has state, by name; the model is one of them.
    """

    def __init__(
        self,
        path: str | PathLike[str] | None,
        run: Mapping[str, Any],
        parts: Mapping[str, Stateful],
    ) -> None:
        self.path = None if path is None else Path(path)
        self.run, self.parts = dict(run), dict(parts)
        self._kept: dict[str, Any] | None = None
        self._random: list[dict[str, Any]] = []

    def save(self) -> None:
        """Save the current state. Every process of a distributed run must call this.

        Raises:
            PruneError: When this process has but a part of the model.
        """
        for model in map(_model_of, self.parts.values()):
            if model is not None and any(map(is_sharded, model.parameters())):
                raise PruneError(
                    "The model is cut over several processes by fully_shard(), and a checkpoint "
                    "would hold but a part of it. Leave checkpoint= out, and keep the model with "
                    "torch.distributed.checkpoint and the masks with pruner.save_masks()."
                )
        states = {
            "format": FORMAT,
            "run": self.run,
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
            "random": everyone(take_random()),
        }
        if self.path is None:
            self._kept = copy.deepcopy(states)
        elif is_first():
            # Interrupted while it writes, torch raises an error of its own instead.
            with undisturbed(), replacing(self.path) as file:
                torch.save(states, file)

    def restore(self) -> bool:
        """Restore the saved state, and return whether there was one.

        Raises:
            PruneError: When the file cannot be read.
            ConfigError: When it is of another run.
        """
        if self.path is None:
            states = self._kept
        else:
            states = self._read(self.path)
            _sweep(self.path)
        if states is None:
            return False
        if self.path is not None:
            self._check_models(self.path, states["parts"])
        for name, part in self.parts.items():
            state = states["parts"][name]
            if (model := _model_of(part)) is not None:
                _clear_masks(model)  # a mask that was not there is not in the state either
            part.load_state_dict(copy.deepcopy(state) if self.path is None else state)
        self._random = states["random"]
        self.restore_random_numbers()
        return True

    def restore_random_numbers(self) -> None:
        """Reset the random numbers to those of the snapshot.

        A process that was not there then, because there were fewer, goes on as the first one.
        """
        mine = rank()
        put_random(self._random[mine if mine < len(self._random) else 0])

    def _read(self, path: Path) -> dict[str, Any] | None:
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise PruneError(f"checkpoint {path}: {error.strerror or error}.") from error
        with file:
            try:
                states = torch.load(file, map_location="cpu", weights_only=True)
            except Exception as error:
                raise PruneError(
                    f"checkpoint {path} is damaged or not a checkpoint "
                    f"({' '.join(f'{type(error).__name__}: {error}'.split())[:200]}). Give "
                    "another path, or delete the file to start anew."
                ) from error
        if not isinstance(states, dict) or states.get("format") != FORMAT:
            raise PruneError(
                f"checkpoint {path} is not one of a schedule of this version. Give another path, "
                "or delete the file to start anew."
            )
        self._check_run(path, states)
        return states

    def _check_run(self, path: Path, states: Mapping[str, Any]) -> None:
        for key, value in self.run.items():
            if states["run"].get(key) != value:
                raise ConfigError(
                    f"checkpoint {path} is of a run whose {key} is {states['run'].get(key)!r}; "
                    f"here it is {value!r}. Give another path, or delete the file to start anew."
                )
        lost = sorted(set(self.parts) ^ set(states["parts"]))
        if lost:
            raise ConfigError(
                f"checkpoint {path} keeps {', '.join(sorted(states['parts']))}; this run keeps "
                f"{', '.join(sorted(self.parts))}. They have to be the same, so that {lost[0]!r} "
                "goes on where it was."
            )

    def _check_models(self, path: Path, states: Mapping[str, Any]) -> None:
        """Refuse tensors that a model does not have, before any of them is put into it."""
        for name, part in self.parts.items():
            if _model_of(part) is None:
                continue
            kept, here = _shapes(states[name]), _shapes(part.state_dict())
            for tensor in {**here, **kept}:
                if kept.get(tensor) != here.get(tensor):
                    raise ConfigError(
                        f"checkpoint {path} is of another model: {tensor!r} has the shape "
                        f"{kept.get(tensor)} there and {here.get(tensor)} here. Give another path, "
                        "or delete the file to start anew."
                    )


def _model_of(part: Stateful) -> nn.Module | None:
    if isinstance(part, Plain):
        return part.model
    return part if isinstance(part, nn.Module) else None


def _shapes(states: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors but masks, which come and go."""
    return {
        name: tuple(tensor.shape)
        for name, tensor in states.items()
        if isinstance(tensor, torch.Tensor) and not name.endswith("_mask")
    }


def _sweep(path: Path) -> None:
    """Delete what processes left that were killed while they wrote."""
    if is_first():
        for unfinished in path.parent.glob(f".{escape(path.name)}.*"):
            unfinished.unlink(missing_ok=True)


def _clear_masks(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, PrunerModuleWrapper):
            for name in module.masked_names:
                module._buffers[f"{name}_mask"] = None
