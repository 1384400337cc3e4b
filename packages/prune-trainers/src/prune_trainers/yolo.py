"""Training a pruned YOLO: ultralytics builds models anew from their YAML, unless told not to."""

from __future__ import annotations

from typing import Any

from prune_core.errors import ConfigError, shown

__all__ = ["ready_to_export", "trainer_of"]


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
    from torch import nn

    small: nn.Module = getattr(yolo, "model", None)  # type: ignore[assignment]
    if not isinstance(small, nn.Module) or not hasattr(yolo, "task_map"):
        raise ConfigError(
            f"yolo is {shown(yolo)}; give a model of ultralytics, such as YOLO('best.pt')."
        )
    ready_to_export(yolo)
    of_task: type[Any] = yolo.task_map[yolo.task]["trainer"]

    class SmallTrainer(of_task):
        def get_model(
            self, cfg: Any = None, weights: Any = None, verbose: bool = True
        ) -> nn.Module:
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
