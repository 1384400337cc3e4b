"""Pruning a YOLO while it trains, and training one that is pruned.

Ultralytics builds models anew from their YAML, unless told not to, and keeps a second model beside
the one that it trains: the moving average of its weights, which it validates and saves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import prune_core
from prune_core.errors import ConfigError, shown
from prune_trainers.driving import Driver

__all__ = ["PruneCallback", "ready_to_export", "trainer_of"]

FILE = "pruning.pt"


class PruneCallback:
    """Lets a schedule follow the training of a YOLO, in the trainer of ultralytics.

    The trainer makes a model of its own, so the schedule is made when that is there. `last.pt` and
    `best.pt` hold masked weights, under their usual names. Beside them lies `pruning.pt`, from
    which `yolo.train(resume=True)` goes on.

    Args:
        yolo: A `YOLO`, `RTDETR` or other model of ultralytics, about to be trained.
        pruner_of: A function of the model that is trained, which returns a schedule, such as
            `AGPPruner(model, rules)`, without an optimizer.

    Attributes:
        pruner: The schedule; None before the training has begun.

    Raises:
        ConfigError: One of the two is something else.

    Example:
        ```python
        callback = PruneCallback(yolo, lambda model: AGPPruner(model, rules))
        yolo.train(data="coco8.yaml", epochs=10)
        print(callback.shrink(image))
        yolo.train(trainer=trainer_of(yolo), data="coco8.yaml", epochs=10)
        ```
    """

    def __init__(self, yolo: Any, pruner_of: Callable[[Any], Any]) -> None:
        """Add itself to the callbacks of the YOLO."""
        _check_yolo(yolo)
        if not callable(pruner_of):
            raise ConfigError(
                f"pruner_of is {shown(pruner_of)}; it must be a function of the model, such as "
                "lambda model: AGPPruner(model, rules), since the trainer makes a model of its own."
            )
        self.pruner: Any = None
        self._yolo, self._pruner_of = yolo, pruner_of
        self._driver: Driver | None = None
        self._last: Any = None
        self._events = {
            "on_train_start": self._begin,
            "on_train_epoch_start": self._epoch,
            "on_train_batch_start": self._ask_again,
            "on_train_epoch_end": self._mask_the_average,
            "on_model_save": self._save,
            "on_train_end": self._end,
        }
        for event, function in self._events.items():
            yolo.add_callback(event, function)

    def shrink(self, example_inputs: Any) -> Any:
        """Make the model smaller once it has been trained.

        What is made smaller is the model of the last epoch: `best.pt` may be of an epoch in which
        less was masked. Trainings that come after this one are not followed.

        Args:
            example_inputs: An input of the model, such as `torch.zeros(1, 3, 640, 640)`.

        Returns:
            What `prune_core.shrink` reports. `yolo.model` is the small model.

        Raises:
            ConfigError: No training with this callback has come to its end.
        """
        if self._last is None:
            raise ConfigError(
                "No training has ended that this callback followed: call yolo.train() first."
            )
        masks = self.pruner.close_masks(example_inputs)
        small = type(self._yolo)(str(self._last)).model.float()
        _put_in_force(small, masks)
        report = prune_core.shrink(small, example_inputs, masks)
        self._yolo.model = small
        ready_to_export(self._yolo)
        for event, function in self._events.items():
            self._yolo.callbacks[event].remove(function)
        self._last = None
        return report

    def _begin(self, trainer: Any) -> None:
        import torch

        self.pruner = self._pruner_of(trainer.model)
        self._driver = Driver(self.pruner, None, shrink_at_end=False)
        if trainer.start_epoch:
            file = trainer.wdir / FILE
            if not file.exists():
                raise ConfigError(
                    f"{file} is not there, so the schedule cannot go on from epoch "
                    f"{trainer.start_epoch}: it is written by a training with this callback."
                )
            self._driver.load_state_dict(torch.load(file, weights_only=True))
        self._driver.begin(trainer.optimizer)

    def _epoch(self, trainer: Any) -> None:
        assert self._driver is not None
        self._driver.epoch(trainer.epoch)

    def _ask_again(self, trainer: Any) -> None:
        # The average keeps the tensors that it once saw. Of a masked layer they are products, made
        # when they are asked for, so it has to ask again.
        trainer.ema._pairs = None

    def _mask_the_average(self, trainer: Any) -> None:
        # A weight that has just been masked is still there in the average of the last steps.
        _put_in_force(trainer.ema.ema, self.pruner.masks)

    def _save(self, trainer: Any) -> None:
        import torch

        assert self._driver is not None
        torch.save(self._driver.state_dict(), trainer.wdir / FILE)

    def _end(self, trainer: Any) -> None:
        self._last = trainer.last


def _put_in_force(model: Any, masks: Any) -> None:
    """Write the zeros of masks into a plain model."""
    for name, tensors in masks.items():
        module = model.get_submodule(name)
        for tensor, mask in tensors.items():
            getattr(module, tensor).data.mul_(mask)


def ready_to_export(yolo: Any) -> None:
    """Tell the modules of a pruned YOLO their new widths, where only the exporter asks for them.

    `C2f` and its like halve their channels in the forward, and the exporter has them split at
    `self.c` instead, a number that the forward does not use and so nothing has followed.
    `trainer_of` does this too.

    Args:
        yolo: A `YOLO` whose `model` was made smaller.
    """
    for module in yolo.model.modules():
        convolution = getattr(getattr(module, "cv1", None), "conv", None)
        if hasattr(module, "forward_split") and convolution is not None:
            module.c = convolution.out_channels // 2


def trainer_of(yolo: Any) -> type[Any]:
    """Return a trainer that trains the model as it is.

    `yolo.train(...)` makes a model of the size that its YAML says, and copies what fits of the old
    one; of a pruned model next to nothing fits. With this trainer, the pruned model itself is
    trained, and `best.pt` and `last.pt` hold it, so that `YOLO("best.pt")` loads it, also without
    prune.

    Args:
        yolo: A `YOLO`, `RTDETR` or other model of ultralytics, whose `model` was made smaller.

    Returns:
        The trainer for the model's task, for `yolo.train(trainer=...)`. It works in one process.

    Raises:
        ConfigError: It is no model of ultralytics with a torch model in it.

    Example:
        ```python
        yolo = YOLO("best.pt")
        _, masks = prune_core.prune(yolo.model, "l1", target={"flops": 0.5}, example_inputs=image)
        prune_core.shrink(prune_core.unwrap(yolo.model), image, masks)
        yolo.train(trainer=trainer_of(yolo), data="coco8.yaml", epochs=10)
        ```
    """
    _check_yolo(yolo)
    small = yolo.model
    ready_to_export(yolo)
    of_task: type[Any] = yolo.task_map[yolo.task]["trainer"]

    class SmallTrainer(of_task):
        def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
            classes = getattr(small, "yaml", {}).get("nc")
            wanted = self.data.get("nc")
            if classes is not None and wanted is not None and classes != wanted:
                raise ConfigError(
                    f"The data has {wanted} classes and the pruned model {classes}. Train the "
                    "dense model on this data first, and prune it then."
                )
            return small

    SmallTrainer.__name__ = SmallTrainer.__qualname__ = f"Small{of_task.__name__}"
    return SmallTrainer


def _check_yolo(yolo: Any) -> None:
    from torch import nn

    if not isinstance(getattr(yolo, "model", None), nn.Module) or not hasattr(yolo, "task_map"):
        raise ConfigError(
            f"yolo is {shown(yolo)}; give a model of ultralytics, such as YOLO('best.pt')."
        )
