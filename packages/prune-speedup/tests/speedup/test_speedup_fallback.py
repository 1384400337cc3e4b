"""Where Python refuses to become smaller, the graph of its operators does."""

import copy
import io

import pytest
import torch
from torch import nn

from prune_core import SpeedupError, save_pruned, shrink, units
from prune_speedup.torch.export_fallback import exported
from prune_speedup.torch.resize.smaller import corrections_of


class Strict(nn.Module):
    """A forward that insists on its sizes, around calls with sizes of every kind in them."""

    def __init__(self):
        super().__init__()
        self.table, self.norm = nn.Embedding(12, 8), nn.BatchNorm1d(8)
        self.first, self.second = nn.Linear(8, 24), nn.Linear(8, 8)
        self.head = nn.Linear(8, 12, bias=False)
        self.head.weight = self.table.weight
        nn.init.normal_(self.norm.bias)

    def forward(self, tokens):
        x = self.table(tokens)
        batch, length, width = x.shape
        assert width == 8, "eight wide, please"
        q, k, v = self.first(x).view(batch, length, 3, 4, 2).permute(2, 0, 3, 1, 4)
        y = ((q @ k.mT).softmax(-1) @ v).transpose(1, 2).reshape(batch, length, 8)
        y = self.norm(self.second(y).view(-1, 8)).view(batch, length, 8) + torch.zeros(8)
        return self.head(torch.cat([y[..., :4].relu(), y[..., 4:8].tanh()], -1) + x)


def tokens(batch=2):
    return torch.arange(batch * 5).reshape(batch, 5) % 12


def strict():
    torch.manual_seed(0)
    return Strict().eval()


def some(model):
    found = units(model, tokens())
    return [found.unit(label) for group in found.groups for label in group.labels[1::2]]


def masked(model, chosen):
    copied = copy.deepcopy(model)
    parameters = dict(copied.named_parameters())
    with torch.no_grad():
        for unit in chosen:
            for name, axes in unit.slices.items():
                for axis, indices in axes.items():
                    if name in parameters:
                        parameters[name].index_fill_(axis, torch.tensor(indices), 0)
    return copied


def test_the_model_keeps_what_it_insists_on_without_it():
    model = strict()
    report = shrink(model, tokens(), units=some(model))
    assert report.form == "model"
    assert model.table.embedding_dim == 8
    assert any("eight wide, please" in reason for reason in report.returned)


def test_the_graph_is_small_and_exact_and_the_model_is_as_it_was():
    model = strict()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    chosen = some(model)
    report = shrink(model, tokens(), units=chosen, fallback=True)
    assert report.form == "graph"
    assert "eight wide, please" in report.cause
    assert "a graph, not the model given" in str(report)
    assert report.parameters[1] < 0.6 * report.parameters[0]
    for batch in (1, 2, 7):
        torch.testing.assert_close(
            report.model(tokens(batch)), masked(model, chosen)(tokens(batch)), rtol=1e-4, atol=1e-5
        )
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_graph_needs_no_corrections_and_keeps_its_ties():
    model = strict()
    graph = shrink(model, tokens(), units=some(model), fallback=True).model
    assert corrections_of(graph) == ()
    assert graph.get_parameter("head.weight") is graph.get_parameter("table.weight")


def test_the_graph_trains():
    model = strict()
    graph = shrink(model, tokens(), units=some(model), fallback=True).model.train()
    optimizer = torch.optim.Adam(graph.parameters(), lr=0.02)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(graph(tokens(3)).flatten(0, 1), tokens(3).flatten())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


def test_the_graph_is_exported_saved_and_loaded_for_any_batch():
    model = strict()
    graph = shrink(model, tokens(), units=some(model), fallback=True).model.eval()
    program = torch.export.export(
        graph, (tokens(),), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    again = torch.export.load(file).module()
    torch.testing.assert_close(again(tokens(4)), graph(tokens(4)))


def test_masks_and_constants_work_as_on_a_model():
    model = strict()
    keep = (torch.arange(8) % 2).float()
    masks = {"second": {"weight": keep[:, None].expand(8, 8), "bias": keep}}
    report = shrink(model, tokens(), masks, constants="zero", fallback=True)
    assert report.form == "graph"
    assert report.moved > 0.01
    assert report.model.get_parameter("norm.weight").shape == (4,)


def test_a_graph_is_not_saved_as_what_it_is_not(tmp_path):
    model = strict()
    report = shrink(model, tokens(), units=some(model), fallback=True)
    for save in (report.save, lambda path: save_pruned(report.model, path)):
        with pytest.raises(SpeedupError, match="torch.export.save"):
            save(tmp_path / "small.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_model_that_no_graph_is_made_of():
    class Untraceable(Strict):
        def forward(self, tokens):
            found = super().forward(tokens)
            return found * 2 if found.sum() > 0 else found

    model = Untraceable().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(SpeedupError, match="torch.export makes no graph of it: Guard"):
        exported(model, tokens())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    report = shrink(model, tokens(), units=some(model), fallback=True)
    assert report.form == "model"
    assert report.returned
    assert model.table.embedding_dim == 8
    assert model.first.out_features == 12


def test_a_model_that_follows_stays_a_model():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    found = units(model, torch.ones(2, 3))
    report = shrink(model, torch.ones(2, 3), units=[next(iter(found))], fallback=True)
    assert report.form == "model"
    assert report.model is model
