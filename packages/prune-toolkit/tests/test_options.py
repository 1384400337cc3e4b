"""Arguments that a pruner does not take are refused in its own name."""

import inspect
from typing import Any, TypedDict, Unpack

import pytest
import torch
from torch import nn

from prune_core import BasicPruner, ConfigError, OptionError
from prune_core.config import Key


class More(TypedDict, total=False):
    batches: int


C = CONFIG = [{"op_types": ["Linear"], "sparsity": 0.5}]


class Plain(BasicPruner):
    config_keys = (Key("share", lambda value: None),)

    def __init__(self, model: Any, config_list: Any, mode: str = "normal", *, batches: int) -> None:
        self.mode, self.batches = mode, batches
        super().__init__(model, config_list)

    def reset_tools(self) -> None:
        pass


class HandsOn(Plain):
    """Takes what its base class takes, without knowing what that is."""

    def __init__(self, model: Any, config_list: Any, *, speed: int = 1, **options: Any) -> None:
        self.speed = speed
        super().__init__(model, config_list, **options)


def net():
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (
            lambda: Plain(net(), CONFIG, batchs=2),
            r"Plain takes no 'batchs'. Did you mean 'batches'\?",
        ),
        (lambda: Plain(net(), CONFIG), "Plain needs 'batches'. It takes model, config_list, mode"),
        (lambda: Plain(), "Plain needs 'model'"),
        (lambda: Plain(net(), CONFIG, batches=1, sparsity=0.5), "a key of config_list"),
        (lambda: Plain(net(), CONFIG, batches=1, share=0.5), "a key of config_list"),
        (
            lambda: Plain(net(), C, "a", "b", batches=1),
            r"takes 3 arguments by position \(model",
        ),
        (lambda: Plain(net(), CONFIG, batches=1, model=3), "Plain: multiple values for argument"),
        (
            lambda: HandsOn(net(), C, batches=1, sped=2),
            r"HandsOn takes no 'sped'. .*'speed'\?",
        ),
        (lambda: HandsOn(net(), CONFIG, batchs=1), r"HandsOn takes no 'batchs'. .*'batches'\?"),
    ],
)
def test_what_is_said(build, says):
    with pytest.raises(OptionError, match=says):
        build()
    with pytest.raises(TypeError):
        build()
    with pytest.raises(ConfigError):
        build()


class Early(Plain):
    """Says by its types that it hands options on, and looks at something else first."""

    def __init__(self, model: Any, config_list: Any, **options: Unpack[More]) -> None:
        if "batches" not in options:
            raise ConfigError("batches are missing")
        super().__init__(model, config_list, **options)


def test_options_that_are_handed_on_are_checked_before_anything_is_done():
    with pytest.raises(OptionError, match=r"Early takes no 'batchs'. Did you mean 'batches'\?"):
        Early(net(), CONFIG, batchs=1)
    assert Early(net(), CONFIG, batches=3, mode="global").batches == 3


def test_what_is_taken_is_taken():
    pruner = HandsOn(net(), CONFIG, batches=3, mode="global", speed=2)
    assert (pruner.batches, pruner.mode, pruner.speed) == (3, "global", 2)
    parameters = [*inspect.signature(Plain).parameters]
    assert parameters == ["model", "config_list", "mode", "batches"]


def test_a_type_error_of_another_origin_passes():
    class Fails(Plain):
        def reset_tools(self) -> None:
            torch.ones(1).sum(nothing=3)

    with pytest.raises(TypeError, match="sum") as caught:
        Fails(net(), CONFIG, batches=1)
    assert not isinstance(caught.value, OptionError)
