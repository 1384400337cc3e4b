"""The engine behind prune: what can be removed from a model, and how to remove it.

`engine` reasons about channels and needs numpy alone. `torch` records a torch model, removes
channels from it and compares the result with the original.
"""

from prune_speedup.__about__ import __version__

__all__ = ["__version__"]
