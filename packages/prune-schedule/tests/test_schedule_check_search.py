"""`check_search` passes sound searches, and catches each way of being unsound."""

import random

import pytest

from prune_core import ConfigError, PruneError
from prune_core.testing import MLP, make_toy
from prune_schedule import (
    FinetunedSearchPruner,
    NetAdaptPruner,
    SearchPruner,
    SensitivityPruner,
    SimulatedAnnealingPruner,
)
from prune_schedule.testing import check_search


class RandomSearch(SearchPruner):
    """Tries distributions drawn at random: sound."""

    tries = 4

    @property
    def settings(self):
        return {"tries": self.tries}

    @property
    def length(self):
        return self.tries

    def plans(self):
        chance = random.Random(self.seed)
        best = None
        for number in range(self.tries):
            plan = self.plan(chance)
            score = yield plan
            if score is not None and (best is None or score > best):
                best = score
                self.keep(plan, score, number)

    def plan(self, chance):
        shares = {name: chance.random() for name in self.sizes}
        return self.budget.fitted(shares, self.floors)


class Tuned(FinetunedSearchPruner, RandomSearch):
    """The same, for one that may fine-tune."""


def test_a_sound_search_passes():
    check_search(RandomSearch)
    check_search(Tuned)


@pytest.mark.parametrize(
    ("search", "options"),
    [
        (SimulatedAnnealingPruner, {"cool_down_rate": 0.5}),
        (NetAdaptPruner, {"sparsity_per_iteration": 0.2}),
        (SensitivityPruner, {"sparsity_per_iter": 0.25, "ratios": [0.3, 0.6]}),
    ],
)
def test_the_searches_of_this_package_pass(search, options):
    def make(model, config_list, evaluate, *args, **more):
        return search(model, config_list, *args, evaluate=evaluate, **options, **more)

    check_search(make)


class Over(RandomSearch):
    def plan(self, chance):
        return dict.fromkeys(self.sizes, 0.1)


class Worst(RandomSearch):
    def plans(self):
        chance = random.Random(self.seed)
        first = self.plan(chance)
        score = yield first
        second = self.plan(chance)
        yield second
        self.keep(second, score)


class Unseeded(RandomSearch):
    drawn = random.Random(0)

    def plan(self, chance):
        return super().plan(self.drawn)


class Hasty(RandomSearch):
    """Plans otherwise while it replays what an earlier start has tried."""

    def plan(self, chance):
        return super().plan(chance if self._busy or not self.trials else random.Random(99))


class ByScore(RandomSearch):
    """Reads the score by its own sign."""

    def plans(self):
        best = None
        chance = random.Random(self.seed)
        for number in range(self.tries):
            plan = self.plan(chance)
            score = yield plan
            mine = self.trials[-1]["score"]
            if best is None or mine > best:
                best = mine
                self.keep(plan, score, number)


class Naive(RandomSearch):
    """Does not think of trials that fail."""

    def plans(self):
        chance = random.Random(self.seed)
        best = float("-inf")
        for number in range(self.tries):
            plan = self.plan(chance)
            score = yield plan
            if score > best:
                best = score
                self.keep(plan, score, number)


class Odd(RandomSearch):
    @property
    def settings(self):
        return {"tries": {self.tries}}


class Short(RandomSearch):
    @property
    def length(self):
        return 99


class Trains(RandomSearch):
    def plan(self, chance):
        for wrapper in self.get_modules_wrapper().values():
            wrapper.module.bias.data.add_(1.0) if wrapper.module.bias is not None else None
        return super().plan(chance)


@pytest.mark.parametrize(
    ("search", "says"),
    [
        (Over, r"budget: .* was asked for: plan with self.budget.fitted"),
        (Over, r"target: target=\{'parameters': 0.6\} leaves"),
        (Worst, r"result: the score is .*, and the model in force scores"),
        (Unseeded, r"determinism: two runs with one seed try different plans"),
        (Hasty, r"resume: "),
        (ByScore, r"minimize: the scores are"),
        (Naive, r"failure: raised TypeError"),
        (Odd, r"settings: settings is no plain data"),
        (Short, r"length: length is 99, and 4 trials are made"),
        (Trains, r"weights: conv1.bias have other values"),
    ],
)
@pytest.mark.filterwarnings("ignore::prune_core.PruneWarning")
def test_an_unsound_search_is_caught(search, says):
    with pytest.raises(AssertionError, match=says):
        check_search(search)


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        ([0.5], r"plans\(\) yielded 0.5; it must yield \{layer: sparsity\}"),
        ({"fc1": 0.5}, "a plan without 'fc2'; a plan is for the layers 'fc1', 'fc2', 'fc3'"),
        ({"fc1": 0.5, "fc2": 0.5, "fc3": 0.5, "fc4": 0.5}, "a plan for 'fc4'"),
        ({"fc1": 0.5, "fc2": -0.5, "fc3": 0.5}, "yielded -0.5 for 'fc2'; a sparsity is a number"),
        ({"fc1": "half", "fc2": 0.5, "fc3": 0.5}, "yielded 'half' for 'fc1'"),
    ],
)
def test_a_plan_that_is_none_is_refused(plan, says):
    class Asks(RandomSearch):
        def plans(self):
            yield plan

    rules = [{"sparsity": 0.5, "op_types": ["Linear"]}]
    search = Asks(make_toy(MLP), rules, lambda model: 0.5, pruning_algorithm="smallest")
    with pytest.raises(ConfigError, match=says):
        search.run()


def test_a_search_that_keeps_nothing_says_so():
    class Forgets(RandomSearch):
        def keep(self, *args):
            pass

    rules = [{"sparsity": 0.5, "op_types": ["Linear"]}]
    search = Forgets(make_toy(MLP), rules, lambda model: 0.5, pruning_algorithm="smallest")
    with pytest.raises(PruneError, match=r"Forgets.plans\(\) ended without a result.*keep\(plan"):
        search.run()
