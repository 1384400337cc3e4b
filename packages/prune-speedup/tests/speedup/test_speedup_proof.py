"""What the proof looks at: the example, a batch of another size, and what the user adds."""

import copy

import pytest
import torch
from branching import Branching, half, snapshot, unchanged
from torch import nn

from prune_core import ConfigError, PruneWarning, SpeedupError, shrink
from prune_speedup.torch import apply_plan as run
from prune_speedup.torch.cost import flops_of
from prune_speedup.torch.record.recorder import trace
from prune_speedup.torch.rules import has_rule


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (1, "a batch of 2 where the example has 1"),
        (2, "a batch of 3 where the example has 2"),
        (3, "a batch of 4 where the example has 3"),
        (9, "a batch of 3 where the example has 9"),
    ],
)
def test_a_batch_of_another_size_is_looked_at(size, said):
    model, x = Branching().eval(), torch.rand(size, 3)
    report = shrink(model, x, units=half(model, x))
    assert report.verified == ["the example", said]
    assert said in str(report)


def test_every_input_grows_with_the_batch():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right, self.head = nn.Linear(3, 8), nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, left, *, more, scale):
            return self.head(self.left(left) + self.right(more["x"])) * scale

    model = Two().eval()
    inputs = {"left": torch.rand(4, 3), "more": {"x": torch.rand(4, 4)}, "scale": torch.rand(2)}
    report = shrink(model, inputs, units=half(model, inputs))
    assert report.verified == ["the example", "a batch of 3 where the example has 4"]


def test_a_small_model_that_only_follows_the_example_is_refused(monkeypatch):
    def broken(model, plan):
        update_sizes(model, plan)

        def only_two(module, args):
            if len(args[0]) != 2:
                raise ValueError("two, please")

        model.register_forward_pre_hook(only_two)

    update_sizes = run.update_sizes
    monkeypatch.setattr(run, "update_sizes", broken)
    model, x = Branching().eval(), torch.rand(2, 3)
    before = snapshot(model)
    with pytest.raises(SpeedupError, match="two, please"):
        shrink(model, x, units=half(model, x))
    assert unchanged(model, before)
    assert not model._forward_pre_hooks


def test_a_model_of_one_batch_size_is_judged_by_it():
    class Fixed(Branching):
        def forward(self, x):
            return super().forward(x.view(2, 3))

    model, x = Fixed().eval(), torch.rand(2, 3)
    assert shrink(model, x, units=half(model, x)).verified == ["the example"]


def test_a_batch_that_takes_another_path_is_a_judge_too():
    class Routed(Branching):
        def forward(self, x):
            return super().forward(x if len(x) == 2 else x.flip(0).flip(0))

    model, x = Routed().eval(), torch.rand(2, 3)
    verified = shrink(model, x, units=half(model, x)).verified
    assert verified == ["the example", "a batch of 3 where the example has 2"]


def test_inputs_of_the_users_own_show_what_the_example_does_not():
    model, x = Branching().eval(), torch.rand(2, 3)
    chosen = half(model, x)
    assert shrink(Branching().eval(), x, units=chosen, verify_inputs=[x + 1]).verified[:2] == [
        "the example",
        "verify_inputs[0]",
    ]
    # What the other path reads was not cut; now it is recorded as well, and cut with the rest.
    left = torch.arange(1, 8, 2)
    hidden = nn.functional.layer_norm(model.first(x - 1)[:, left], (4,))
    truth = hidden @ model.rare.weight[:, left].T + model.rare.bias
    report = shrink(model, x, units=chosen, verify_inputs=[x + 1, x - 1])
    assert "verify_inputs[1]" in report.verified
    torch.testing.assert_close(model(x - 1), truth)


def test_inputs_that_the_model_itself_refuses():
    model, x = Branching().eval(), torch.rand(2, 3)
    before = snapshot(model)
    with pytest.raises(ConfigError, match=r"does not run on verify_inputs\[0\]: RuntimeError"):
        shrink(model, x, units=half(model, x), verify_inputs=[torch.rand(2, 4)])
    assert unchanged(model, before)


