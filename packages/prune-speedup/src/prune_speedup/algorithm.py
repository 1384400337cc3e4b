"""Which algorithm is meant where none is named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from prune_core.errors import ConfigError, PruneError
from prune_core.progress import note
from prune_core.registry import get_pruner, names
from prune_speedup.torch.record.inputs import call
from prune_toolkit.running.restore import evaluating

__all__ = ["chosen", "running"]

# What docs/choosing.md finds best with data, the best first, and without.
WITH_DATA, WITHOUT_DATA = ("channel_obs", "activation_norm", "l1"), "l1"


def chosen(algorithm: str | None, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return an algorithm and the options for it.

    Args:
        algorithm: The one that was asked for, or None.
        options: What the user said besides.
    """
    if algorithm is not None:
        return algorithm, dict(options)
    if options.get("calibrate") is None:
        note(
            "prune",
            "without data, channels are ranked by their weights alone (l1). With data=, a few "
            "batches of inputs, they are ranked by what the layers compute, and the others make up "
            "for them (channel_obs): less is lost. Say 'l1' if that is what you want.",
            always=True,
        )
        return WITHOUT_DATA, dict(options)
    there = [name for name in WITH_DATA if name in names("pruner")]
    wanted = options.get("mode")
    able = [n for n in there if wanted in (None, *get_pruner(n, framework="torch").modes)]
    best = next(iter([*able, *there]), WITHOUT_DATA)
    if best == WITHOUT_DATA:
        note(
            "prune",
            "channels are ranked by their weights alone (l1); only what is left is fitted to the "
            "data. `pip install prune-oneshot` brings channel_obs, which ranks them by the data.",
            always=True,
        )
    return best, {"reconstruct": "least_squares", **options}


def running(data: Iterable[Any], calibrate: Any = None) -> Any:
    """Return a function that runs a model on inputs, in eval mode and without gradients."""
    if calibrate is not None:
        raise ConfigError("data and calibrate are both given; one runs the model, choose.")
    if isinstance(data, torch.Tensor | Mapping | str) or not isinstance(data, Iterable):
        raise ConfigError(
            f"data is a {type(data).__name__}; it must be some inputs of the model, such as a list "
            "of batches, each in the form of example_inputs."
        )
    # What can be gone through only once is needed several times.
    batches = list(data) if iter(data) is data else data

    def run(model: nn.Module) -> None:
        with evaluating(model), torch.no_grad():
            for number, inputs in enumerate(batches):
                _run_one(model, inputs, number)

    return run


def _run_one(model: nn.Module, inputs: Any, number: int) -> None:
    try:
        call(model, inputs)
    except PruneError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"The model does not run on data[{number}]: {type(error).__name__}: {error}. Each of "
            "data must be what the model takes: a tensor, a tuple of positional or a dict of "
            "keyword arguments. Of batches with labels, give the inputs alone: "
            "data=(inputs for inputs, labels in loader)."
        ) from error
