"""How many of n things a ratio prunes."""

from math import floor, ulp

__all__ = ["DEFAULT_CAP", "number_to_prune"]

DEFAULT_CAP = 0.99
"""The most that a layer loses where layers are ranked together and a config says nothing.

A layer that loses everything cuts the network in two.
"""


def number_to_prune(sparsity: float, n: int) -> int:
    """Return `floor(sparsity · n)`, exact where the product only misses a whole number by rounding.

    >>> number_to_prune(0.29, 100)  # 0.29 * 100 is 28.999999999999996 in floating point
    29
    """
    product = sparsity * n
    nearest = round(product)
    return max(0, nearest if abs(product - nearest) <= 4 * ulp(product) else floor(product))
