"""How much to prune: a fraction of the units when a float, their number when an integer."""

from numbers import Integral, Real

from prune_core.errors import ConfigError
from prune_filter.functional._errors import ArgumentTypeError


def _validate_pruning_amount_init(amount: object) -> None:
    """Check what can be said of an amount before the tensor is known.

    Args:
        amount: a float in [0, 1], or a non-negative integer.

    Raises:
        ArgumentTypeError: a TypeError, `amount` is not a real number.
        ConfigError: a ValueError, `amount` is out of its range.
    """
    if not isinstance(amount, Real):
        raise ArgumentTypeError(
            f"amount={amount!r} is a {type(amount).__name__}; it must be a float (a fraction) or "
            "an int (a number of units)."
        )
    if isinstance(amount, Integral):
        if amount < 0:
            raise ConfigError(f"amount={amount} is negative; an int counts units, from 0 up.")
    elif not 0.0 <= float(amount) <= 1.0:
        raise ConfigError(
            f"amount={amount} is a float outside [0, 1], where it is a fraction; give an int to "
            "say how many units."
        )


def _validate_pruning_amount(amount: float, tensor_size: int) -> None:
    """Check that no more units are to be pruned than there are.

    Args:
        amount: a number of units when an int; a fraction always fits.
        tensor_size: how many units there are.

    Raises:
        ConfigError: a ValueError, `amount` is an int above `tensor_size`.
    """
    if _is_count(amount) and amount > tensor_size:
        raise ConfigError(
            f"amount={amount} is more than the {tensor_size} units left to prune; ask for at most "
            f"{tensor_size}, or for a fraction."
        )


def _compute_nparams_toprune(amount: float, tensor_size: int) -> int:
    """Return how many of `tensor_size` units `amount` means, halves rounded to even.

    >>> _compute_nparams_toprune(0.5, 5), _compute_nparams_toprune(3, 5)
    (2, 3)
    """
    if _is_count(amount):
        return int(amount)
    return round(amount * tensor_size)


def _is_count(amount: object) -> bool:
    return isinstance(amount, Integral)


def _units_to_prune(amount: float, tensor_size: int) -> int:
    count = _compute_nparams_toprune(amount, tensor_size)
    _validate_pruning_amount(count, tensor_size)
    return count
