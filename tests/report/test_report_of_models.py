"""Reports of what the engines really did."""

import dataclasses
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import prune_core
import prune_report
from prune_report import Document, ReportError, from_shrink

X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def cnn():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 3),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    ).eval()  # fmt: skip


def shrunk(**options):
    model, masks = prune_core.prune(cnn(), "l1", sparsity=0.5, example_inputs=X, targets="Conv2d")
    return prune_core.shrink(prune_core.unwrap(model), X, masks, **options)


def test_a_model_of_torch():
    report = shrunk(measure=True)
    document = from_shrink(report, quality={"accuracy": {"dense": 0.9, "small": torch.tensor(0.8)}})
    assert document.title == document.model == "Sequential"
    assert (document.parameters.before, document.parameters.after) == report.parameters
    assert document.proof.difference == report.difference
    assert document.proof.cases == tuple(report.verified)
    assert document.latency.before.runs == 9
    assert document.quality[0].small == pytest.approx(0.8)
    first = document.layers[0]
    assert (first.outputs.before, first.outputs.after) == (16, 8)
    kept = set(range(16)) - set(first.removed)
    assert kept == set(report.slices["0.weight"][0].tolist())
    assert Document.from_json(document.to_json()) == document
    assert document.versions["torch"] == torch.__version__


def test_what_stayed_says_what_to_do():
    mask = torch.ones(16, 3, 3, 3)
    mask[:8] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = prune_core.shrink(
            nn.Sequential(nn.Conv2d(3, 16, 3), nn.LayerNorm(14), nn.Conv2d(16, 2, 3)),
            X, {"0": {"weight": mask}},
        )  # fmt: skip
    document = from_shrink(report)
    assert document.stayed
    assert sum(each.channels for each in document.stayed) == document.asked == 8
    assert all(each.advice and each.layers for each in document.stayed)
    assert any("Nothing became smaller" in note for note in document.notes)


def test_what_was_not_compared_is_not_called_compared():
    document = from_shrink(shrunk(verify=False))
    assert document.proof is None
    html = prune_report.page(document)
    assert "Not compared." in html
    assert "Compared:" not in html


def test_two_steps_are_one_report():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 8)

        def forward(self, x):
            return x + self.b(self.a(x).relu())

    torch.manual_seed(0)
    model, x = nn.Sequential(*(Block() for _ in range(3))).eval(), torch.randn(2, 8)
    blocks = prune_core.remove_blocks(model, x, ["1"])
    model, masks = prune_core.prune(model, "l1", sparsity=0.5, example_inputs=x)
    report = prune_core.shrink(prune_core.unwrap(model), x, masks)
    document = from_shrink(blocks, report)
    assert document.parameters.before == blocks.parameters[0]
    assert document.parameters.after == report.parameters[1]
    assert [each.name for each in document.blocks] == ["1"]
    assert document.proof.cases[0] == "the example"


def test_blocks_and_channels_of_one_budget_are_one_report():
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(8, 32), nn.Linear(32, 8)

        def forward(self, x):
            return x + self.fc2(self.fc1(x).relu())

    x = torch.randn(4, 8)
    model = nn.Sequential(*(Layer() for _ in range(3)), nn.Linear(8, 2))
    _, report = prune_core.prune(
        model, "depth_and_width", target={"flops": 0.5}, counts=[1], width="l1",
        targets="Linear", example_inputs=x, data=[x],
    )  # fmt: skip
    document = from_shrink(report)
    assert [block.name for block in document.blocks] == [each.name for each in report.removed]
    assert (document.parameters.before, document.parameters.after) == report.parameters
    assert (document.flops.before, document.flops.after) == report.flops
    assert len(document.blocks) == 1
    assert any(layer.outputs.before > layer.outputs.after for layer in document.layers)
    assert "blocks" in document.seconds
    assert Document.from_json(document.to_json()) == document


def test_a_notebook_shows_the_report():
    html = shrunk()._repr_html_()
    assert "pr-notebook" in html
    assert "Compared:" in html


def test_what_is_no_report_is_refused():
    with pytest.raises(ReportError, match="is no report"):
        from_shrink({"parameters": 3})
    with pytest.raises(ReportError, match="Did you mean 'small'"):
        from_shrink(shrunk(), quality={"accuracy": {"smal": 0.9}})
    with pytest.raises(ReportError, match="must be a number"):
        from_shrink(shrunk(), quality={"accuracy": {"small": "high"}})
    with pytest.raises(ReportError, match="schedule has the entry"):
        from_shrink(shrunk(), schedule=[{"epoch": 3}])


def test_searches_and_schedules():
    document = from_shrink(
        shrunk(),
        trials=[{"trial": 0, "score": 0.9, "sparsities": {"a": 0.5}}, {"trial": 1, "score": None}],
        curves=[
            {"round": 1, "layer": "a", "sparsity": s, "score": 1 - s} for s in (0.5, 0.0, 0.25)
        ],
        schedule=[{"step": 10, "sparsity": 0.5, "loss": 0.1}],
        metric="accuracy",
    )
    assert [each.state for each in document.trials] == ["complete", "failed"]
    assert document.sensitivity[0].points == ((0.0, 1.0), (0.25, 0.75), (0.5, 0.5))
    assert document.schedule[0].metrics == {"loss": 0.1}
    assert "Sensitivity" in prune_report.page(document)
    assert "Made with" not in prune_report.page(dataclasses.replace(Document("x")))


def test_the_best_trial_is_what_the_search_calls_best():
    trials = [{"trial": at, "score": score} for at, score in enumerate((0.9, 0.2, 0.4))]
    search = SimpleNamespace(trials=trials, optimize_mode="minimize")
    for given in ({"trials": search}, {"trials": trials, "optimize_mode": "minimize"}):
        html = prune_report.page(from_shrink(shrunk(), **given))
        assert "the best score, the lowest, is 0.2, of trial 1" in html
    html = prune_report.page(from_shrink(shrunk(), trials=trials))
    assert "the best score, the highest, is 0.9, of trial 0" in html
    with pytest.raises(ReportError, match="must be 'maximize' or 'minimize'"):
        from_shrink(shrunk(), trials=trials, optimize_mode="max")


def test_a_model_of_keras():
    keras = pytest.importorskip("keras")
    prune_tf = pytest.importorskip("prune_tf")
    model = keras.Sequential(
        [keras.Input((16,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(4)]
    )
    pruned, masks = prune_tf.L1NormPruner(
        model, [{"sparsity": 0.5, "op_names": [model.layers[0].name]}]
    ).compress()
    x = keras.ops.ones((2, 16))
    report = prune_tf.shrink(pruned, x, masks)
    document = from_shrink(report)
    assert document.framework == "keras"
    assert document.parameters.left < 1
    assert [each.outputs.after for each in document.layers] == [4, 4]
    assert document.layers[1].inputs.before == 8
    assert "pr-notebook" in report._repr_html_()
