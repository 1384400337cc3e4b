"""What the criteria score, by hand, and how much goes."""

import math

import pytest
import torch
from layered import Stack, Turns, TwoStacks

import prune_core
from prune_blocks.layers.angular_distance import AngularDistancePruner
from prune_blocks.layers.block_influence import BlockInfluencePruner
from prune_blocks.layers.leave_one_out import LeaveOneOutPruner

VECTORS = torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(0))
TOKENS = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
NAMES = {
    "block_influence": BlockInfluencePruner,
    "angular_distance": AngularDistancePruner,
    "leave_one_out": LeaveOneOutPruner,
}


def names_of(report):
    return [each.name for each in report.removed]


@pytest.mark.parametrize("name", NAMES)
def test_they_are_registered(name):
    assert prune_core.get_pruner(name) is NAMES[name]


def test_block_influence_is_one_minus_the_cosine():
    pruner = BlockInfluencePruner(Turns(50, 10, 30), VECTORS, count=1, data=[VECTORS])
    model, report = pruner.compress()
    expected = [1 - math.cos(math.radians(degrees)) for degrees in (50, 10, 30)]
    assert [*pruner.scores.values()] == pytest.approx(expected, abs=1e-6)
    assert names_of(report) == ["layers.1"]
    assert len(model.layers) == 2


def test_angular_distance_takes_the_run_that_turns_least_in_all():
    # One after the other, 40 and −35 degrees turn by 5; no other pair turns by less than 10.
    pruner = AngularDistancePruner(Turns(20, 40, -35, 50, 10), VECTORS, count=2, data=[VECTORS])
    _, report = pruner.compress()
    assert names_of(report) == ["layers.1", "layers.2"]
    expected = [degrees / 180 for degrees in (20, 40, 35, 50, 10)]
    assert [*pruner.scores.values()] == pytest.approx(expected, abs=1e-6)


def test_the_last_token_that_is_no_padding_counts():
    class Late(Turns):
        """Its second layer turns only the last of five tokens, its first all the others."""

        def forward(self, x, attention_mask=None):
            late = (torch.arange(5) == 3)[:, None]
            x = torch.where(late, x, self.layers[0](x))
            return self.layers[2](torch.where(late, self.layers[1](x), x))

    mask = torch.tensor([[1, 1, 1, 1, 0]] * 2)
    inputs = {"x": VECTORS, "attention_mask": mask}
    model = Turns(0, 40, 90)
    pruner = AngularDistancePruner(model, inputs, count=1, data=[inputs])
    pruner.compress()
    assert pruner.scores["layers.0"] == pytest.approx(0, abs=1e-4)


def test_padding_does_not_count():
    class Padded(Turns):
        """Turns all but the last two tokens."""

        def forward(self, x, attention_mask=None):
            return self.layers[1](self.layers[0](x))

    class Half(type(Turns(0).layers[0])):
        def forward(self, x):
            turned = super().forward(x)
            return torch.cat([turned[:, :3], x[:, 3:]], 1)

    model = Padded(30, 90)
    model.layers[0].__class__ = Half
    inputs = {"x": VECTORS, "attention_mask": torch.tensor([[1, 1, 1, 0, 0]] * 2)}
    pruner = BlockInfluencePruner(model, inputs, count=1, data=[inputs], verify=False)
    pruner.choose()
    assert pruner.scores["layers.0"] == pytest.approx(1 - math.cos(math.radians(30)), abs=1e-6)


def test_leave_one_out_is_the_growth_of_the_loss():
    model = Turns(5, 60, 10)

    def evaluate(model):
        return model(VECTORS, loss=True)

    with torch.no_grad():
        whole = float(evaluate(model))
        without_second = float(evaluate(Turns(5, 10)))
    pruner = LeaveOneOutPruner(model, VECTORS, count=1, evaluate=evaluate)
    _, report = pruner.compress()
    assert names_of(report) == ["layers.1"]
    assert pruner.scores["layers.1"] == pytest.approx(without_second - whole, abs=1e-6)


def test_leave_one_out_reads_the_loss_that_the_model_returns():
    inputs = {"x": VECTORS, "loss": True}
    pruner = LeaveOneOutPruner(Turns(5, 60, 10), inputs, count=1, data=[inputs, inputs])
    assert names_of(pruner.compress()[1]) == ["layers.1"]


def test_greedy_knows_what_can_be_missed_together():
    # In all they turn by 4 degrees. Without 60 or without 59 it is −56 or −55, without both −115.
    def evaluate(model):
        return model(VECTORS, loss=True)

    options = {"count": 2, "evaluate": evaluate}
    _, at_once = LeaveOneOutPruner(Turns(60, 59, -58, -57), VECTORS, **options).compress()
    _, one_by_one = LeaveOneOutPruner(
        Turns(60, 59, -58, -57), VECTORS, greedy=True, **options
    ).compress()
    assert names_of(at_once) == ["layers.0", "layers.1"]
    assert names_of(one_by_one) == ["layers.1", "layers.3"]  # 60 − 58 degrees are left


@pytest.mark.parametrize(
    ("amount", "gone"),
    [
        ({"count": 3}, 3),
        ({"sparsity": 0.5}, 2),
        ({"sparsity": 0.3}, 1),
        ({"target": {"parameters": 0.6}}, 2),
        ({"target": {"flops": 0.77}}, 1),
    ],
)
def test_how_much_goes(amount, gone):
    model = Stack(4)
    before = sum(p.numel() for p in model.parameters())
    small, report = prune_core.prune(
        model, "block_influence", example_inputs=TOKENS, data=[TOKENS], **amount
    )
    assert len(report.removed) == gone
    assert small is not None
    for name, share in amount.get("target", {}).items():
        was, now = getattr(report, name)
        assert now / was <= share
    assert report.parameters == (before, sum(p.numel() for p in model.parameters()))


def test_branches_of_a_kind_can_be_asked_for():
    def evaluate(model):
        return model(TOKENS).square().mean()

    model = Stack(3)
    _, report = prune_core.prune(
        model,
        "leave_one_out",
        count=2,
        targets="mlp",
        exclude="layers.0",
        example_inputs=TOKENS,
        evaluate=evaluate,
    )
    assert sorted(names_of(report)) == ["layers.1.fc1..fc2", "layers.2.fc1..fc2"]


def test_each_list_keeps_a_layer():
    model = TwoStacks()
    prune_core.prune(model, "block_influence", count=3, example_inputs=TOKENS, data=[TOKENS])
    assert min(len(model.first), len(model.second)) == 1


def test_the_calibration_may_do_what_it_likes_with_the_mode():
    model = Stack(3).eval()

    def calibrate(model):
        model.train()
        model(TOKENS)

    prune_core.prune(model, "block_influence", count=1, example_inputs=TOKENS, calibrate=calibrate)
    assert not model.training
