"""A callback for the `Trainer` of transformers."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from prune_core.errors import ConfigError
from prune_core.files import replacing
from prune_trainers.driving import Driver

__all__ = ["PruneCallback"]

FILE = "pruning.pt"


class PruneCallback(TrainerCallback):
    """Lets a schedule follow a `Trainer` of transformers.

    Checkpoints hold the masked weights under their usual names, so `from_pretrained` reads a pruned
    model; beside them lies `pruning.pt`, from which `trainer.train(resume_from_checkpoint=True)`
    goes on.

    Args:
        pruner: A schedule that follows a training; made before the trainer, without an optimizer.
        example_inputs: An input of the model, for `shrink_at_end`.
        shrink_at_end: Whether to make the model smaller when the training is over; `report` then
            says what came of it.
        checkpoint: The folder to resume from, where it is not in the trainer's output folder.

    Example:
        ```python
        pruner = AGPPruner(model, rules)
        callback = PruneCallback(pruner, example_inputs=batch, shrink_at_end=True)
        Trainer(model, arguments, train_dataset=data, callbacks=[callback]).train()
        print(callback.report)
        ```
    """

    def __init__(
        self,
        pruner: Any,
        *,
        example_inputs: Any = None,
        shrink_at_end: bool = False,
        checkpoint: str | PathLike[str] | None = None,
    ) -> None:
        """Keep them."""
        self.driver = Driver(pruner, example_inputs, shrink_at_end=shrink_at_end)
        self.checkpoint = checkpoint

    @property
    def report(self) -> Any:
        """What `shrink` did at the end; None before, or without `shrink_at_end`."""
        return self.driver.report

    def on_train_begin(
        self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any
    ) -> None:
        """Begin, or go on."""
        if state.global_step:
            self.driver.load_state_dict(self._read(args, state.global_step))
        self.driver.begin(optimizer)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Tell the schedule."""
        self.driver.epoch(int(state.epoch or 0))

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write where the schedule is beside the checkpoint."""
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            with replacing(folder / FILE) as file:
                torch.save(self.driver.state_dict(), file)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Make the model small, if that was asked for."""
        self.driver.end()

    def _read(self, args: Any, step: int) -> Any:
        folder = Path(args.output_dir) / f"checkpoint-{step}"
        given = self.checkpoint or getattr(args, "resume_from_checkpoint", None)
        # The arguments may say "true" there, as a text.
        if isinstance(given, str | PathLike) and str(given).lower() not in ("true", "1"):
            folder = Path(given)
        try:
            return torch.load(folder / FILE, weights_only=True)
        except FileNotFoundError:
            raise ConfigError(
                f"{folder} has no {FILE}, so the schedule cannot go on from step {step}. Give the "
                "folder of a checkpoint that was saved with this callback: "
                "PruneCallback(..., checkpoint=folder)."
            ) from None
