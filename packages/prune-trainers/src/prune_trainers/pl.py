"""A callback for Lightning."""

from __future__ import annotations

from typing import Any

from lightning import Callback

from prune_core.errors import ConfigError
from prune_trainers.driving import Driver

__all__ = ["PruneCallback"]


class PruneCallback(Callback):
    """Lets a schedule follow a `Trainer` of Lightning.

    The checkpoints of Lightning hold the masks, the masked weights and where the schedule is, so
    `trainer.fit(module, data, ckpt_path=...)` goes on.

    Args:
        pruner: A schedule that follows a training, over the module or a part of it; made before
            the training, without an optimizer.
        example_inputs: An input of the pruned model, for `shrink_at_end`.
        shrink_at_end: Whether to make the model smaller when the training is over; `report` then
            says what came of it.
        optimizer: Which of the optimizers counts, where there are several.

    Example:
        ```python
        pruner = AGPPruner(module.net, rules)
        callback = PruneCallback(pruner, example_inputs=batch, shrink_at_end=True)
        Trainer(max_epochs=3, callbacks=[callback]).fit(module, loader)
        print(callback.report)
        ```
    """

    def __init__(
        self,
        pruner: Any,
        *,
        example_inputs: Any = None,
        shrink_at_end: bool = False,
        optimizer: int = 0,
    ) -> None:
        """Keep them."""
        self.driver = Driver(pruner, example_inputs, shrink_at_end=shrink_at_end)
        self.optimizer = optimizer

    @property
    def report(self) -> Any:
        """What `shrink` did at the end; None before, or without `shrink_at_end`."""
        return self.driver.report

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return self.driver.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint.

        Args:
            state_dict: What the checkpoint holds.
        """
        self.driver.load_state_dict(state_dict)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin, or go on."""
        optimizers = trainer.optimizers
        if not -len(optimizers) <= self.optimizer < len(optimizers):
            raise ConfigError(
                f"optimizer is {self.optimizer}; the module has {len(optimizers)} optimizers."
            )
        self.driver.begin(optimizers[self.optimizer])

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Tell the schedule."""
        self.driver.epoch(trainer.current_epoch)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Make the model small, if that was asked for."""
        self.driver.end()
