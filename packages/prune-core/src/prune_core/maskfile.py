"""Mask files: safetensors, the same for every framework, and never code.

Each tensor is named `module.tensor` and holds booleans; its axes lie in torch's order, output
channels first, whichever framework wrote it. The header says so, that the file is one of ours, and
which algorithm made it from which config.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prune_core.__about__ import __version__
from prune_core.errors import MaskFileError, MissingDependencyError, shown
from prune_core.files import write_safetensors

if TYPE_CHECKING:
    import numpy as np

__all__ = ["MaskFile", "read_mask_file", "write_mask_file"]

FORMAT, FORMAT_VERSION = "prune-masks", "1"
AXES = "output channels, input channels, space"


@dataclass(frozen=True)
class MaskFile:
    """What a mask file holds.

    Attributes:
        masks: `{module name: {tensor name: boolean array}}`.
        algorithm: Name of the class that made the masks.
        version: Version of prune-core that wrote the file.
        config: The settings per module, as far as JSON can say them.
    """

    masks: Mapping[str, Mapping[str, np.ndarray[Any, Any]]]
    algorithm: str = ""
    version: str = __version__
    config: Mapping[str, Any] = field(default_factory=dict)


def write_mask_file(path: str | PathLike[str], content: MaskFile) -> None:
    """Write masks to a file, which appears whole or not at all."""
    _safetensors()
    tensors = {
        f"{module}.{name}": mask
        for module, masks in content.masks.items()
        for name, mask in masks.items()
    }
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "axes": AXES,
        "algorithm": content.algorithm,
        "prune_core": content.version,
        "config": json.dumps(content.config, default=str),
    }
    write_safetensors(path, tensors, metadata, framework="numpy")


def read_mask_file(path: str | PathLike[str]) -> MaskFile:
    """Read masks from a file.

    Raises:
        MaskFileError: When the file is missing, damaged, or not a mask file.
    """
    numpy = _safetensors()
    from safetensors import SafetensorError, safe_open

    path = as_path(path)
    try:
        with path.open("rb"):
            pass
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise MaskFileError(
                f"{path} is a safetensors file, but not one of masks: its header does not say "
                f"format {FORMAT!r}. Was the model's own file given?"
            )
        config = _table(metadata.get("config", "{}"))
        tensors = numpy.load_file(path)
    except OSError as error:
        raise MaskFileError(f"{path}: {error.strerror or error}.") from error
    except SafetensorError as error:
        raise MaskFileError(f"{path} is damaged or not a mask file: {error}.") from error
    except ValueError as error:
        raise MaskFileError(f"{path} is damaged: {error}.") from error
    except (TypeError, AttributeError, KeyError) as error:
        # Types that numpy does not have, such as bfloat16.
        raise MaskFileError(f"{path}: a mask holds booleans, not this: {error}.") from error
    if metadata.get("format_version") != FORMAT_VERSION:
        raise MaskFileError(
            f"{path} has format version {metadata.get('format_version')}; this prune-core "
            f"{__version__} reads version {FORMAT_VERSION}. Upgrade prune-core."
        )
    masks: dict[str, dict[str, np.ndarray[Any, Any]]] = {}
    for key, mask in tensors.items():
        if mask.dtype != bool:
            raise MaskFileError(f"{path}: {key} holds {mask.dtype}, and a mask holds booleans.")
        if (mask.view("uint8") > 1).any():
            raise MaskFileError(f"{path} is damaged: {key} has bytes that are neither 0 nor 1.")
        module, _, name = key.rpartition(".")
        masks.setdefault(module, {})[name] = mask
    return MaskFile(
        masks=masks,
        algorithm=metadata.get("algorithm", ""),
        version=metadata.get("prune_core", ""),
        config=config,
    )


def _table(text: str) -> dict[str, Any]:
    """Read the config in a header."""
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the config in its header is no JSON: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"the config in its header is {shown(config)}; it must be a table")
    return config


def as_path(path: object) -> Path:
    """Return a path, or refuse what can be none."""
    if not isinstance(path, str | PathLike) or "\0" in str(path):
        raise MaskFileError(f"{path!r} cannot be the path of a file.")
    return Path(path)


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise MissingDependencyError(
            "Mask files need safetensors and numpy: `pip install 'prune-core[torch]'`, or "
            "`pip install safetensors numpy` beside another framework."
        ) from None
    return safetensors.numpy
