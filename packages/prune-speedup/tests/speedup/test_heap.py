"""What is freed within the heap goes back to the system."""

from pathlib import Path

import pytest
import torch

from prune_speedup.torch import heap

LARGE, MIB = 1 << 30, 1 << 20


def own_memory():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


@pytest.mark.skipif(heap._trimmer() is None, reason="only glibc keeps freed memory until told")
def test_what_lies_idle_between_things_in_use_goes_back_where_the_model_is_large():
    pieces = [torch.ones(16_000) for _ in range(2000)]  # 64 kB each
    kept = pieces[::10]
    del pieces
    before = own_memory()
    heap.give_back(LARGE - 1)
    assert before - own_memory() < 20 * MIB
    heap.give_back(LARGE)
    assert before - own_memory() > 60 * MIB
    assert all(bool((each == 1).all()) for each in kept)


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(heap, "_trimmer", lambda: None)
    heap.give_back(LARGE)
