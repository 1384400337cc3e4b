"""Factors, inverses and functions of matrices: of the last two axes nothing can go.

Axes before them count matrices. `h` of shape (batch, 8 channels, 3, 3) keeps its eight labels in
`inv(h)`, and its rows and columns stay.
"""

from collections.abc import Sequence

from prune_speedup.engine.flow import Flow
from prune_speedup.engine.graph import Call
from prune_speedup.engine.values import Group, Value, at_first, expanded
from prune_speedup.torch.rules.registry import rule

__all__: list[str] = []


@rule("aten.linalg_inv_ex", "aten._linalg_det", "aten._linalg_slogdet", "aten.linalg_matrix_exp")
@rule("aten.linalg_cholesky_ex", "aten.linalg_lu_factor_ex", "aten.linalg_qr")
@rule("aten._linalg_eigh", "aten._linalg_svd", "aten.linalg_pinv")
def matrices(flow: Flow, call: Call) -> Sequence[Value | None]:
    """Something is made of each matrix; what is made of one of zeros is not zero."""
    value = flow.get(call.args[0])
    matrix = {value.ndim - 2, value.ndim - 1}
    flow.pin_all(value, sorted(matrix), f"{call.name} takes it for rows or columns")
    results: list[Value | None] = []
    for number, index in enumerate(call.outputs):
        shape = flow.result_shape(call, number)
        groups = []
        for group in value.groups:
            codes = at_first(group.only(set(group.axes) - matrix).codes, matrix)
            made = codes.reshape(codes.shape[:-2] + (1,) * (len(shape) - value.ndim + 2))
            groups.append(Group(expanded(made, shape)))
        kept = tuple(group for group in groups if group.axes)
        made_of = Value(shape, kept, value.free - matrix)
        results.append(None if index is None else made_of.never_zero())
    return results


@rule("aten._linalg_check_errors")
def checked(flow: Flow, call: Call) -> Sequence[Value | None]:
    """An error where a matrix had no inverse or factor; otherwise nothing is made."""
    return [None for _ in call.outputs]