@pytest.mark.parametrize("hidden", [float("-inf"), torch.finfo(torch.float32).min, -1e9])
def test_numbers_that_hide_a_position_are_the_same_in_both(hidden):
    """Such a number times a random one is beyond what a float32 can hold."""

    class Masking(Branching):
        def forward(self, x):
            y = self.first(x)
            seen = torch.ones(len(x), len(x), dtype=torch.bool).tril()
            return self.usual(torch.where(seen, y @ y.T, hidden).softmax(-1) @ y)

    model, x = Masking().eval(), torch.rand(2, 3)
    report = shrink(model, x, units=half(model, x))
    assert report.inside > 0
    assert report.parameters[1] < report.parameters[0]


class Open(nn.Module):
    """Shows on request what it has inside, as transformers do, and what a head makes of it."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 2)
        self.aside = nn.Linear(8, 4)

    def forward(self, x, output_hidden_states=False, output_classes=False):
        states = [self.first(x)]
        states.append(states[0] + self.second(states[0].relu()))
        found = {"logits": self.last(states[1])}
        if output_hidden_states:
            found["hidden_states"] = [each.unsqueeze(-1).mT for each in states]
        if output_classes:
            found["classes"] = self.aside(states[1])
        return found


def test_what_is_shown_on_request_is_as_wide_as_the_small_model_is():
    model, x = Open().eval(), torch.rand(2, 3)
    even, two = torch.arange(8) % 2 == 0, torch.arange(4) < 2
    masks = {
        name: {
            "weight": keep.float()[:, None].expand_as(getattr(model, name).weight),
            "bias": keep.float(),
        }
        for name, keep in {"first": even, "second": even, "aside": two}.items()
    }
    masked = copy.deepcopy(model)
    for name, tensors in masks.items():
        for leaf, mask in tensors.items():
            getattr(masked.get_submodule(name), leaf).data.mul_(mask)
    expected = masked(x, output_hidden_states=True, output_classes=True)
    with pytest.warns(
        PruneWarning, match="those of 'aside': the model returns it when it is asked"
    ):
        report = shrink(model, x, masks)
    found = model(x, output_hidden_states=True, output_classes=True)
    assert model.last.in_features == 4
    assert torch.allclose(found["logits"], expected["logits"], atol=1e-6)
    for small, large in zip(found["hidden_states"], expected["hidden_states"], strict=True):
        assert torch.allclose(small, large[..., even], atol=1e-6)
    # Its classes are a result, and masked ones are returned as what they are.
    assert torch.allclose(found["classes"], expected["classes"], atol=1e-6)
    ((asks, paths),) = report.narrower.items()
    assert "output_hidden_states=True" in asks
    assert paths == ["['hidden_states'][0]", "['hidden_states'][1]"]
    assert "it returns ['hidden_states'][0] and 1 more with fewer channels" in report.table()
    wanted = {"x": x, "output_hidden_states": True}
    again = Open().eval()
    with pytest.warns(PruneWarning, match="the model returns it"):
        shrink(again, wanted, masks)
    assert again.last.in_features == 8, "the example itself asks for them"


class Rescaled(nn.Module):
    """Halves its weights when it stops training, and doubles them when it goes on."""

    def __init__(self):
        super().__init__()
        self.first, self.last, self.halved = nn.Linear(3, 8), nn.Linear(8, 2), False

    def forward(self, x):
        if self.training == self.halved:
            with torch.no_grad():
                self.first.weight.mul_(2 if self.training else 0.5)
                self.last.weight.mul_(2 if self.training else 0.5)
            self.halved = not self.training
        return self.last(self.first(x).relu())


def test_weights_that_a_forward_rescales_in_place():
    model, x = Rescaled().eval(), torch.rand(2, 3)
    before = snapshot(model)
    mask = torch.ones(8, 3)
    mask[::2], mask[1, 1] = 0, 0
    report = shrink(model, x, {"first": {"weight": mask, "bias": mask[:, 2]}})
    assert report.parameters[1] < report.parameters[0]
    assert torch.equal(model.first.weight, (before["first.weight"] * mask)[1::2])
    assert torch.equal(model.last.weight, before["last.weight"][:, 1::2])


class Unseen(nn.Module):
    """Does something else with several rows, and nobody sees that it asks how many there are."""

    def __init__(self, more, join=torch.add):
        super().__init__()
        self.first, self.head = nn.Linear(3, 8), nn.Linear(8, 2)
        self.scale, self.more, self.join = nn.Parameter(torch.ones(1)), more, join

    def forward(self, x):
        with torch._C.DisableTorchFunction():
            rows = len(x)
        y = self.first(x) if rows == 1 else self.more(self.first(x), self.scale)
        return self.join(self.head(y), self.scale)


def turned(y, scale):
    return y.flip(1)


def growing(y, scale):
    scale.data.mul_(4)
    return y


def halved(model):
    torch.manual_seed(0)
    with torch.no_grad():
        for layer in (model.first, model.head):
            layer.reset_parameters()
        for parameter in model.first.parameters():
            parameter[:4] = 0
    return model.eval()


@pytest.mark.parametrize("join", [torch.add, torch.maximum], ids=["seen", "hidden"])
def test_other_calls_on_other_inputs_are_compared_inside(join):
    model, x = halved(Unseen(turned, join)), torch.rand(2, 3)
    model.scale.data.fill_(50)  # larger than anything that it hides
    expected = model(x)
    with pytest.warns(PruneWarning, match="4 of 4 masked channels stay"):
        report = shrink(model, x[:1])
    assert report.verified == ["the example", "a batch of 2 where the example has 1"]
    torch.testing.assert_close(model(x), expected)


def test_a_parameter_that_only_other_inputs_write_stays_as_it_was():
    model = halved(Unseen(growing))
    shrink(model, torch.rand(1, 3))
    assert model.scale == 1
    assert model.first.out_features == 4


class ByMode(nn.Module):
    def forward(self, x):
        return x.tanh() if self.training else torch.tanh(x)


class Layers(nn.Module):
    def __init__(self, between):
        super().__init__()
        self.first, self.between, self.head = nn.Linear(3, 8), between, nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.between(self.first(x)))


class Normed(nn.Module):
    def forward(self, x):
        return x * torch.rsqrt((x * x).mean(1, keepdim=True))


@pytest.mark.parametrize(
    ("between", "results", "looks"),
    [
        (torch.tanh, 2, 1),  # whose result follows from another
        (ByMode(), 2, 2),
        (
            lambda x: x.tanh().view(-1, 8),
            3,
            3,
        ),  # of what is repaired, training is a look of its own
        (lambda x: x.tanh() if x.shape[0] else x, 3, 2),
        (lambda x: x.tanh() if x.sum() > -1e9 else x, 4, 2),
        (Normed(), 3, 1),  # where all channels stay
    ],
    ids=["neither", "in training", "told", "asked", "decides", "over all"],
)
@pytest.mark.filterwarnings("ignore:4 of 4 masked channels stay")
def test_inside_all_inputs_are_compared_where_they_may_do_otherwise(between, results, looks):
    """Of two linear layers and what is between them, that many results are compared each time."""
    assert shrink(halved(Layers(between)), torch.rand(2, 3)).inside == looks * results


def test_inside_all_inputs_are_compared_where_a_norm_runs_over_what_stays():
    model = halved(Layers(nn.LayerNorm(8)))
    with torch.no_grad():
        model.between.weight[:4] = model.between.bias[:4] = model.head.weight[:, :4] = 0
    report = shrink(model, torch.rand(2, 3))
    assert report.live_norms == 1
    assert report.inside == 2 * 3


class Agrees(Layers):
    """Insists that its layer is as wide as it has written down, and asks no tensor."""

    def __init__(self):
        super().__init__(torch.tanh)
        self.width = 8

    def forward(self, x):
        if self.first.out_features != self.width:
            raise ValueError(f"a layer of {self.width}, please")
        return super().forward(x)


def test_inside_all_inputs_are_compared_where_an_attribute_was_repaired():
    model = halved(Agrees())
    assert shrink(model, torch.rand(2, 3)).inside == 3 * 3
    assert model.width == 4


def test_inside_all_inputs_are_compared_of_what_works_in_half_precision():
    model, x = halved(Layers(torch.tanh)).bfloat16(), torch.rand(2, 3).bfloat16()
    assert shrink(model, x).inside == 2 * 3


@pytest.mark.parametrize("certificate", [False, True])
def test_what_the_small_model_does_is_counted_as_it_runs(certificate, tmp_path):
    """Of a recurrent layer the plan does not know the first state."""
    model, x = nn.LSTM(4, 8, num_layers=2), torch.rand(5, 1, 4)
    asked = tmp_path / "certificate.json" if certificate else None
    report = shrink(model, x, units=half(model, x), certificate=asked)
    assert report.flops[1] == flops_of(trace(model, x, known=has_rule))
