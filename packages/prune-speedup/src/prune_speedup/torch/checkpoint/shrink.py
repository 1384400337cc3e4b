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
from prune_speedup.torch.checkpoint.choosing import takes_experts, worst_experts, worst_units
from prune_speedup.torch.checkpoint.conversion import conversion_of
from prune_speedup.torch.checkpoint.cutting import CutCheckpoint
from prune_speedup.torch.checkpoint.shards import INDEX, Shards
from prune_speedup.torch.checkpoint.unfinished import Unfinished
from prune_speedup.torch.mixtures.remove import take_out
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
    data: Iterable[Any] | None = None,
    exclude: Collection[str] = (),
    round_to: int = 1,
    units: Units | None = None,
    experts: Mapping[str, Iterable[int]] | None = None,
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
        sparsity: The share of each group of channels that goes, or of the experts of each mixture.
            Layers that are alike lose as many, and channels that a normalisation runs over stay.
        algorithm: The name of a pruner: one that ranks output channels by their weights alone,
            such as `"l1"`, or one that ranks experts on data, such as `"reap"` of prune-blocks.
        data: Inputs of the model to rank experts on; the example unless given.
        exclude: The names of modules that keep all of their channels, or of mixtures that keep
            all of their experts.
        round_to: Leave a multiple of this many channels or experts.
        units: What goes, instead of a sparsity: as `shrink` takes it.
        experts: Which experts go, instead of a sparsity: as `remove_experts` takes it.
        model_class: The class of the model, unless the config names it.
        verify_inputs: More inputs to compare the small model on with the big one in which what goes
            is zero.
        tolerance: The largest difference allowed; by default what rounding does.

    Returns:
        The report of `shrink` or `remove_experts`. Its model is the small one, mapped from files.

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
    if sum(asked is not None for asked in (units, experts, sparsity)) != 1:
        raise ConfigError(
            "Say what goes, once: sparsity=0.3, units=[...], or experts={mixture: [...]}."
        )
    if sparsity is not None and not (isinstance(sparsity, int | float) and 0 < sparsity < 1):
        raise ConfigError(f"sparsity is {shown(sparsity)}; it must be between 0 and 1.")
    if source.resolve() == target.resolve():
        raise ConfigError(f"out is {str(out)!r}, the folder that is read; give another.")
    shards = Shards(source)
    unfinished = Unfinished(target)
    try:
        by_data = sparsity is not None and takes_experts(algorithm)
        if data is not None and not by_data:
            raise ConfigError(
                "data is what experts are ranked on, and nothing here ranks any: give sparsity= "
                "and the name of a pruner that does, such as algorithm='reap', or leave data out."
            )
        model = _built(source, model_class, one_expert_at_a_time=by_data or experts is not None)
        conversion = conversion_of(model, shards)
        joined = shards if conversion is None else conversion.join(unfinished)
        _put_in(model, joined)
        small = target if conversion is None else unfinished.work / "small"
        cutting = CutCheckpoint(joined, small, unfinished)
        if by_data:
            assert sparsity is not None
            experts = worst_experts(
                model,
                [example_inputs] if data is None else data,
                example_inputs,
                algorithm=algorithm,
                sparsity=sparsity,
                exclude=exclude,
                round_to=round_to,
            )
        elif sparsity is not None:
            units = worst_units(
                model,
                example_inputs,
                algorithm=algorithm,
                sparsity=sparsity,
                exclude=exclude,
                round_to=round_to,
            )
        with one_at_a_time():
            if experts is not None:
                report = take_out(
                    model,
                    example_inputs,
                    experts,
                    verify_inputs=verify_inputs,
                    tolerance=tolerance,
                    cutting=cutting.by_slices,
                )
            else:
                report = make_small(
                    model,
                    example_inputs,
                    units=units,  # type: ignore[arg-type]
                    verify_inputs=verify_inputs,
                    tolerance=tolerance,
                    cutting=cutting.by_plan,
                )
        if conversion is not None:
            unfinished.drop("joined")  # room for what comes
            conversion.take_apart(Shards(small), unfinished, cutting.digest)
        _write_the_rest(report, source, target, shards)
    except (ConfigError, SpeedupError):
        unfinished.discard([*shards.files, INDEX])
        raise
    unfinished.finish()
    tell(report)
    return report


def _built(folder: Path, model_class: Any, *, one_expert_at_a_time: bool) -> nn.Module:
    """Build the model of a folder, without numbers."""
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
    if one_expert_at_a_time and getattr(kind, "_can_set_experts_implementation", bool)():
        # Then experts that are not chosen are not read. What is to be seen of channels inside of
        # them is only to be seen where all are read at once, as is usual.
        config._experts_implementation = "eager"
    with without_numbers():
        model: nn.Module = kind(config)
        if callable(tie := getattr(model, "tie_weights", None)):
            tie()
    return model.eval()


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
