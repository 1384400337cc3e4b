"""Whether reconstruction has done the whole model good, or has to be taken back.

Each layer is fitted for itself, on the inputs that it gets in the calibration. A layer that runs a
dozen times in one forward, as in ALBERT, gets others soon, so a better fit of the layer can make a
worse model. So the whole model is asked: does it return what the dense one returned on some of
these inputs, more nearly than with the masks alone?
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from prune_toolkit.calibration.calibrate import Calibrate, Enough
from prune_toolkit.calibration.steps import leaves
from prune_toolkit.calibration.watch import TokenMask
from prune_toolkit.running.restore import only_run

__all__ = ["DenseOutputs"]

_CALLS = 2


class DenseOutputs:
    """What a model returns on the first inputs of its calibration before it is pruned."""

    def __init__(self, model: nn.Module, calibrate: Calibrate, tokens: TokenMask) -> None:
        """Run the calibration until enough of its inputs are known, and then those."""
        self._tokens = tokens
        self._calls = _first_calls(model, calibrate)
        self._wanted = list(self._returned(model))
        self._size = sum(float(each.square().sum()) for each in self._wanted)

    def missed_by(self, model: nn.Module) -> float | None:
        """How much of them a model misses: the squared error, relative to what they are.

        None where there is nothing to compare.
        """
        found = list(self._returned(model))
        if not self._size or [each.shape for each in found] != [w.shape for w in self._wanted]:
            return None
        pairs = zip(found, self._wanted, strict=True)
        return sum(float((each - wanted).square().sum()) for each, wanted in pairs) / self._size

    def _returned(self, model: nn.Module) -> Iterable[Tensor]:
        with torch.no_grad(), only_run(model):
            for args, kwargs in self._calls:
                tokens = self._tokens(args, kwargs)
                for each in leaves(model(*args, **kwargs)):
                    if isinstance(each, Tensor) and each.is_floating_point():
                        yield _without_padding(each.detach().double(), tokens)


def _without_padding(output: Tensor, tokens: Tensor | None) -> Tensor:
    """What a model returns for tokens that count; all of it where it is not one row for each."""
    if tokens is None or output.shape[: tokens.ndim] != tokens.shape:
        return output
    return output[tokens.to(output.device).bool()]


def _first_calls(
    model: nn.Module, calibrate: Calibrate
) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def look(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if len(calls) == _CALLS:
            raise Enough
        calls.append((args, kwargs))

    handle = model.register_forward_pre_hook(look, with_kwargs=True)
    try:
        with only_run(model):
            calibrate(model)
    except Enough:
        pass
    finally:
        handle.remove()
    return calls
