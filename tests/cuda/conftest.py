"""A GPU for the tests in here; without one they are skipped.

With PRUNE_TEST_CUDA=cpu they run on the processor instead, all that does not need a GPU: that tells
whether the tests themselves are right.
"""

import os

import pytest
import torch

DRY = os.environ.get("PRUNE_TEST_CUDA") == "cpu"


@pytest.fixture(scope="session")
def gpu():
    """The device that the tests are about."""
    if DRY:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU; PRUNE_TEST_CUDA=cpu tries these tests on the processor")
    return torch.device("cuda", 0)


@pytest.fixture(scope="session")
def real_gpu(gpu):
    """The device, for what a processor has no counterpart of."""
    if gpu.type != "cuda":
        pytest.skip("only a GPU can do this")
    return gpu
