"""Running statistics of batch norm, measured on the pruned model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from prune_core.errors import PruneError
from prune_core.masking.rewrite import Rewrites
from prune_toolkit.calibration.calibrate import Calibrate
from prune_toolkit.reconstruct.base import ModelReconstructor
from prune_toolkit.running.processes import is_distributed
from prune_toolkit.running.restore import only_run

__all__ = ["BatchNormStatistics"]


class BatchNormStatistics(ModelReconstructor):
    """Measures the running means and variances of batch norms anew, on the pruned model.

    What a masked convolution puts out has another mean and variance than before, and the batch
    norm behind it goes on subtracting the old ones. Each batch is normalised by its own
    statistics meanwhile, as in training, and those of all batches are averaged.

    Args:
        calibrate: Takes the model and runs it on some batches; that of the pruner unless given.
        batches: After how many batches to stop, or None.
    """

    def apply(self, model: nn.Module, calibrate: Calibrate, rewrites: Rewrites) -> None:
        """Run the model, and give its batch norms what they have seen."""
        norms = {
            module: name
            for name, module in model.named_modules()
            if isinstance(module, _BatchNorm) and module.track_running_stats
        }
        if not norms:
            return
        with only_run(model), _measuring(list(norms)) as ran:
            calibrate(model)
            seen = {
                norm: (norm.running_mean.clone(), norm.running_var.clone())
                for norm in ran
                if norm.running_mean is not None and norm.running_var is not None
            }
        if len(seen) < len(norms):
            missed = next(name for norm, name in norms.items() if norm not in seen)
            raise PruneError(
                f"calibrate(model) reached {len(seen)} of {len(norms)} batch norms, so the others "
                f"cannot be measured, such as {missed!r}. Run the model on data that reaches them."
            )
        for norm, (mean, variance) in seen.items():
            if not bool(mean.isfinite().all() & variance.isfinite().all()):
                raise PruneError(
                    f"The batch norm {norms[norm]!r} has seen NaN or infinity during the "
                    "calibration. Look at the data, or run the model in float32."
                )
            rewrites.put(norm, "running_mean", _averaged(mean))
            rewrites.put(norm, "running_var", _averaged(variance))


@contextmanager
def _measuring(norms: list[_BatchNorm]) -> Iterator[set[_BatchNorm]]:
    """Let batch norms, and nothing else, be in training mode, whatever the user's code says."""
    ran: set[_BatchNorm] = set()

    def enter(norm: nn.Module, args: Any) -> None:
        assert isinstance(norm, _BatchNorm)
        if norm not in ran:
            norm.reset_running_stats()
            ran.add(norm)
        norm.training = True

    def leave(norm: nn.Module, args: Any, output: Any) -> None:
        norm.training = False

    momenta = [norm.momentum for norm in norms]
    handles = []
    try:
        for norm in norms:
            norm.momentum = None  # an average over all batches, each counting alike
            handles.append(norm.register_forward_pre_hook(enter))
            handles.append(norm.register_forward_hook(leave, always_call=True))
        yield ran
    finally:
        for handle in handles:
            handle.remove()
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def _averaged(tensor: Tensor) -> Tensor:
    """Return the mean over all processes."""
    if is_distributed():
        torch.distributed.all_reduce(tensor)
        tensor /= torch.distributed.get_world_size()
    return tensor
