"""Checkpoints of a lottery."""

from __future__ import annotations

import io
import pickle
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from prune_core.errors import PruneError
from prune_core.files import replacing

__all__ = ["CheckpointError", "read_checkpoint", "write_checkpoint"]

KIND = "prune-lottery checkpoint 1"


class CheckpointError(PruneError, ValueError):
    """A checkpoint is damaged, of another kind, or made by another run."""


def write_checkpoint(path: str | PathLike[str], state: dict[str, Any], *, check: bool) -> None:
    """Write a state; the file always holds either the old state or the new one.

    Args:
        path: The file.
        state: Tensors and plain data.
        check: Whether to read it back first; what the safe loader refuses should be found now,
            and not by whoever tries to go on after a crash.
    """
    content = io.BytesIO()
    torch.save({"kind": KIND, **state}, content)
    if check:
        content.seek(0)
        try:
            torch.load(content, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise CheckpointError(
                "The state of this run holds more than tensors and plain data, so it could not be "
                f"read back safely: {str(error).splitlines()[0]} What train() returns, and the "
                "states of scheduler, ema and also, must be tensors, numbers, strings, lists and "
                "dicts."
            ) from error
    with replacing(path) as file:
        file.write(content.getbuffer())


def read_checkpoint(path: str | PathLike[str]) -> dict[str, Any]:
    """Read a state; the file cannot run code.

    Raises:
        CheckpointError: When it is damaged or holds something else.
    """
    try:
        with Path(path).open("rb") as file:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}.") from error
    except Exception as error:
        # On bytes that are no pickle the reader stumbles in as many ways as there are bytes.
        cause = " ".join(f"{type(error).__name__} {error}".split())[:200]
        raise CheckpointError(
            f"{path} is damaged or not a checkpoint: {cause}. Remove it to start over."
        ) from error
    if not isinstance(state, dict) or state.get("kind") != KIND:
        raise CheckpointError(
            f"{path} is not a checkpoint of a lottery; give another path, or remove it."
        )
    return state
