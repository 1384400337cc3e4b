"""A user's function gets what it requires, under its names, and never what it merely allows."""

import functools

import pytest

from prune_core.callables import UserFunction, check_takes_model
from prune_core.errors import ConfigError

OFFERS, MORE = ("model", "optimizer", "criterion"), ("epoch", "callback")


def called(function):
    return UserFunction(function, "trainer", OFFERS, MORE)("m", "o", "c", 7, "cb")


@pytest.mark.parametrize(
    ("function", "gets"),
    [
        (lambda model: model, "m"),
        (lambda model, epochs=3: (model, epochs), ("m", 3)),
        (lambda model, optimizer, criterion: (model, optimizer, criterion), ("m", "o", "c")),
        (lambda model, criterion, optimizer: (model, optimizer, criterion), ("m", "o", "c")),
        (lambda net, opt, loss: (net, opt, loss), ("m", "o", "c")),
        (lambda net, loss, optimizer: (net, optimizer, loss), ("m", "o", "c")),
        (lambda net, opt, loss, ep: (net, opt, loss, ep), ("m", "o", "c", 7)),
        (lambda model, optimizer, criterion, epoch: (optimizer, epoch), ("o", 7)),
        (lambda model, optimizer, criterion, epoch=0: (optimizer, epoch), ("o", 0)),
        (lambda model, epoch, callback: (model, epoch, callback), ("m", 7, "cb")),
        (lambda model, *, epoch, rate=0.1: (model, epoch, rate), ("m", 7, 0.1)),
        (lambda model, /, optimizer, *rest: (model, optimizer, rest), ("m", "o", ())),
        (lambda model=None: model, "m"),
        (lambda *everything: everything, ("m", "o", "c")),
        (functools.partial(lambda loader, model: (loader, model), "l"), ("l", "m")),
        (str, "m"),
    ],
)
def test_what_it_requires(function, gets):
    assert called(function) == gets


def test_a_decorator_that_takes_positions_only():
    def positions(function):
        @functools.wraps(function)
        def wrapper(*args):
            return function(*args)

        return wrapper

    @positions
    def trainer(model, criterion, optimizer, epochs=3):
        return model, optimizer, criterion, epochs

    assert called(trainer) == ("m", "o", "c", 3)


def test_methods_and_objects():
    class Loop:
        def train(self, model, epoch):
            return model, epoch

        def __call__(self, model, optimizer):
            return model, optimizer

    assert called(Loop().train) == ("m", 7)
    assert called(Loop()) == ("m", "o")


def test_what_it_takes_is_known_before_it_is_called():
    assert UserFunction(lambda model, epochs=3: None, "train", ["model", "round"]).takes == (
        "model",
    )
    assert UserFunction(lambda net, this: None, "train", ["model", "round"]).takes == (
        "model",
        "round",
    )


def test_it_says_what_cannot_be_given():
    def train(model, loader):
        """Never called."""

    with pytest.raises(
        ConfigError, match=r"train\(\), given as finetune, requires 'loader'; it"
    ) as e:
        check_takes_model("finetune", train)
    assert "called with the model." in str(e.value)
    assert "functools.partial(train, loader=...)" in str(e.value)
    check_takes_model("finetune", functools.partial(train, loader=[]))
    check_takes_model("finetune", None)


def test_it_must_take_a_model():
    with pytest.raises(ConfigError, match="given as evaluate, must take the model"):
        check_takes_model("evaluate", lambda: 0.5)
    with pytest.raises(ConfigError, match="evaluate is 0.5; it must be a function that takes the"):
        check_takes_model("evaluate", 0.5)
