"""Every call of every older release: it makes the masks that the call of today makes."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import prune_filter
from prune_core import ConfigError, OptionError, PruneWarning
from prune_filter import (
    ActivationAPoZRankFilterPruner,
    ActivationAPoZRankPruner,
    ActivationMeanRankPruner,
    LevelPruner,
    MovementPruner,
    SlimPruner,
    TaylorFOWeightFilterPruner,
    TaylorFOWeightPruner,
    TorchEvaluator,
)

CONV = [{"sparsity": 0.5, "op_types": ["Conv2d"]}]
NORM = [{"sparsity": 0.5, "op_types": ["BatchNorm2d"]}]
BATCHES = [torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(i)) for i in range(4)]
LABELS = torch.arange(8) % 2


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.Flatten(),
        nn.Linear(24, 2),
    ).eval()  # fmt: skip


def kept(masks):
    return {name: tensors["weight"].flatten(1).any(1).tolist() for name, tensors in masks.items()}


def sgd(model):
    return torch.optim.SGD(model.parameters(), 0.05)


# --- pruners that look at weights ---------------------------------------------------------------

BY_WEIGHTS = ["L1FilterPruner", "L2FilterPruner", "L1NormPruner", "L2NormPruner", "FPGMPruner"]


@pytest.mark.parametrize("name", [*BY_WEIGHTS, "LevelPruner", "RandomPruner"])
@pytest.mark.parametrize("by_name", [False, True])
def test_an_optimizer_comes_third(name, by_name):
    model, other = network(), network()
    given = {"optimizer": sgd(model)} if by_name else {}
    args = [] if by_name else [sgd(model)]
    masks = []
    for pruner in (
        getattr(prune_filter, name)(model, CONV, *args, **given),
        getattr(prune_filter, name)(other, CONV),
    ):
        torch.manual_seed(1)
        masks.append(kept(pruner.compress()[1]))
    assert masks[0] == masks[1]
    assert masks[0]["0"].count(True) >= 4


@pytest.mark.parametrize("name", BY_WEIGHTS)
@pytest.mark.parametrize("first", [(), (None,), "optimizer"])
def test_dependency_aware_by_position(name, first):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3))
    args = (sgd(model),) if first == "optimizer" else first
    pruner = getattr(prune_filter, name)(model, CONV, *args, True, torch.randn(2, 3, 6, 6))
    assert (pruner.mode, pruner.dummy_input.shape) == ("dependency_aware", (2, 3, 6, 6))


def test_flags_and_modes():
    assert LevelPruner(network(), CONV, global_sort=True).mode == "global"
    assert LevelPruner(network(), CONV, global_sort=False).mode == "normal"
    assert LevelPruner(network(), CONV, "global", global_sort=True).mode == "global"
    assert prune_filter.L1FilterPruner(network(), CONV, global_sort=True).mode == "global"
    with pytest.raises(
        ConfigError, match="mode is 'dependency_aware'; the modes of LevelPruner are"
    ):
        LevelPruner(network(), CONV, dependency_aware=True)
    with pytest.raises(ConfigError, match="global_sort=True and mode='balance', which contradict"):
        LevelPruner(network(), CONV, "balance", [1], global_sort=True)


# --- pruners that look at a running model -------------------------------------------------------


def in_the_order_of_2_8(model, optimizer, criterion):
    for batch in BATCHES:
        optimizer.zero_grad()
        criterion(model(batch), LABELS).backward()
        optimizer.step()


def in_the_order_of_2_1(model, optimizer, criterion, epoch):
    assert epoch == 0
    in_the_order_of_2_8(model, optimizer, criterion)


def criterion_first(model, criterion, optimizer, epoch=7):
    assert epoch == 7
    in_the_order_of_2_8(model, optimizer, criterion)


def steps(model, optimizers, criterion, lr_schedulers=None, max_steps=None, max_epochs=None):
    for batch in BATCHES[:max_steps]:
        optimizers.zero_grad()
        criterion(model(batch), LABELS).backward()
        optimizers.step()


def calls(name):
    """All calls that score by the first two batches, as functions of a model."""
    pruner = getattr(prune_filter, name)
    relu = ["relu"] if "Activation" in name else []
    given = {"criterion": F.cross_entropy, "trainer": in_the_order_of_2_1}
    return {
        "2.8": lambda m: pruner(
            m, CONV, in_the_order_of_2_8, sgd(m), F.cross_entropy, 2, *relu, "normal", None
        ),
        "2.8, by name": lambda m: pruner(
            m, CONV, trainer=criterion_first, traced_optimizer=sgd(m), criterion=F.cross_entropy,
            training_batches=2,
        ),
        "2.1": lambda m: pruner(
            m, CONV, sgd(m), in_the_order_of_2_1, F.cross_entropy, *relu, 2, False, None
        ),
        "2.1, by name": lambda m: pruner(
            m, CONV, optimizer=sgd(m), sparsifying_training_batches=2, **given
        ),
        "2.9": lambda m: pruner(m, CONV, TorchEvaluator(steps, sgd(m), F.cross_entropy), 2),
        "2.9, by name": lambda m: pruner(
            m, config_list=CONV, evaluator=TorchEvaluator(steps, sgd(m), F.cross_entropy),
            training_steps=2,
        ),
    }  # fmt: skip


def expected(name):
    model = network()
    run = in_the_order_of_2_8
    given = {"calibrate": lambda m: run(m, sgd(m), F.cross_entropy), "batches": 2}
    return kept(getattr(prune_filter, name)(model, CONV, **given).compress()[1])


class Loop:
    """A trainer that is an object, and has a `train` like an evaluator."""

    def train(self, model, optimizer, criterion):
        in_the_order_of_2_8(model, optimizer, criterion)

    __call__ = train


@pytest.mark.parametrize("form", ["2.8", "2.1"])
def test_a_trainer_may_be_an_object(form):
    model = network()
    given = [Loop(), sgd(model)] if form == "2.8" else [sgd(model), Loop()]
    pruner = TaylorFOWeightPruner(model, CONV, *given, F.cross_entropy, 2)
    assert kept(pruner.compress()[1]) == expected("TaylorFOWeightPruner")


@pytest.mark.parametrize(
    "name", ["ActivationAPoZRankPruner", "ActivationMeanRankPruner", "TaylorFOWeightPruner"]
)
@pytest.mark.parametrize(
    "call", ["2.8", "2.8, by name", "2.1", "2.1, by name", "2.9", "2.9, by name"]
)
def test_every_call_scores_by_the_same_batches(name, call):
    model = network()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    pruner = calls(name)[call](model)
    assert kept(pruner.compress()[1]) == expected(name)
    with pruner.plain():
        for key, value in model.state_dict().items():
            assert torch.equal(value, before[key]), "statistics leave no trace"


@pytest.mark.parametrize(
    "name",
    [
        "ActivationAPoZRankFilterPruner",
        "ActivationMeanRankFilterPruner",
        "TaylorFOWeightFilterPruner",
    ],
)
@pytest.mark.parametrize("form", ["1.4", "1.9", "1.9, by name"])
def test_the_first_releases_watch_the_next_batch(name, form):
    model = network()
    activation = ["relu"] if "Activation" in name else []
    optimizer = sgd(model)
    pruner = {
        "1.4": lambda: getattr(prune_filter, name)(model, CONV),
        "1.9": lambda: getattr(prune_filter, name)(model, CONV, optimizer, *activation, 1, False),
        "1.9, by name": lambda: getattr(prune_filter, name)(
            model, CONV, optimizer=optimizer, statistics_batch_num=1
        ),
    }[form]()
    trained = pruner.compress()
    counts = []
    for batch in BATCHES[:2]:
        F.cross_entropy(trained(batch), LABELS).backward()
        counts.append([keep.count(True) for keep in kept(pruner.masks).values()])
    assert counts == [[8, 6], [4, 3]]


def test_the_first_releases_took_the_activation_third():
    pruner = ActivationAPoZRankFilterPruner(network(), CONV, "relu6", 3)
    assert (pruner.activation, pruner.calibration.batches) == (F.relu6, 3)


def test_global_sort_and_dependency_aware():
    given = {"calibrate": lambda m: F.cross_entropy(m(BATCHES[0]), LABELS).backward()}
    assert TaylorFOWeightFilterPruner(network(), CONV, global_sort=True, **given).mode == "global"
    model = network()
    pruner = TaylorFOWeightPruner(
        model, CONV, sgd(model), in_the_order_of_2_1, F.cross_entropy, 1, True, BATCHES[0]
    )
    assert (pruner.mode, pruner.calibration.batches) == ("dependency_aware", 1)
    pruner = ActivationMeanRankPruner(
        network(), CONV, dependency_aware=True, dummy_input=BATCHES[0], **given
    )
    assert pruner.mode == "dependency_aware"


def test_a_number_of_batches_is_said_once():
    with pytest.raises(ConfigError, match="statistics_batch_num and training_batches, which mean"):
        ActivationAPoZRankPruner(network(), CONV, statistics_batch_num=1, training_batches=2)


# --- pruners that train -------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["2.8", "2.1", "2.1, by name", "2.9"])
def test_slim_trains_in_every_form(form):
    epochs = []

    def trainer(model, optimizer, criterion, epoch):
        epochs.append(epoch)
        in_the_order_of_2_8(model, optimizer, criterion)

    def train(model, optimizers, criterion, lr_schedulers, max_steps, max_epochs):
        for epoch in range(max_epochs):
            trainer(model, optimizers, criterion, epoch)

    model, other = network(), network()
    criterion = F.cross_entropy
    pruner = {
        "2.8": lambda: SlimPruner(model, NORM, trainer, sgd(model), criterion, 2, 0.1, "global"),
        "2.1": lambda: SlimPruner(model, NORM, sgd(model), trainer, criterion, 2, 0.1, False, None),
        "2.1, by name": lambda: SlimPruner(
            model, NORM, optimizer=sgd(model), trainer=trainer, criterion=criterion,
            sparsifying_training_epochs=2, scale=0.1,
        ),
        "2.9": lambda: SlimPruner(
            model, NORM, TorchEvaluator(train, sgd(model), criterion), 2, 0.1, "global"
        ),
    }[form]()  # fmt: skip
    _, masks = pruner.compress()
    assert epochs == [0, 1]

    def calibrate(model):
        optimizer = sgd(other)
        for _ in range(2):
            in_the_order_of_2_8(model, optimizer, criterion)

    _, same = SlimPruner(other, NORM, scale=0.1, calibrate=calibrate).compress()
    assert masks["1"]["weight"].tolist() == same["1"]["weight"].tolist()
    torch.testing.assert_close(model[1].module.weight, other[1].module.weight)


def test_slim_of_the_first_releases_ranks_the_factors_as_they_are():
    model = network()
    nn.init.uniform_(model[1].weight)
    before = model[1].weight.detach().clone()
    _, masks = SlimPruner(model, NORM, sgd(model)).compress()
    assert torch.equal(model[1].module.weight, before)
    assert masks["1"]["weight"].sum() == 4


def test_movement_by_position_and_by_the_names_of_2_10():
    model = network()
    evaluator = TorchEvaluator(steps, sgd(model), F.cross_entropy)
    pruner = MovementPruner(model, CONV, evaluator, 1, 3, None, 4)
    assert pruner.ramp == (1, 3)
    model = network()
    with pytest.warns(PruneWarning) as warned:
        pruner = MovementPruner(
            model=model, config_list=CONV, training_steps=4, warm_up_step=1,
            evaluator=TorchEvaluator(steps, sgd(model), F.cross_entropy),
            cool_down_beginning_step=3, regular_scale=10, movement_mode="soft",
            sparse_granularity="finegrained",
        )  # fmt: skip
    assert [str(w.message) for w in warned] == [
        "MovementPruner: regular_scale=10 has no effect here.",
        "MovementPruner: movement_mode='soft' has no effect here.",
    ]
    assert pruner.ramp == (1, 3)


def test_an_argument_that_nobody_knows_is_told_the_nearest():
    with pytest.raises(OptionError, match="L1NormPruner takes no 'dumy_input'. Did you mean"):
        prune_filter.L1NormPruner(network(), CONV, dumy_input=1)
    with pytest.raises(OptionError, match="'sparsifying_training_batch'. Did you mean 'spars"):
        TaylorFOWeightPruner(network(), CONV, sparsifying_training_batch=1)
