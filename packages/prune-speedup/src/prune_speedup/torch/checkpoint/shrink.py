"""Make a checkpoint smaller that may be bigger than memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from torch import nn

from prune_core.errors import ConfigError, MissingDependencyError, SpeedupError, shown
from prune_speedup.engine.units import Unit
from prune_speedup.torch.checkpoint.choosing import worst_units
from prune_speedup.torch.checkpoint.cutting import CutCheckpoint
from prune_speedup.torch.checkpoint.shards import INDEX, Shards
from prune_speedup.torch.model_config.build import without_numbers
from prune_speedup.torch.pretrained import class_of
from prune_speedup.torch.proof.higher_precision import one_at_a_time
from prune_speedup.torch.report import SpeedupReport
from prune_speedup.torch.speedup import make_small, tell

__all__ = ["shrink_checkpoint"]

Units = Iterable[Unit | Mapping[str, Mapping[int, Iterable[int]]]]


def shrink_checkpoint(
    folder: str | PathLike[str],
    out: str | PathLike[str],
    example_inputs: Any,
    *,
    sparsity: float | None = None,
    algorithm: str = "l1",
    exclude: Collection[str] = (),
    round_to: int = 1,
    units: Units | None = None,
    model_class: Any = None,
    verify_inputs: Sequence[Any] = (),
    tolerance: float | None = None,
) -> SpeedupReport:
    """Make a model in a folder smaller, without ever having all of it in memory.

    The files are mapped into memory: a tensor is read where it is looked at, and may be forgotten
    afterwards. Each file becomes one of the same name in the other folder, a tensor at a time. If
    that is interrupted, the same call goes on after the files that are there. Both models are
    compared as `shrink` does it; only that shows which config describes the small one, too.

    Args:
        folder: What `save_pretrained` of transformers wrote, in safetensors files.
        out: A new folder, from which `from_pretrained` reads the small model.
        example_inputs: A tensor, a tuple of positional or a dict of keyword arguments.
        sparsity: The share of each group of channels that goes. Layers that are alike lose as
            many, and channels that a normalisation runs over stay.
        algorithm: The name of a pruner that ranks output channels by their weights alone.
        exclude: The names of modules that keep all of their channels.
        round_to: Leave a multiple of this many channels.
        units: What goes, instead of a sparsity: as `shrink` takes it.
        model_class: The class of the model, unless the config names it.
        verify_inputs: More inputs to compare the small model on with the big one in which what goes
            is zero.
        tolerance: The largest difference allowed; by default what rounding does.

    Returns:
        The report of `shrink`. Its model is the small one, mapped from the new files.

    Raises:
        ConfigError: The folder is none of a model, or `out` holds something else.
        SpeedupError: The small model would compute something else, or the config cannot describe
            it; nothing is left in `out`.

    Example:
        ```python
        report = prune_core.shrink_checkpoint("big", "small", {"input_ids": ids}, sparsity=0.3)
        print(report)
        model = LlamaForCausalLM.from_pretrained("small")
        ```
    """
    source, target = Path(folder), Path(out)
    if (units is None) == (sparsity is None):
        raise ConfigError("Say what goes, once: sparsity=0.3, or units=[...].")
    if sparsity is not None and not (isinstance(sparsity, int | float) and 0 < sparsity < 1):
        raise ConfigError(f"sparsity is {shown(sparsity)}; it must be between 0 and 1.")
    if source.resolve() == target.resolve():
        raise ConfigError(f"out is {str(out)!r}, the folder that is read; give another.")
    shards = Shards(source)
    model = _opened(source, shards, model_class)
    cutting = CutCheckpoint(shards, target)
    chosen = units
    try:
        if sparsity is not None:
            chosen = worst_units(
                model,
                example_inputs,
                algorithm=algorithm,
                sparsity=sparsity,
                exclude=exclude,
                round_to=round_to,
            )
        with one_at_a_time():
            report = make_small(
                model,
                example_inputs,
                units=chosen,  # type: ignore[arg-type]
                verify_inputs=verify_inputs,
                tolerance=tolerance,
                cutting=cutting,
            )
        _write_the_rest(report, source, target, shards)
    except (ConfigError, SpeedupError):
        cutting.discard()
        raise
    cutting.finish()
    tell(report)
    return report


def _opened(folder: Path, shards: Shards, model_class: Any) -> nn.Module:
    """Build the model of a folder, with its tensors mapped from the files."""
    try:
        from transformers import AutoConfig
    except ModuleNotFoundError:
        raise MissingDependencyError(
            "prune_core.shrink_checkpoint needs transformers: `pip install transformers`."
        ) from None
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"{str(folder)!r} holds no config.json, so save_pretrained did not write it."
        )
    config = AutoConfig.from_pretrained(folder)
    kind = class_of(config, folder) if model_class is None else model_class
    with without_numbers():
        model: nn.Module = kind(config)
        if callable(tie := getattr(model, "tie_weights", None)):
            tie()
    model.eval()
    _put_in(model, shards)
    return model


def _put_in(model: nn.Module, shards: Shards) -> None:
    places: dict[str, tuple[dict[str, Any], str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for held in (module._parameters, module._buffers):
            for key in (key for key, tensor in held.items() if tensor is not None):
                places[f"{path}.{key}".lstrip(".")] = held, key
    big: dict[int, nn.Parameter] = {}
    for name, tensor in shards:
        if name not in places:
            raise ConfigError(
                f"The files hold {name!r}, and a {type(model).__name__} has no tensor of that "
                "name: it is put together of others when it is loaded, which cannot be done shard "
                "by shard. Load it with from_pretrained, write it with save_pruned or in a form "
                "that names each tensor, or use shrink in memory."
            )
        held, key = places[name]
        before = held[key]
        if tuple(before.shape) != tuple(tensor.shape):
            raise ConfigError(
                f"{name!r} has the shape {tuple(tensor.shape)} in the files, and the config says "
                f"{tuple(before.shape)}."
            )
        if isinstance(before, nn.Parameter):
            big[id(before)] = nn.Parameter(tensor, requires_grad=tensor.is_floating_point())
        else:
            held[key] = tensor
    for name, (held, key) in places.items():
        now = held[key]
        if isinstance(now, nn.Parameter):
            if id(now) in big:
                held[key] = big[id(now)]
            elif now.is_meta:
                raise ConfigError(f"The files lack {name!r}, which a {type(model).__name__} has.")


def _write_the_rest(report: SpeedupReport, source: Path, target: Path, shards: Shards) -> None:
    """Write the config, and copy what else there is, such as a tokenizer."""
    model: Any = report.model
    if report.config is None or report.config.missing:
        why = "" if report.config is None else f": {report.config.missing}"
        raise SpeedupError(
            f"The config cannot describe the smaller {type(model).__name__}{why.rstrip('.')}. "
            "Choose other units; with sparsity=... layers that are alike stay alike."
        )
    model.config.save_pretrained(target)
    dtype = json.loads((source / "config.json").read_text()).get("dtype")
    if dtype is not None:
        told = json.loads((target / "config.json").read_text())
        (target / "config.json").write_text(json.dumps({**told, "dtype": dtype}, indent=2) + "\n")
    written = {*shards.files, INDEX, "config.json"}
    for file in source.iterdir():
        weights = file.suffix in (".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack")
        if file.is_file() and file.name not in written and not weights:
            shutil.copyfile(file, target / file.name)
