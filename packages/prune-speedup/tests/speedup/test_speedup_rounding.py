"""What rounding may explain of a difference, and what is looked at in numbers that hardly round."""

import pytest
import torch
from branching import Branching, half, snapshot, unchanged
from torch import nn

from prune_core import ConfigError, SpeedupError, shrink
from prune_speedup.torch import apply_plan as run
from prune_speedup.torch.proof import run as proof
from prune_speedup.torch.proof.compare import IN_DOUBLE, compare
from prune_speedup.torch.proof.two_states import (
    CaseError,
    TwoStates,
    Verdict,
    where_it_hardly_rounds,
)
from prune_speedup.torch.record.case import Case
from prune_speedup.torch.tensors import Snapshot


class Chaotic(Branching):
    """Doubles every difference sixty times over, where the example does not come."""

    def __init__(self):
        super().__init__()
        self.first, self.usual = nn.Linear(3, 999), nn.Linear(999, 64)

    def forward(self, x):
        y = self.usual(self.first(x))
        if len(x) != 2:
            y = y.sigmoid()
            for _ in range(60):
                y = 4 * y * (1 - y)
        return y


class Averaging(Branching):
    """Takes the mean of what can be cut, and as chaotically, where the example does not come."""

    def forward(self, x):
        y = self.first(x)
        if len(x) != 2:
            z = y.sigmoid().mean(1, keepdim=True)
            for _ in range(60):
                z = 4 * z * (1 - z)
            return self.usual(y) + z
        return self.usual(y)


def test_a_case_that_rounding_alone_turns_over_is_no_judge():
    model, x = Chaotic().eval(), torch.rand(2, 3)
    report = shrink(model, x, units=half(model, x))
    assert report.verified == ["the example"]
    model, x = Chaotic().eval().double(), x.double()
    removed, before = half(model, x), snapshot(model)
    assert shrink(model, x, units=removed).verified == ["the example"]
    assert torch.equal(model.usual.bias, before["usual.bias"]), "to the last bit"
    model = Chaotic().eval()
    x, removed = x.float(), half(model, x.float())
    with pytest.raises(SpeedupError, match="differs from the masked one"):
        shrink(model, x, units=removed, verify_inputs=[torch.rand(5, 3)])


class Dividing(Branching):
    """Dozens of normalisations of four values each, where the example does not come.

    They make of 1e-16 what can be seen. It is returned, kept, or only there inside.
    """

    def __init__(self, seen):
        super().__init__()
        self.first, self.usual, self.seen = nn.Linear(3, 999), nn.Linear(999, 16), seen
        self.mix = nn.Linear(16, 16, bias=False)
        self.register_buffer("kept", torch.zeros(16))

    def forward(self, x):
        y = z = self.usual(self.first(x))
        if len(x) != 2:
            for _ in range(90):
                z = nn.functional.instance_norm((z * z - self.mix(z)).view(-1, 4, 4)).flatten(1)
            if self.seen == "kept":
                self.kept = z[0]
        return z if self.seen == "returned" else y + 0 * z


class Mistaken(Dividing):
    """The same places, where nothing but a mistake makes a difference."""

    def forward(self, x):
        y = z = self.usual(self.first(x))
        if len(x) != 2:
            z = self.rare(self.first(x)[:, :8])
            if self.seen == "kept":
                self.kept = z[0]
        return z if self.seen == "returned" else y + 0 * z.sum()


