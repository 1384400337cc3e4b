"""The loss of a student: its numbers, the forms that models return, and what does not fit."""

import copy
import math
import pickle
from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from prune_core.errors import ConfigError
from prune_recover import Distiller


class Fixed(nn.Module):
    """Returns the logits that it was made with, whatever it is given."""

    def __init__(self, logits, form=lambda logits: logits):
        super().__init__()
        self.logits, self.form = nn.Parameter(torch.tensor(logits)), form

    def forward(self, x, attention_mask=None):
        return self.form(self.logits)


class Output(OrderedDict):
    """What models of transformers return: a dict with attributes."""

    def __getattr__(self, name):
        return self[name]


def net(width=8, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 3))


X = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))


def test_the_loss_by_hand():
    # softened by T = 2: the teacher says 3/4 and 1/4, the student 1/2 and 1/2
    teacher, student = Fixed([[2 * math.log(3), 0.0]]), Fixed([[0.0, 0.0]])
    kl = 3 / 4 * math.log((3 / 4) / (1 / 2)) + 1 / 4 * math.log((1 / 4) / (1 / 2))
    distiller = Distiller(student, teacher, weights={"logits": 0.5})
    loss = distiller.loss(student(X), torch.tensor([0]))
    assert loss.item() == pytest.approx(0.5 * 4 * kl + math.log(2))
    assert distiller.terms["logits"].item() == pytest.approx(4 * kl)
    assert distiller.terms["labels"].item() == pytest.approx(math.log(2))


def test_the_loss_is_that_of_the_usual_example():
    teacher, student = net(seed=1).eval(), net()
    outputs = student(X)
    soft = F.softmax(teacher(X) / 4, 1)
    wanted = F.kl_div(F.log_softmax(outputs / 4, 1), soft, reduction="sum") * 4**2 / len(X)
    distiller = Distiller(student, teacher, temperature=4)
    torch.testing.assert_close(distiller.loss(student(X)), wanted)


@pytest.mark.parametrize(
    ("compare", "error"),
    [
        ("mse", (9 + 1) / 2),
        ("bce", None),
        (lambda ours, theirs: (ours - theirs).abs().max(), 3.0),
    ],
)
def test_other_comparisons(compare, error):
    teacher, student = Fixed([[3.0, 0.0]]), Fixed([[0.0, 1.0]])
    loss = Distiller(student, teacher, compare=compare, temperature=1).loss(student(X))
    if error is None:
        p = torch.sigmoid(torch.tensor([3.0, 0.0]))
        q = torch.sigmoid(torch.tensor([0.0, 1.0]))
        each = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
        error = each.mean().item()
    assert loss.item() == pytest.approx(error, rel=1e-5)


@pytest.mark.parametrize(
    ("form", "where"),
    [
        (lambda logits: (logits, "more"), None),
        (lambda logits: (logits.sum(), logits), None),  # a loss in front, as in a tuple of old
        (lambda logits: {"logits": logits}, None),
        (lambda logits: Output(loss=None, logits=logits), None),
        (lambda logits: {"other": logits[:1], "scores": logits}, "scores"),
        (lambda logits: [logits[:1], logits], 1),
        (lambda logits: {"a": {"b": logits}}, lambda output: output["a"]["b"]),
    ],
)
def test_outputs_of_any_form(form, where):
    plain = [[0.0, 1.0, 2.0], [1.0, 0.0, 0.0]], [[2.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    losses = []
    for made, place in ((lambda logits: logits, None), (form, where)):
        student, teacher = (Fixed(logits, made) for logits in plain)
        distiller = Distiller(student, teacher, logits=place)
        losses.append(distiller.loss(student(X), torch.tensor([0, 1])).item())
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("form", "said"),
    [
        (lambda logits: {"hidden": logits}, "There are hidden"),
        (lambda logits: None, "returns nothing"),
        (lambda logits: "text", "returns a str"),
    ],
)
def test_outputs_without_logits(form, said):
    student, teacher = Fixed([[0.0]], form), Fixed([[1.0]], form)
    with pytest.raises(ConfigError, match=said):
        Distiller(student, teacher).loss(student(X))


def test_the_loss_that_a_model_brings_is_taken():
    student = Fixed([[0.0, 1.0]], lambda logits: Output(loss=logits.sum() * 7, logits=logits))
    assert Distiller(student, None).loss(student(X)).item() == 7


def test_padding_does_not_count():
    wanted, found = torch.zeros(2, 3, 4), torch.zeros(2, 3, 4)
    wanted[0, 0, 0] = wanted[1, 2, 3] = 5.0
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    student, teacher = Fixed(found.tolist()), Fixed(wanted.tolist())
    distiller = Distiller(student, teacher)
    alone = Distiller(Fixed(found[0, :1].tolist()), Fixed(wanted[0, :1].tolist()))
    loss = distiller.loss(student(X, attention_mask=mask))
    # Of three tokens that count, one differs; the one in the padding does not.
    assert loss.item() == pytest.approx(alone.loss(alone.student(X)).item() / 3)


def test_the_teacher_is_left_as_it_is():
    teacher, student = net(seed=1).train(), net()
    before = copy.deepcopy(teacher.state_dict())
    distiller = Distiller(student, teacher, hidden=["0"])
    distiller.loss(student(X)).backward()
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(module.training for module in teacher.modules())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(parameter.grad is not None for parameter in student.parameters())


def test_the_teacher_answers_in_eval_mode():
    teacher = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)).train()
    student = copy.deepcopy(teacher).eval()
    assert Distiller(student, teacher).loss(student(X)).item() == pytest.approx(0, abs=1e-6)


