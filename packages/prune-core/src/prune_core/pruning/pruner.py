"""What all pruners of torch models share: targets, wrappers, masks, and ways out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, ClassVar

import torch
from torch import nn

from prune_core.compat import understands
from prune_core.compressed import Compressed, model_of
from prune_core.config import Algorithm, Key, load_config, parse
from prune_core.errors import PruneError
from prune_core.masking import (
    Masks,
    PrunerModuleWrapper,
    bare,
    check_model,
    find_targets,
)
from prune_core.masking.files import save_masks
from prune_core.options import ChecksOptions
from prune_core.pruning.export import export_model
from prune_core.pruning.older_names import ANY_PRUNER, OlderNames
from prune_core.pruning.summary import Summary, summarise

__all__ = ["WEIGHTED_TYPES", "Pruner"]

ConfigList = Sequence[Mapping[str, Any]] | str | PathLike[str]

WEIGHTED_TYPES = (
    *(f"Conv{n}d" for n in (1, 2, 3)),
    *(f"ConvTranspose{n}d" for n in (1, 2, 3)),
    *("Linear", "Conv1D", "Bilinear", "PReLU", "Embedding", "EmbeddingBag", "MultiheadAttention"),
)


class Pruner(OlderNames, metaclass=ChecksOptions):
    """Selects modules of a model, wraps them, and keeps their masks.

    A subclass says what it prunes and which further keys its `config_list` may have, and makes
    masks in `compress()`. What it can do is declared in class attributes: the one-line `prune()`,
    budgets, searches, `prune show` and `check_pruner` read them here and nowhere else.

    Args:
        model: The model, wrapped in place. Its parameters stay the objects that they are. Where it
            and the rules are None, both come later, with `reset()`.
        config_list: The rules, or the path of a YAML file that holds them.

    Attributes:
        granularity: `"channels"` where there is a score for each output channel of a module, so
            that whole channels go and a budget can be met; `"weights"` where there is one for each
            weight; empty where that depends on another algorithm.
        modes: What `mode=` may be, the default first.
        needs_data: Whether it needs the user's code to run the model, as `calibrate=`. A gradual
            schedule lets it look at the training instead, unless it is given something.
        needs_labels: Whether that code must also compute a loss and call `backward()`.
        default_types: The classes that `"default"` in a `config_list` stands for.
        supported_types: The classes that it prunes, or empty for any that has a weight.
        config_keys: Further keys of a `config_list` that it understands.
    """

    granularity: ClassVar[str] = ""
    modes: ClassVar[tuple[str, ...]] = ("normal",)
    needs_data: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False
    default_types: ClassVar[tuple[str, ...]] = WEIGHTED_TYPES
    supported_types: ClassVar[tuple[str, ...]] = ()
    config_keys: ClassVar[tuple[str | Key, ...]] = ()

    @understands(ANY_PRUNER)
    def __init__(self, model: nn.Module | None, config_list: ConfigList | None) -> None:
        super().__init__()
        if model is not None or config_list is not None:
            self.reset(model, config_list)  # type: ignore[arg-type]  # it says what is missing

    # --- life cycle -----------------------------------------------------------------------

    def reset(self, model: nn.Module, config_list: ConfigList) -> None:
        """Start anew with another model or another config; an old model is unwrapped first.

        Args:
            model: The model to prune from now on.
            config_list: The rules, or the path of a YAML or JSON file that holds them.
        """
        model = model_of(model)
        check_model(model, compiled=False)
        if isinstance(config_list, str | PathLike):
            config_list = load_config(config_list)
        entries = parse(config_list, self.config_keys)
        # The old wrappers go for good only when nothing can be wrong any more.
        with self.plain():
            self.validate_config(model, config_list)
            with bare(model) as inside:
                targets = find_targets(inside, entries, self._algorithm())
        self.unwrap()
        self.bound_model = model
        self.config_list = config_list
        self._closing = {}
        self._wrappers = {
            target.name: PrunerModuleWrapper(target.module, target.name, target.config)
            for target in targets
        }
        self.wrap()

    def _algorithm(self) -> Algorithm:
        return Algorithm(
            type(self).__name__,
            self.default_types,
            self.supported_types,
            channels=self.granularity == "channels",
        )

    def validate_config(self, model: nn.Module, config_list: Sequence[Mapping[str, Any]]) -> None:
        """Check what only this algorithm knows; the common rules have been checked already.

        Args:
            model: The model.
            config_list: The rules, as they were given.
        """
        self._validate_config_before_canonical(model, config_list)

    def _validate_config_before_canonical(
        self, model: nn.Module, config_list: Sequence[Mapping[str, Any]]
    ) -> None:
        """Check more; subclasses written for the predecessor override this one."""

    # --- masks ----------------------------------------------------------------------------

    def compress(self, example_inputs: Any = None) -> Compressed[nn.Module, Masks]:
        """Make masks, put them in force, and return the wrapped model and the masks.

        What is returned, a `Compressed`, unpacks to the two and can be used as the model.

        Args:
            example_inputs: An input of the model. With it, masks are closed: what can only be
                removed together is masked together.
        """
        raise NotImplementedError

    def generate_module_groups(self) -> dict[int, list[str]]:
        """Return `{entry of the config_list: module names}`."""
        groups: dict[int, list[str]] = defaultdict(list)
        for name, wrapper in self._wrappers.items():
            groups[wrapper.config["entry"]].append(name)
        return dict(groups)

    def get_origin2wrapped_parameter_name_map(self) -> dict[str, str]:
        """Return `{parameter name before wrapping: name while wrapped}`."""
        if not self.is_wrapped:
            raise PruneError("The model is not wrapped now; call pruner.wrap() first.")
        now = {id(p): name for name, p in self.bound_model.named_parameters()}
        with self.plain() as model:
            return {name: now[id(p)] for name, p in model.named_parameters()}

    def save_masks(self, path: str | PathLike[str]) -> None:
        """Write the masks in force to a safetensors file.

        Args:
            path: The file to write.
        """
        config = {name: wrapper.config for name, wrapper in self._wrappers.items()}
        save_masks(path, self.masks, algorithm=type(self).__name__, config=config)

    # --- seeing and keeping ---------------------------------------------------------------

    def summary(self) -> Summary:
        """Return a table of what is masked; `print()` shows it."""
        return summarise(self._wrappers.values())

    def export_model(
        self,
        model_path: str | PathLike[str],
        mask_path: str | PathLike[str] | None = None,
        onnx_path: str | PathLike[str] | None = None,
        input_shape: Sequence[int] | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        """Write the masked model, and whatever else is asked, to files.

        Args:
            model_path: Gets the state dict under the names that it had before wrapping, zeros
                where masked; safetensors if the name ends so, otherwise for `torch.load`.
            mask_path: Gets the masks.
            onnx_path: Gets the model as ONNX, for any batch size; needs `input_shape`.
            input_shape: Shape of the input for ONNX, the batch included.
            device: Where the ONNX export runs; the model's own unless given.
        """
        export_model(self.bound_model, model_path, onnx_path, input_shape, device)
        if mask_path is not None:
            self.save_masks(mask_path)

    # --- called from training loops; algorithms that need it override ----------------------

    def update_epoch(self, epoch: int) -> None:
        """Hear that an epoch begins.

        Args:
            epoch: Its number, from 0.
        """

    def step(self) -> None:
        """Hear that an optimizer step was made."""