@pytest.fixture
def explained(monkeypatch):
    """What was answered whenever it was asked whether rounding explains a difference."""
    answers = []
    is_shaky = proof._Prover._is_shaky

    def heard(self, *given):
        answers.append(is_shaky(self, *given))
        return answers[-1]

    monkeypatch.setattr(proof._Prover, "_is_shaky", heard)
    return answers


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seen", ["returned", "kept", "inside"])
def test_rounding_explains_what_normalising_a_handful_makes_of_it(seen, dtype, explained):
    torch.manual_seed(0)
    model, x = Dividing(seen).eval().to(dtype), torch.rand(2, 3).to(dtype)
    report = shrink(model, x, units=half(model, x))
    assert explained
    assert all(explained)
    assert report.verified == ["the example"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("seen", ["returned", "kept", "inside"])
def test_it_does_not_explain_a_mistake(seen, dtype, explained, monkeypatch):
    def wrong(model, plan):
        update_sizes(model, plan)
        model.rare.weight.data[0, 0] += 0.01

    update_sizes = run.update_sizes
    monkeypatch.setattr(run, "update_sizes", wrong)
    torch.manual_seed(0)
    model, x = Mistaken(seen).eval().to(dtype), torch.rand(2, 3).to(dtype)
    with pytest.raises(SpeedupError):
        shrink(model, x, units=half(model, x))
    assert explained
    assert not any(explained)


def test_what_a_chaotic_case_hides_is_looked_for_in_its_graph():
    model, x = Averaging().eval(), torch.rand(2, 3)
    report = shrink(model, x, units=half(model, x))
    assert model.first.out_features == 8, "the mean is over all eight"
    assert "a batch of 3 where the example has 2" in report.verified


def test_a_difference_that_rounding_does_not_explain_is_found_in_a_made_up_case(monkeypatch):
    def wrong(model, plan):
        update_sizes(model, plan)
        model.usual.weight.data[0, 0] += 1e-3

    class Elsewhere(Branching):
        def forward(self, x):
            return self.usual(self.first(x)) if len(x) != 2 else self.first(x).sum(1)

    update_sizes = run.update_sizes
    monkeypatch.setattr(run, "update_sizes", wrong)
    model, x = Elsewhere().eval(), torch.rand(2, 3)
    with pytest.raises(SpeedupError):
        shrink(model, x, units=half(model, x))


def test_a_difference_that_an_output_hides_is_not_taken_for_rounding(monkeypatch):
    def wrong(model, plan):
        update_sizes(model, plan)
        model.rare.weight.data[0, 0] += 1

    class Hides(Branching):
        def forward(self, x):
            hidden = self.norm(self.first(x))
            return self.usual(hidden) if len(x) == 2 else self.rare(hidden) * 0 + 1

    update_sizes = run.update_sizes
    monkeypatch.setattr(run, "update_sizes", wrong)
    torch.manual_seed(0)
    model, x = Hides().eval(), torch.rand(2, 3)
    with pytest.raises(SpeedupError, match="Inside, the small model computes other numbers"):
        shrink(model, x, units=half(model, x))


class Keeping(nn.Module):
    """Keeps means of numbers whose mean is zero, so that all of it is rounding."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(3, 999), nn.Linear(999, 16), nn.Linear(16, 4)
        self.norm = nn.BatchNorm1d(16)

    def forward(self, x):
        y = self.second(self.first(x))
        if len(x) != 2:
            z = y - y.mean(0)
            self.norm.running_mean.copy_(z.mean(0))
        return self.last(self.norm(y))


def test_what_a_model_keeps_is_no_judge_where_rounding_alone_turns_it_over():
    model, x = Keeping().eval(), torch.rand(2, 3)
    report = shrink(model, x, units=half(model, x))
    assert report.parameters[1] < report.parameters[0]
    assert report.verified == ["the example"]


class Bottleneck(nn.Module):
    """A layer reads what a batch norm has centred, so that the mean which the next keeps is zero.

    The blocks of EfficientNet do so. As theirs, the forward asks whether it trains.
    """

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Linear(3, 999), nn.BatchNorm1d(999)
        self.second, self.centred = nn.Linear(999, 16, bias=False), nn.BatchNorm1d(16)
        self.last, self.shift = nn.Linear(16, 4), nn.Parameter(torch.zeros(16))

    def forward(self, x):
        y = self.second(self.norm(self.first(x)))
        return self.last(self.centred(y + self.shift if self.training else y).relu())


@pytest.fixture
def asked(monkeypatch):
    """The types of numbers that models were compared in."""
    types, original = [], proof._Prover.compared

    def compared(prover, cases, tolerance, dtype):
        types.append(dtype)
        return original(prover, cases, tolerance, dtype)

    monkeypatch.setattr(proof._Prover, "compared", compared)
    return types


class Inverted(nn.Module):
    """Blocks of MobileNetV2 which leave one pixel of a small image, and ask whether they train."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(*(self.block(stride) for stride in (2, 2, 2, 2, 1, 1)))
        self.last = nn.Linear(8, 2)

    @staticmethod
    def block(stride):
        return nn.Sequential(
            *(nn.Conv2d(8, 24, 1, bias=False), nn.BatchNorm2d(24), nn.SiLU()),
            *(nn.Conv2d(24, 24, 3, stride, 1, groups=24, bias=False), nn.BatchNorm2d(24)),
            *(nn.SiLU(), nn.Conv2d(24, 8, 1, bias=False), nn.BatchNorm2d(8)),
        )

    def forward(self, x):
        y = self.last(self.blocks(self.first(x)).mean((2, 3)))
        return y if self.training else y.clone()


def test_batch_norms_in_training_see_images_that_differ(asked):
    """Of the same image twice each of them would divide next to nothing by next to nothing."""
    torch.manual_seed(0)
    model, x = Inverted().eval(), torch.rand(1, 3, 32, 32)
    report = shrink(model, x, units=half(model, x))
    assert any("in training" in name for name in report.verified)
    assert asked == [None], "nothing was done in double"


def test_a_mean_that_is_zero_is_held_to_what_it_is_the_mean_of(asked):
    model, x = Bottleneck().eval(), torch.rand(8, 3)
    report = shrink(model, x, units=half(model, x))
    assert report.verified == ["the example", "a batch of 3 where the example has 8, in training"]
    assert asked == [None], "nothing was done in double"


@pytest.mark.parametrize("moved", [1e-2, 1e-3])
def test_a_mean_that_is_wrong_for_what_it_is_the_mean_of_is_found(monkeypatch, moved):
    """What is added before a batch norm shows in training in the mean that is kept, alone."""

    def wrong(model, plan):
        update_sizes(model, plan)
        model.shift.data[0] += moved

    update_sizes = run.update_sizes
    monkeypatch.setattr(run, "update_sizes", wrong)
    # Nor does anything look at what is computed inside.
    monkeypatch.setattr(proof.Inside, "worst", lambda self: (0.0, ""))
    torch.manual_seed(0)
    model, x = Bottleneck().eval(), torch.rand(8, 3)
    before = snapshot(model)
    with pytest.raises(SpeedupError, match="keeps other numbers .* 'centred.running_mean'"):
        shrink(model, x, units=half(model, x))
    assert unchanged(model, before)


def test_a_variance_that_overflows_says_nothing_of_its_mean():

    class Overflowing(Bottleneck):
        def forward(self, x):
            return super().forward(x * 1e25 if self.training else x)

    torch.manual_seed(0)
    model, x = Overflowing().eval(), torch.rand(8, 3)
    report = shrink(model, x, units=half(model, x))
    assert any("in training" in name for name in report.verified)


def test_differences_are_relative_to_what_something_was_made_of():
    mean, other = {"mean": torch.tensor([1e-9, 2e-9])}, {"mean": torch.tensor([1e-5, 0.0])}
    assert not compare(mean, other).ok
    assert compare(mean, other, made_of={"['mean']": 1.0}).ok
    assert not compare(mean, other, made_of={"['mean']": 1e-2}).ok
    assert not compare(mean, {"mean": torch.tensor([torch.nan, 0.0])}, made_of={"['mean']": 1.0}).ok


def test_numbers_of_eight_bits_are_compared():
    one = torch.tensor([1.0, torch.nan]).to(torch.float8_e4m3fn)
    assert compare(one, one.clone()).ok
    assert not compare(one, torch.tensor([1.125, torch.nan]).to(torch.float8_e4m3fn)).ok


def test_a_difference_in_what_is_kept_is_not_taken_for_rounding(monkeypatch):
    def wrong(model, plan):
        update_sizes(model, plan)
        model.rare.weight.data[0, 0] += 1

    class Keeps(Branching):
        def __init__(self):
            super().__init__()
            self.register_buffer("kept", torch.zeros(self.rare.out_features))

        def forward(self, x):
            hidden = self.norm(self.first(x))
            if len(x) != 2:
                self.kept = self.rare(hidden).mean(0)
            return self.usual(hidden)

    update_sizes = run.update_sizes
    monkeypatch.setattr(run, "update_sizes", wrong)
    torch.manual_seed(0)
    model, x = Keeps().eval(), torch.rand(2, 3)
    with pytest.raises(SpeedupError, match="keeps other numbers"):
        shrink(model, x, units=half(model, x))


def apart(case, *, runs=True, rounds=True):
    return CaseError(case, f"apart on {case.name}", runs=runs, rounds=rounds)


FIRST, SECOND = Case("the first", None), Case("the second", None)


@pytest.mark.parametrize(
    ("tolerance", "asked"),
    [(None, [(None, None), (IN_DOUBLE, torch.float64)]), (1e-4, [(1e-4, None)])],
)
def test_only_what_may_be_rounding_is_run_in_double(tolerance, asked):
    seen = []

    def prove(cases, tolerance, dtype):
        seen.append((tolerance, dtype))
        return Verdict(apart=[apart(case) for case in cases])

    with pytest.raises(CaseError):
        where_it_hardly_rounds(nn.Linear(2, 2), tolerance, [FIRST], prove)
    assert seen == asked


def test_only_the_doubtful_case_is_run_in_double_and_later_from_the_first():
    seen = []

    def prove(cases, tolerance, dtype):
        seen.append(([case.name for case in cases], dtype))
        failing = cases[1:] if dtype is None else []
        names = [case.name for case in cases if case not in failing]
        return Verdict(inputs=names, apart=[apart(case) for case in failing])

    rounding = set()
    for _ in range(2):
        verdict = where_it_hardly_rounds(nn.Linear(2, 2), None, [FIRST, SECOND], prove, rounding)
        assert verdict.inputs == ["the first", "the second"]
    assert seen == [
        (["the first", "the second"], None),
        (["the second"], torch.float64),
        (["the first"], None),
        (["the second"], torch.float64),
    ]


def test_the_example_comes_first_whatever_it_is_looked_at_in():
    def prove(cases, tolerance, dtype):
        failing = cases[:1] if dtype is None else []
        names = [case.name for case in cases if case not in failing]
        return Verdict(inputs=names, apart=[apart(case) for case in failing])

    cases = [Case("the example", None), SECOND]
    verdict = where_it_hardly_rounds(nn.Linear(2, 2), None, cases, prove)
    assert verdict.inputs == ["the example", "the second"]


@pytest.mark.parametrize("refuses", [True, False])
def test_a_doubtful_case_that_does_not_run_in_double_is_not_left_out(refuses):
    def prove(cases, tolerance, dtype):
        if dtype is None:
            return Verdict(inputs=["the first"], apart=[apart(SECOND)])
        if refuses:
            raise ConfigError("no kernel takes doubles")
        return Verdict()  # a case that was made up, and is not accepted

    with pytest.raises(CaseError, match="apart on the second"):
        where_it_hardly_rounds(nn.Linear(2, 2), None, [FIRST, SECOND], prove)
    rounding = {"the second"}
    with pytest.raises(CaseError, match="apart on the second"):
        where_it_hardly_rounds(nn.Linear(2, 2), None, [FIRST, SECOND], prove, rounding)


@pytest.mark.parametrize(("runs", "rounds"), [(True, False), (False, True)])
def test_what_is_no_rounding_is_an_error_at_once(runs, rounds):
    def hold(case, expected):
        raise apart(case, runs=runs, rounds=rounds)

    model = nn.Linear(2, 2)
    with pytest.raises(CaseError):
        TwoStates(model, Snapshot(model)).held([(FIRST, None)], None, hold)


def test_numbers_of_another_shape_are_no_rounding():
    one, other = torch.zeros(2, 3), torch.zeros(2, 4)
    assert not compare(one, other).ok
    assert not compare(one, other).rounds
    assert not compare(one, one.double()).rounds
    assert compare(one, one + torch.inf).rounds
    assert not compare({"a": one}, {"b": one}).rounds


def test_rounding_inside_of_half_precision_is_no_error(monkeypatch):
    """A norm computes in single precision of what was rounded to half of it."""

    class Rounding(proof.Inside):
        def check(self, call, told, result):
            super().check(call, told, result)
            if isinstance(result, torch.Tensor) and result.dtype == torch.bfloat16:
                self.worst = 2.0

    monkeypatch.setattr(proof, "Inside", Rounding)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).bfloat16().eval()
    x = torch.randn(2, 8).bfloat16()
    report = shrink(model, x, units=half(model, x))
    assert report.parameters[1] < report.parameters[0]


class Centred(nn.Module):
    """A norm over what norms have centred, as where residual branches end with one."""

    def __init__(self):
        super().__init__()
        self.up, self.down, self.last = nn.Linear(8, 16), nn.Linear(16, 8), nn.LayerNorm(8)

    def forward(self, x):
        x = nn.functional.layer_norm(x, (8,))
        branch = nn.functional.layer_norm(self.down(self.up(x).relu()), (8,))
        return self.last(x + branch)


def test_a_mean_that_is_nothing_but_rounding_is_not_compared():
    torch.manual_seed(0)
    model, x = Centred().eval(), torch.randn(4, 8)
    report = shrink(model, x, units=half(model, x))
    assert model.up.out_features == 8
    assert report.verified[0] == "the example"