# --- hidden states ----------------------------------------------------------------------------


def test_hidden_states_by_hand():
    teacher, student = nn.Sequential(nn.Linear(1, 2)), nn.Sequential(nn.Linear(1, 2))
    with torch.no_grad():
        for model, bias in ((teacher, [3.0, 4.0]), (student, [0.0, 0.0])):
            model[0].weight.zero_()
            model[0].bias.copy_(torch.tensor(bias))
    distiller = Distiller(student, teacher, hidden={"0": "0"}, weights={"logits": 0, "hidden": 3})
    # All of the teacher's mean square is missing: an error of 1.
    assert distiller.loss(student(torch.ones(5, 1))).item() == pytest.approx(3)


def test_widths_that_differ_are_named():
    student, teacher = net(width=5), net()
    distiller = Distiller(student, teacher, hidden={"0": "0"})
    with pytest.raises(ConfigError, match=r"'0' is 5 wide in the student, and '0' is 8 wide"):
        distiller.loss(student(X))


def test_a_matrix_between_widths_is_fitted_and_trained():
    student, teacher = net(width=5), net()
    distiller = Distiller(student, teacher, hidden=["0", "3"], project=True)
    with pytest.raises(ConfigError, match=r"prepare\(batch\)"):
        distiller.loss(student(X))
    before = copy.deepcopy(student.state_dict())
    assert distiller.prepare(X) is distiller
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    [matrix] = distiller.parameters()
    assert matrix.shape == (5, 8)
    # The fit is the best there is: hidden states of both are linear in four inputs.
    assert (
        distiller.hidden.error(
            {"0": [student[0](X)], "3": [X]}, {"0": [teacher[0](X)], "3": [X]}, None
        )
        < 0.1
    )
    distiller.loss(student(X)).backward()
    assert matrix.grad is not None


def test_maps_of_convolutions_differ_in_channels():
    torch.manual_seed(0)
    student, teacher = (nn.Sequential(nn.Conv2d(3, n, 3), nn.Conv2d(n, 2, 3)) for n in (4, 6))
    images = torch.randn(2, 3, 8, 8)
    distiller = Distiller(student, teacher, hidden=["0"], project=True, compare="mse")
    distiller.prepare((images, None))
    distiller.loss(student(images)).backward()
    assert [matrix.shape for matrix in distiller.parameters()] == [(4, 6)]


class Repeats(nn.Module):
    def __init__(self, times):
        super().__init__()
        self.layer, self.times = nn.Linear(4, 4), times

    def forward(self, x):
        for _ in range(self.times):
            x = self.layer(x)
        return x


