import os
import warnings

import pytest

# Before a library is imported: none asks its hub or tells how it is getting on.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


@pytest.fixture(autouse=True)
def quiet():
    """Let these libraries warn of each other; what counts here is what the schedule does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
