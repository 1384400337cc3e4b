"""Folders of Hugging Face models whose layers differ: `config.per_layer_config`."""

import copy
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prune_core.errors import ConfigError, MissingDependencyError, SpeedupError, shown
from prune_speedup.torch.model_config.layer_configs import by_layer, holders_of, layer_classes
from prune_speedup.torch.model_config.numbers import PER_LAYER, overrides_of

__all__ = ["class_of", "from_pretrained"]


def from_pretrained(
    folder: str | PathLike[str], model_class: Any = None, **options: Any
) -> nn.Module:
    """Load a model from a folder, with the config of each layer where the folder has some.

    transformers can write down that layers differ, in `config.per_layer_config`, but most of its
    models give every layer the config of all when they are built. This builds each layer from its
    own. For any other folder it is `from_pretrained` of transformers.

    Args:
        folder: What `save_pretrained` wrote, or the name of a model on the hub.
        model_class: The class of the model, or a class such as `AutoModelForCausalLM`. By default
            the class that wrote the folder.
        **options: What `from_pretrained` of transformers takes, such as `dtype`.

    Returns:
        The model, in eval mode.

    Raises:
        ConfigError: `folder` is no path and no name.
        SpeedupError: The folder holds no model, or does not say which class wrote it, or
            transformers has none of that name.

    Example:
        ```python
        model, masks = prune_core.prune(model, target={"parameters": 0.6}, example_inputs=x)
        prune_core.shrink(prune_core.unwrap(model), x, masks)
        model.save_pretrained("small")
        model = prune_core.from_pretrained("small")
        ```
    """
    try:
        import transformers
    except ModuleNotFoundError:
        raise MissingDependencyError(
            "prune_core.from_pretrained needs transformers: `pip install transformers`."
        ) from None

    if not isinstance(folder, str | PathLike):
        raise ConfigError(
            f"folder is {shown(folder)}; it must be the path of a folder that save_pretrained "
            "wrote, or the name of a model on the hub."
        )
    path = Path(folder)
    if (path.is_absolute() or path.exists()) and not (path / "config.json").is_file():
        raise SpeedupError(
            f"{str(folder)!r} holds no config.json, so save_pretrained did not write it. A file of "
            "save_pruned is read with prune_core.load_pruned(dense_model, path)."
        )
    config = transformers.AutoConfig.from_pretrained(folder)
    kind = class_of(config, folder) if model_class is None else model_class
    alike = copy.deepcopy(config)
    differing = [holder for _, holder in holders_of(alike) if overrides_of(holder)]
    for holder in differing:
        setattr(holder, PER_LAYER, None)
    classes: set[type[nn.Module]] = set()
    if differing:
        with torch.device("meta"):
            classes = layer_classes(getattr(kind, "from_config", kind)(alike), alike)
    with by_layer(classes):
        model: nn.Module = kind.from_pretrained(folder, **options)
    return model


def class_of(config: Any, folder: str | PathLike[str]) -> Any:
    """Return the class of transformers that wrote a folder with this config."""
    import transformers

    name = next(iter(getattr(config, "architectures", None) or ()), "")
    kind = getattr(transformers, name, None) if name else None
    if kind is None:
        said = f"transformers has no {name}" if name else "its config names no architecture"
        raise SpeedupError(
            f"No class is known for the model in {str(folder)!r}: {said}. Say which one by "
            "model_class=..."
        )
    return kind