def test_a_layer_that_runs_several_times_is_compared_each_time():
    student, teacher = Repeats(3), Repeats(3)
    distiller = Distiller(student, teacher, hidden=["layer"], weights={"logits": 0})
    loss = distiller.loss(student(X))
    errors = []
    x, y = X, X
    for _ in range(3):
        x, y = student.layer(x), teacher.layer(y)
        errors.append((x - y).square().mean() / y.square().mean())
    torch.testing.assert_close(loss, torch.stack(errors).mean())
    other = Repeats(2)
    with pytest.raises(ConfigError, match="ran 2 times in the student and 'layer' 3 times"):
        Distiller(other, teacher, hidden=["layer"]).loss(other(X))


# --- labels -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (torch.zeros(15, dtype=torch.long), r"shape \(15,\).*logits of the shape \(16, 3\)"),
        (torch.zeros(16), "type float32"),
        (torch.full((16,), 3), "A label is 3; the logits have 3 classes"),
        (torch.full((16,), -1), "A label is -1"),
        ([0] * 16, "labels are a list"),
    ],
)
def test_labels_that_do_not_fit(labels, said):
    student = net()
    with pytest.raises(ConfigError, match=said):
        Distiller(student, None).loss(student(X), labels)


def test_labels_of_another_kind_have_a_loss_of_their_own():
    student = net()
    wanted = torch.randn(16, 3)
    distiller = Distiller(student, None, label_loss=F.mse_loss)
    torch.testing.assert_close(distiller.loss(student(X), wanted), F.mse_loss(student(X), wanted))


def test_labels_that_are_all_left_out_are_no_nan():
    student = net()
    loss = Distiller(student, net(seed=1)).loss(student(X), torch.full((16,), -100))
    assert loss.isfinite()


def test_accumulated_batches_of_unequal_size_are_one_batch():
    labels = torch.randint(3, (16,), generator=torch.Generator().manual_seed(2))
    student, teacher = net().eval(), net(seed=1)
    distiller = Distiller(student, teacher)
    whole = distiller.loss(student(X), labels)
    parts = [
        distiller.loss(student(X[rows]), labels[rows], num_items_in_batch=16)
        for rows in (slice(0, 5), slice(5, 16))
    ]
    torch.testing.assert_close(parts[0] + parts[1], whole)


# --- what does not fit ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temperature": 0}, "temperature is 0"),
        ({"compare": "kld"}, "Did you mean 'kl'"),
        ({"weights": {"logit": 1}}, "Did you mean 'logits'"),
        ({"weights": {"logits": -1}}, "weight of 'logits' is -1"),
        ({"hidden": ["O"]}, "the student has no such layer"),
        ({"hidden": {"0": "9"}}, "the teacher has no such layer"),
    ],
)
def test_arguments_that_mean_nothing(options, said):
    student = net()
    with pytest.raises(ConfigError, match=said):
        Distiller(student, net(seed=1), **options)
    assert not student._forward_hooks
    assert not student._forward_pre_hooks


def test_a_teacher_that_would_be_trained_too_is_refused():
    student = net()
    for teacher in (student, nn.Sequential(student[0], nn.Linear(8, 3))):
        with pytest.raises(ConfigError, match=r"share a parameter, '0\.weight'"):
            Distiller(student, teacher)


def test_a_student_has_to_be_called_first():
    student = net()
    distiller = Distiller(student, net(seed=1))
    outputs = student(X)
    distiller.loss(outputs)
    with pytest.raises(ConfigError, match="has not been called since the last loss"):
        distiller.loss(outputs)


def test_nothing_to_learn_from():
    student = net()
    with pytest.raises(ConfigError, match="nothing to learn from"):
        Distiller(student, None).loss(student(X))


def test_answers_to_different_questions():
    student, teacher = net(), nn.Linear(4, 5)
    with pytest.raises(ConfigError, match=r"\(16, 3\), the teacher's \(16, 5\)"):
        Distiller(student, teacher).loss(student(X))


# --- leaving no trace -------------------------------------------------------------------------


def test_a_copy_of_the_student_is_nobody_s_student():
    student = net()
    distiller = Distiller(student, net(seed=1))
    other = pickle.loads(pickle.dumps(student))
    other(X)
    with pytest.raises(ConfigError, match="has not been called"):
        distiller.loss(other(X))


def test_it_can_be_closed():
    student, teacher = net(), net(seed=1)
    with Distiller(student, teacher, hidden=["0"]):
        assert student._forward_hooks
    for model in (student, teacher):
        assert not any(module._forward_hooks for module in model.modules())
        assert not model._forward_pre_hooks
