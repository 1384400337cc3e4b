"""A killed run goes on, and ends with the bits of one that was never killed."""

import multiprocessing
import pickle
import random
import runpy
import shutil
import time
from pathlib import Path

import pytest
import torch

from prune_lottery import CheckpointError, LotteryTicket, run_control
from prune_lottery.checkpoint import read_checkpoint, write_checkpoint

SCRIPT = Path(__file__).with_name("interrupted_run.py")

# A server that has torch already forks the processes: they start at once.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["torch", "torch._dynamo", "numpy", "prune_lottery.control"])


def start(checkpoint, result):
    files = {"FILES": (str(checkpoint), str(result))}
    process = processes.Process(target=runpy.run_path, args=(str(SCRIPT), files, "__main__"))
    process.start()
    return process


def leaves(state, path=()):
    if isinstance(state, dict):
        return {p: v for k, s in state.items() for p, v in leaves(s, (*path, k)).items()}
    if isinstance(state, list | tuple):
        return {p: v for k, s in enumerate(state) for p, v in leaves(s, (*path, k)).items()}
    return {path: state}


def assert_equal(one, other):
    one, other = leaves(one), leaves(other)
    assert one.keys() == other.keys()
    for path, value in one.items():
        if isinstance(value, torch.Tensor):
            same = torch.equal(
                value.contiguous().view(-1).view(torch.uint8),
                other[path].contiguous().view(-1).view(torch.uint8),
            )
            assert same, path
        else:
            assert value == other[path], path


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    process = start(folder / "checkpoint.pt", folder / "result.pt")
    process.join()
    assert process.exitcode == 0
    return torch.load(folder / "result.pt", weights_only=True)


def test_a_run_killed_again_and_again_ends_with_the_same_bits(uninterrupted, tmp_path):
    checkpoint, result = tmp_path / "checkpoint.pt", tmp_path / "result.pt"
    moments, kills = random.Random(0), 0
    while not result.exists():
        known = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        process = start(checkpoint, result)
        if kills < 6:
            # Let it get one round further, and then some way into the next.
            while process.is_alive() and not (
                checkpoint.exists() and checkpoint.stat().st_mtime_ns != known
            ):
                time.sleep(0.001)
            process.join(moments.uniform(0.0, 0.05))
        else:
            process.join()
        if process.is_alive():
            process.kill()
            process.join()
            kills += 1
        read_checkpoint(checkpoint)  # whole at any time
    assert kills >= 3
    assert_equal(torch.load(result, weights_only=True), uninterrupted)


def test_it_can_be_killed_while_it_writes(uninterrupted, tmp_path):
    checkpoint, result = tmp_path / "checkpoint.pt", tmp_path / "result.pt"
    kills = 0
    for _ in range(6):
        known = set(tmp_path.iterdir())
        process = start(checkpoint, result)
        # A temporary file that was not there before means that writing has begun.
        while process.is_alive():
            if any(p.name.startswith(".checkpoint") for p in set(tmp_path.iterdir()) - known):
                process.kill()
                kills += 1
                break
        process.join()
        if checkpoint.exists():
            read_checkpoint(checkpoint)
    process = start(checkpoint, result)
    process.join()
    assert kills
    assert process.exitcode == 0
    assert_equal(torch.load(result, weights_only=True), uninterrupted)


def make(net, config, checkpoint, **settings):
    settings = {"rounds": 2, "pruning_algorithm": "tiny_level", **settings}
    return LotteryTicket(net, config, checkpoint=checkpoint, **settings)


def test_a_finished_run_is_not_trained_again(net, config, trainer, tmp_path):
    path = tmp_path / "checkpoint.pt"
    lottery = make(net, config, path)
    result = lottery.run(train=trainer())
    lottery.unwrap()
    torch.manual_seed(99)
    again = type(net)()
    found = make(again, config, path).run(train=lambda model: pytest.fail("trained again"))
    assert found.rounds == result.rounds
    assert torch.equal(again.first.module.weight, net.first.weight)


def test_a_control_does_not_depend_on_where_a_run_was_interrupted(net, config, trainer, tmp_path):
    # Dropout draws from a random state that rewind_random=False leaves as it is.
    def fingerprint(model):
        return model.second.module.weight.detach().double().sum().item()

    def go_on(path, rounds):
        torch.manual_seed(99)
        lottery = make(type(net)(), config, path, rewind_random=False)
        lottery.run(train=trainer())
        records = run_control(
            lottery, "reinit", train=trainer(), evaluate=fingerprint, rounds=rounds
        )
        return {record.index: record.score for record in records}

    whole, parts = tmp_path / "whole.pt", tmp_path / "parts.pt"
    go_on(whole, [])
    shutil.copy(whole, parts)
    at_once = go_on(whole, [1, 2])
    go_on(parts, [1])
    assert go_on(parts, [1, 2]) == at_once


def test_a_checkpoint_of_other_settings_is_refused(net, config, trainer, tmp_path):
    path = tmp_path / "checkpoint.pt"
    lottery = make(net, config, path)
    lottery.run(train=trainer())
    lottery.unwrap()
    with pytest.raises(CheckpointError, match="made with rounds=2, and this lottery has rounds=3"):
        make(net, config, path, rounds=3).run(train=trainer())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"nonsense", "is damaged or not a checkpoint.* Remove it to start over"),
        (pickle.dumps({"kind": print}), "is damaged or not a checkpoint"),
    ],
)
def test_damaged_checkpoints_are_refused(net, config, trainer, tmp_path, content, message):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        make(net, config, path).run(train=trainer())


def test_another_file_is_refused(tmp_path):
    torch.save({"weight": torch.ones(1)}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="is not a checkpoint of a lottery"):
        read_checkpoint(tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="No such file"):
        read_checkpoint(tmp_path / "nothing.pt")


def test_what_could_not_be_read_back_is_refused_when_it_is_written(net, config, tmp_path):
    lottery = make(net, config, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="holds more than tensors and plain data"):
        lottery.run(train=lambda model: Path("somewhere"))
    assert not lottery.records or lottery.records[0].index == 0


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "checkpoint.pt"
    write_checkpoint(path, {"a": 1}, check=True)
    with pytest.raises(CheckpointError):
        write_checkpoint(path, {"a": Path()}, check=True)
    assert read_checkpoint(path)["a"] == 1
