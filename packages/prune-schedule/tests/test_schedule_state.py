"""A run that stops goes on where it was, and what it kept is safe to read."""

import itertools
import json
import pickle

import pytest
import torch
from torch import nn

from prune_core import ConfigError, PruneError
from prune_schedule import AGPPruner, LinearPruner

ROUNDS = [{"sparsity": 0.8, "op_types": ["Linear"]}]
EPOCHS = [{"sparsity": 0.8, "end_epoch": 5, "op_types": ["Linear"]}]


def equal(first, second):
    return all(
        torch.equal(mask, second[name][tensor])
        for name, tensors in first.items()
        for tensor, mask in tensors.items()
    )


def noise(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 30)


class StopsError(Exception):
    pass


def stopping_after(calls):
    left = iter(range(calls))

    def finetune(model):
        if next(left, None) is None:
            raise StopsError
        noise(model)

    return finetune


def test_a_state_goes_into_a_file_and_into_another_pruner(make_tape, tmp_path):
    pruner = AGPPruner(make_tape(), EPOCHS, pruning_algorithm="smallest")
    pruner.compress()
    pruner.update_epoch(2)
    torch.save(pruner.state_dict(), tmp_path / "state.pt")
    other = AGPPruner(make_tape(), EPOCHS, pruning_algorithm="smallest")
    noise(other.bound_model)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert other.epoch == 2
    assert equal(other.masks, pruner.masks)
    other.update_epoch(2)  # has happened already, so nothing is pruned by the noise
    assert equal(other.masks, pruner.masks)
    other.update_epoch(3)
    assert not (other.masks["fc"]["weight"] & ~pruner.masks["fc"]["weight"]).any()


def test_something_else_is_no_state(tape):
    pruner = AGPPruner(tape, EPOCHS, pruning_algorithm="smallest")
    with pytest.raises(ConfigError, match="The state has no 'done'"):
        pruner.load_state_dict({"masks": {}})


@pytest.mark.parametrize("rounds_before", [0, 1, 2, 5])
def test_rounds_go_on_where_they_were(rounds_before, make_tape, tmp_path):
    def start(**more):
        torch.manual_seed(0)
        return AGPPruner(make_tape(), ROUNDS, "smallest", 5, **more)

    whole = start().run(finetune=noise)
    checkpoint = tmp_path / "run.pt"
    with pytest.raises(StopsError):
        start(checkpoint=checkpoint).run(finetune=stopping_after(rounds_before))
    torch.manual_seed(99)  # whatever the next process draws first
    calls = []
    torch.manual_seed(0)  # round 0 begins with the seed of the program

    def finetune(model):
        calls.append(1)
        noise(model)

    result = start(checkpoint=checkpoint).run(finetune=finetune)
    assert len(calls) == 6 - rounds_before
    assert equal(result.masks, whole.masks)
    assert torch.equal(result.model.fc.module.weight, whole.model.fc.module.weight)
    assert [t["sparsities"] for t in result.trials] == [t["sparsities"] for t in whole.trials]


def test_a_finished_run_is_not_run_again(make_tape, tmp_path):
    def start():
        return LinearPruner(make_tape(), ROUNDS, "smallest", 2, checkpoint=tmp_path / "run.pt")

    first = start().run(finetune=noise, evaluate=lambda model: 0.5)
    again = start().run(finetune=stopping_after(0))
    assert equal(first.masks, again.masks)
    assert again.score == 0.5
    assert again.complete


def test_everything_with_state_goes_on(make_tape, tmp_path):
    def start():
        model = make_tape()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        decay = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)

        def finetune(model):
            model(torch.ones(1, 25)).sum().backward()
            optimizer.step()
            decay.step()

        pruner = LinearPruner(
            model,
            ROUNDS,
            "smallest",
            3,
            optimizer=optimizer,
            stateful={"decay": decay},
            checkpoint=tmp_path / "run.pt",
        )
        return pruner, optimizer, finetune

    pruner, _, finetune = start()
    with pytest.raises(StopsError):
        pruner.run(finetune=lambda m: finetune(m) if pruner.trials[:1] == [] else stop())
    pruner, optimizer, finetune = start()
    pruner.run(finetune=finetune)
    assert optimizer.param_groups[0]["lr"] == 0.1 * 0.5**4
    assert len(optimizer.state) == 1


def stop():
    raise StopsError


