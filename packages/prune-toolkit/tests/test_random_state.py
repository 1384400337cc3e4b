"""Random numbers that come again, from wherever they are drawn."""

import random

import numpy as np
import torch

from prune_toolkit.running.random_state import put_random, seeded, take_random


def drawn(*generators):
    return (
        random.random(),
        random.gauss(),
        np.random.rand(),
        np.random.randn(),
        torch.rand(2).tolist(),
        [torch.rand(1, generator=generator).item() for generator in generators],
    )


def test_numbers_come_again(tmp_path):
    own = torch.Generator().manual_seed(3)
    drawn(own)  # a normal number has been drawn, of which the next one is the other half
    state = take_random([own])
    torch.save(state, tmp_path / "state.pt")
    first, second = drawn(own), drawn(own)
    assert first != second
    put_random(torch.load(tmp_path / "state.pt", weights_only=True), [own])
    assert (drawn(own), drawn(own)) == (first, second)


def test_a_block_draws_by_its_seed_and_changes_nothing_outside():
    state = take_random()
    expected = drawn()
    put_random(state)
    blocks = []
    for seed in (5, 5, 6):
        with seeded(seed):
            blocks.append(drawn())
    assert blocks[0] == blocks[1] != blocks[2]
    assert drawn() == expected
