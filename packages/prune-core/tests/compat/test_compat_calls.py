"""Tables of older calls, on a constructor that notes what it is called with."""

import inspect
import warnings

import pytest
import torch
from torch import nn

from prune_core import ConfigError, OptionError, Pruner, PruneWarning
from prune_core.compat import NoEffect, Older, order, understands

OLDER = Older(
    orders=[
        order("optimizer", "activation", "statistics_batch_num"),
        order("evaluator", "training_steps", "mode"),
    ],
    renamed={"statistics_batch_num": "batches", "training_steps": "batches"},
    flags={"dependency_aware": ("mode", "dependency_aware"), "global_sort": ("mode", "global")},
    ignored={"optimizer": NoEffect(), "epsilon": NoEffect(50000, "Use noise=.")},
    implied={"statistics_batch_num": {"activation": "relu6"}},
)


class Noted:
    @understands(OLDER)
    def __init__(
        self, model, config_list, mode="normal", *, activation="relu", batches=None, evaluator=None
    ):
        self.given = (model, config_list, mode, activation, batches, evaluator)


def noted(*args, **kwargs):
    return Noted(*args, **kwargs).given[2:]


OPTIMIZER = torch.optim.SGD([torch.zeros(1)], lr=0.1)


class Evaluator:
    def train(self):
        """Train."""

    def __call__(self, model):
        """Score."""


EVALUATOR = Evaluator()


@pytest.mark.parametrize(
    ("args", "kwargs", "given"),
    [
        ((), {}, ("normal", "relu", None, None)),
        (("global",), {}, ("global", "relu", None, None)),
        ((None,), {}, ("normal", "relu", None, None)),
        ((OPTIMIZER,), {}, ("normal", "relu", None, None)),
        ((OPTIMIZER, "relu6", 3), {}, ("normal", "relu6", 3, None)),
        ((EVALUATOR, 5, "global"), {}, ("global", "relu", 5, EVALUATOR)),
        ((), {"optimizer": OPTIMIZER, "statistics_batch_num": 2}, ("normal", "relu6", 2, None)),
        ((), {"statistics_batch_num": 2, "activation": "relu"}, ("normal", "relu", 2, None)),
        ((), {"dependency_aware": True}, ("dependency_aware", "relu", None, None)),
        ((), {"dependency_aware": False, "mode": "x"}, ("x", "relu", None, None)),
        ((), {"global_sort": True, "mode": "global"}, ("global", "relu", None, None)),
        ((), {"epsilon": 50000}, ("normal", "relu", None, None)),
        ((OPTIMIZER, None, 3), {}, ("normal", "relu6", 3, None)),
        ((), {"activation": None}, ("normal", None, None, None)),
    ],
)
def test_calls_of_every_generation(args, kwargs, given):
    assert noted("model", [], *args, **kwargs) == given


def test_the_signature_is_that_of_today():
    assert list(inspect.signature(Noted).parameters) == [
        "model",
        "config_list",
        "mode",
        "activation",
        "batches",
        "evaluator",
    ]


def test_what_has_no_effect_is_said_where_it_was_written():
    with pytest.warns(PruneWarning, match=r"Noted: epsilon=3 has no effect here. Use noise=") as w:
        noted("model", [], epsilon=3)
    assert w[0].filename == __file__


@pytest.mark.parametrize(
    ("kwargs", "error", "says"),
    [
        (
            {"batches": 2, "training_steps": 3},
            ConfigError,
            "training_steps and batches, which mean",
        ),
        (
            {"global_sort": True, "mode": "normal"},
            ConfigError,
            "global_sort=True and mode='normal'",
        ),
        (
            {"bathces": 2},
            OptionError,
            "takes no 'bathces'. Did you mean 'batch",
        ),
        ({"model": 2}, OptionError, "multiple values for argument 'model'"),
    ],
)
def test_mistakes(kwargs, error, says):
    with pytest.raises(error, match=says):
        noted("model", [], **kwargs)


def test_what_is_missing_is_named():
    with pytest.raises(
        OptionError, match=r"Noted needs 'config_list'. It takes model, config_list"
    ):
        Noted("model")
    with pytest.raises(OptionError, match=r"Welcoming needs 'config_list'"):
        Welcoming(nn.Linear(2, 2))


class Welcoming(Pruner):
    """Has the constructor of the base class, which understands older calls."""


def test_too_many_values():
    with pytest.raises(TypeError, match=r"takes model, config_list, optimizer, .* and got 1 more"):
        noted("model", [], OPTIMIZER, "relu", 1, 1)


def test_a_value_that_fits_nowhere_reaches_the_constructor():
    assert noted("model", [], 7)[0] == 7
    assert Noted("model", [], OPTIMIZER, 7).given[3] == 7


def test_a_subclass_names_what_its_bases_take():
    class More(Noted):
        def __init__(self, *args, extra=None, **more):
            super().__init__(*args, **more)

    with pytest.raises(OptionError, match=r"More takes no .* Did you mean 'extra'"):
        More("model", [], extar=1)
    assert More("model", [], global_sort=True, extra=1).given[2] == "global"


def test_the_optimizer_of_the_first_releases_is_welcome_in_any_pruner():
    class Mine(Pruner):
        def __init__(self, model, config_list, optimizer):
            super().__init__(model, config_list, optimizer)

    model = nn.Sequential(nn.Linear(2, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pruner = Mine(model, [{"sparsity": 0.5, "op_types": ["Linear"]}], OPTIMIZER)
    assert list(pruner.get_modules_wrapper()) == ["0"]
