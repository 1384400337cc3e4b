"""Take whole blocks and residual branches out of a model, and prove what is left."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from time import perf_counter
from typing import Any

from torch import nn

from prune_core.compressed import model_of
from prune_core.errors import ConfigError, SpeedupError, shown, warn
from prune_core.masking import bare, check_model, wrappers_in
from prune_speedup.torch.depth.find import Block, Blocks, inside, read_blocks
from prune_speedup.torch.depth.removal import Removal
from prune_speedup.torch.depth.report import RemovalReport
from prune_speedup.torch.record.inputs import listed
from prune_speedup.torch.tensors import Snapshot

__all__ = ["remove_blocks"]


def remove_blocks(
    model: nn.Module,
    example_inputs: Any,
    names: str | Block | Iterable[str | Block],
    *,
    verify: bool = True,
    verify_inputs: Sequence[Any] = (),
    tolerance: float | None = None,
) -> RemovalReport:
    """Take blocks and residual branches out of a model, in place.

    A block that stands in a `ModuleList` or `Sequential` leaves it, and what counts layers follows:
    positions that layers know of themselves, such as `layer_idx`, and the model's config.
    Elsewhere, and for a branch, a module without parameters takes the place. The result is compared
    with the whole model whose blocks return their input and whose branches add zeros: on the
    example, another batch, other lengths and in training. A sequence continued from a cache is
    compared with the sequence as a whole.

    Args:
        model: Any module; it stays the same Python object with fewer modules.
        example_inputs: A tensor, a tuple of positional or a dict of keyword arguments.
        names: Names of blocks and branches, as `prune_core.blocks(model, example_inputs)` lists
            them, or these themselves.
        verify: Compare, and go back if there is a difference.
        verify_inputs: More inputs to compare on, each in the form of `example_inputs`.
        tolerance: The largest difference allowed, relative to the largest number of an output;
            by default what rounding does.

    Raises:
        ConfigError: A name is unknown, or nothing would be left.
        SpeedupError: The model cannot do without them, or would compute something else; it is left
            as it was.

    Example:
        ```python
        print(prune_core.blocks(model, x))
        report = prune_core.remove_blocks(model, x, ["model.layers.9", "model.layers.4.mlp"])
        ```
    """
    model = model_of(model)
    check_model(model, compiled=False)
    verify_inputs = listed(verify_inputs)
    if not isinstance(tolerance, int | float | None):
        raise ConfigError(f"tolerance is {shown(tolerance)}; it must be a number, such as 1e-4.")
    if wrapped := wrappers_in(model):
        raise SpeedupError(
            f"{next(iter(wrapped))!r} is still wrapped by a pruner: take the wrappers off first, "
            "with prune_core.unwrap(model) or the pruner's own unwrap."
        )
    start = perf_counter()
    with bare(model) as plain:
        untouched_model = Snapshot(plain)
        found = read_blocks(plain, example_inputs)
        chosen = _chosen(plain, found, names)
        removal = Removal(plain, example_inputs, found, untouched_model, tolerance)
        try:
            report = removal.removed(chosen, verify_inputs, verify=verify)
        except BaseException:
            untouched_model.restore()
            raise
    report.model = model
    report.seconds = perf_counter() - start
    if report.missing and any(hasattr(type(m), "save_pretrained") for m in plain.modules()):
        warn(
            f"The smaller {type(plain).__name__} is right, but its config cannot describe it: "
            f"{report.missing}. So save_pretrained() is refused. Save the model with "
            "report.save(path), and load it with prune_core.load_pruned(dense_model, path)."
        )
    return report


def _chosen(
    model: nn.Module, found: Blocks, names: str | Block | Iterable[str | Block]
) -> list[Block]:
    """Return what is to go, without what goes with something else anyway."""
    if isinstance(names, str | Block):
        names = [names]
    if not isinstance(names, Iterable):
        raise ConfigError(f"names is {shown(names)}; it must be a name or a list of names.")
    wanted = [each.name if isinstance(each, Block) else each for each in names]
    if not wanted or not all(isinstance(name, str) for name in wanted):
        raise ConfigError(
            f"names is {shown(wanted)}; it must name at least one block. "
            "prune_core.blocks(model, example_inputs) lists them."
        )
    if not len(found):
        raise ConfigError(
            f"This {type(model).__name__} has no residual branches and no blocks that could be "
            "taken out: no module adds to its input what it computes. Prune channels instead, with "
            "prune_core.prune(model, sparsity=0.5, example_inputs=x)."
        )
    for name in wanted:
        found[name]  # which says what is wrong with a name
    chosen = [each for each in found if each.name in wanted]
    for each in chosen:
        if each.reason:
            raise ConfigError(
                f"{each.name!r} cannot be taken out: {each.reason}. "
                "prune_core.blocks(model, example_inputs).removable lists what can."
            )
    whole = [each.name for each in chosen if each.kind == "block"]
    all_blocks = [each.name for each in found if each.kind == "block"]
    if all_blocks and {*whole} == {*all_blocks}:
        raise ConfigError(
            f"names has all {len(all_blocks)} blocks of the model, of which at least one must stay."
        )
    _check_rows(model, whole)
    return [
        each
        for each in chosen
        if each.kind == "block"
        or not any(inside(module, block) for block in whole for module in each.modules)
    ]


def _check_rows(model: nn.Module, names: Sequence[str]) -> None:
    """Refuse to empty a list of layers."""
    rows: dict[str, list[str]] = {}
    for name in names:
        rows.setdefault(name.rpartition(".")[0], []).append(name)
    for parent, gone in rows.items():
        row = model.get_submodule(parent)
        if isinstance(row, nn.ModuleList) and len(gone) == len(row):
            raise ConfigError(
                f"names has all {len(gone)} entries of {parent!r}, of which at least one must stay."
            )