def test_epochs_go_on_where_they_were(tmp_path):
    def train(stop_at, checkpoint):
        starts_again = checkpoint.exists()
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(25, 10), nn.Dropout(0.3), nn.Linear(10, 3))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        pruner = AGPPruner(
            model, EPOCHS, optimizer, pruning_algorithm="smallest", checkpoint=checkpoint
        )
        pruner.compress()
        if starts_again:
            torch.randn(3)  # what such a program draws first is nothing that it drew before
        for epoch in range(pruner.epoch, 7):
            pruner.update_epoch(epoch)
            for batch in range(2):
                if (epoch, batch) == stop_at:
                    return None
                optimizer.zero_grad()
                model(torch.randn(8, 25)).square().sum().backward()
                optimizer.step()
        return pruner.masks, [p.detach().clone() for p in model.parameters()]

    masks, weights = train(None, tmp_path / "whole.pt")
    for stop_at in ((0, 1), (1, 0), (3, 1), (6, 1)):
        assert train(stop_at, tmp_path / "run.pt") is None
    now, trained = train(None, tmp_path / "run.pt")
    assert equal(masks, now)
    assert all(torch.equal(a, b) for a, b in zip(weights, trained, strict=True))


def test_a_checkpoint_of_another_run_is_refused(make_tape, tmp_path):
    path = tmp_path / "run.pt"
    LinearPruner(make_tape(), ROUNDS, "smallest", 2, checkpoint=path).run()
    with pytest.raises(ConfigError, match="whose total_iteration is 2; here it is 3"):
        LinearPruner(make_tape(), ROUNDS, "smallest", 3, checkpoint=path).run()
    with pytest.raises(ConfigError, match="whose pruning_algorithm is 'smallest'"):
        LinearPruner(make_tape(), ROUNDS, "channels", 2, checkpoint=path).run()
    other = [{"sparsity": 0.7, "op_types": ["Linear"]}]
    with pytest.raises(ConfigError, match="whose config_list is"):
        LinearPruner(make_tape(), other, "smallest", 2, checkpoint=path).run()
    model = make_tape()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ConfigError, match="this run keeps model, optimizer, schedule"):
        LinearPruner(model, ROUNDS, "smallest", 2, optimizer=optimizer, checkpoint=path).run()


def test_a_checkpoint_of_another_model_is_refused_before_anything_is_loaded(tmp_path):
    def run(*widths):
        torch.manual_seed(len(widths))
        layers = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
        model = nn.Sequential(*layers)
        before = [p.detach().clone() for p in model.parameters()]
        pruner = LinearPruner(model, ROUNDS, "smallest", 2, checkpoint=tmp_path / "run.pt")
        try:
            pruner.run()
        finally:
            after = list(model.parameters())
            assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))

    run(10, 8, 6)
    with pytest.raises(ConfigError, match=r"another model: '1.weight' has the shape \(6, 8"):
        run(10, 8, 7)
    with pytest.raises(ConfigError, match=r"'2.weight' has the shape None there"):
        run(10, 8, 6, 4)


def runs_code(path):
    class Evil:
        def __reduce__(self):
            return print, ("this must not be printed",)

    path.write_bytes(pickle.dumps(Evil()))


def is_cut_off(path):
    path.write_bytes(path.read_bytes()[:-100])


def is_something_else(path):
    torch.save({"weights": torch.ones(1)}, path)


@pytest.mark.parametrize("damage", [runs_code, is_cut_off, is_something_else])
def test_a_file_from_a_stranger_can_only_be_wrong(damage, make_tape, tmp_path, capsys):
    path = tmp_path / "run.pt"
    LinearPruner(make_tape(), ROUNDS, "smallest", 2, checkpoint=path).run()
    damage(path)
    with pytest.raises(PruneError, match=r"checkpoint .*run.pt is .*delete the file"):
        LinearPruner(make_tape(), ROUNDS, "smallest", 2, checkpoint=path).run()
    assert capsys.readouterr().out == ""


def test_what_was_tried_is_data(make_tape, tmp_path):
    scores = iter([0.5, 0.25, 0.125])
    pruner = LinearPruner(make_tape(), ROUNDS, "smallest", 2)
    trials = pruner.run(evaluate=lambda model: next(scores)).trials
    trials.save(tmp_path / "trials.json")
    assert json.loads((tmp_path / "trials.json").read_text()) == list(trials)
    trials.save(tmp_path / "trials.csv")
    header, first, *_, last = (tmp_path / "trials.csv").read_text().splitlines()
    assert header == "trial,sparsity,score,seconds,problem,sparsities.fc"
    assert first.startswith("0,0.0,0.5,")
    assert last.startswith("2,0.8,0.125,")
    assert last.endswith(",0.8")
    with pytest.raises(ConfigError, match="ends with .json or .csv"):
        trials.save(tmp_path / "trials.xls")
