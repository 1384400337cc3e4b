"""Errors of this package that scripts know by a built-in type which is not ValueError."""

from prune_core.errors import PruneError


class ArgumentTypeError(PruneError, TypeError):
    """An argument is of a type that cannot be used."""


class MissingAttributeError(PruneError, AttributeError):
    """A module or a pruning method lacks something that is asked of it."""


class MisuseError(PruneError, AssertionError):
    """Shapes differ, or steps were taken in an order that cannot work."""


class DimensionError(PruneError, IndexError):
    """A tensor has no such dimension."""


class NormError(PruneError, RuntimeError):
    """A norm cannot be taken of such a tensor."""
