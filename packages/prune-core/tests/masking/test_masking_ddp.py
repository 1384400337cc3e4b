"""Two processes that train one wrapped model, each on its half of the batch."""

import os
import subprocess
import sys

import torch

SCRIPT = """
import os, sys
import torch
import torch.distributed as dist
from torch import nn
from prune_core.masking import PrunerModuleWrapper, replace_modules

rank, size, meeting, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
x = torch.randn(8, 6)
wrapper = PrunerModuleWrapper(model[0], "0", {})
replace_modules(model, {model[0]: wrapper})
wrapper.set_masks({"weight": torch.rand(8, 6) > 0.5})
parallel = nn.parallel.DistributedDataParallel(model)
optimizer = torch.optim.SGD(parallel.parameters(), lr=0.1, momentum=0.9)
mine = x[rank * 8 // size : (rank + 1) * 8 // size]
for step in range(4):
    if step == 2:  # masks change in the middle of training, as a schedule changes them
        wrapper.set_masks({"weight": wrapper.weight_mask & (torch.arange(8) > 2)[:, None]})
    optimizer.zero_grad()
    parallel(mine).square().mean().backward()
    optimizer.step()
torch.save(model.state_dict(), f"{out}/{rank}.pt")
dist.destroy_process_group()
# While an interpreter ends, a thread of gloo may still ask for it, and then the process aborts.
sys.stdout.flush()
os._exit(0)
"""


def train(size, folder):
    folder.mkdir()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(rank), str(size), str(folder / "meet"), str(folder)],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(size)]


def test_ranks_agree_with_each_other_and_with_one_process(tmp_path):
    (alone,) = train(1, tmp_path / "alone")
    first, second = train(2, tmp_path / "together")
    assert first.keys() == second.keys() == alone.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name])
        if value.dtype == torch.bool:
            assert torch.equal(value, alone[name])
        else:
            torch.testing.assert_close(value, alone[name], rtol=1e-5, atol=1e-6)
    assert 0 < first["0.weight_mask"].sum() < 30
