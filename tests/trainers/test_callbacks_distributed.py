"""The callback of transformers in two processes: both prune alike, and go on with one model."""

import os
import socket
import subprocess
import sys

import pytest
import torch
import torch.distributed

STEPS = 4


def train(rank, folder, port):
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "HF_HUB_OFFLINE": "1",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    from test_callbacks import EXAMPLE, Classifier, examples
    from transformers import Trainer, TrainingArguments

    from prune_schedule import AGPPruner
    from prune_trainers.hf import PruneCallback

    model = Classifier()
    rules = [{"final_sparsity": 0.5, "end_step": STEPS, "op_names": ["net.0"]}]
    pruner = AGPPruner(model, rules, pruning_algorithm="l1")
    callback = PruneCallback(pruner, example_inputs=EXAMPLE, shrink_at_end=True)
    arguments = TrainingArguments(
        folder, per_device_train_batch_size=2, gradient_accumulation_steps=2, max_steps=STEPS,
        save_steps=2, report_to=[], use_cpu=True, disable_tqdm=True, ddp_backend="gloo",
        learning_rate=0.05,
    )  # fmt: skip
    Trainer(model, arguments, train_dataset=examples(64), callbacks=[callback]).train()
    assert torch.distributed.get_world_size() == 2
    torch.save(
        {"steps": pruner.steps, "model": model.state_dict(),
         "difference": callback.report.difference},
        f"{folder}/{rank}.pt",
    )  # fmt: skip
    torch.distributed.destroy_process_group()


def test_two_processes_prune_alike(tmp_path):
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = [
        subprocess.Popen([sys.executable, __file__, str(rank), str(tmp_path), str(port)])
        for rank in (0, 1)
    ]
    assert [each.wait() for each in running] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert first["steps"] == second["steps"] == STEPS
    assert first["model"]["net.0.weight"].shape == (8, 8)
    assert first["difference"] < 1e-5
    for name, value in first["model"].items():
        torch.testing.assert_close(second["model"][name], value)
    assert (tmp_path / "checkpoint-2/pruning.pt").is_file()


if __name__ == "__main__":
    train(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
