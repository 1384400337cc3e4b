"""The sizes that torch's own layers write down beside their tensors."""

from collections.abc import Callable
from typing import Any

from torch import nn

from prune_core.registry import get_extension, names
from prune_core.traversal import modules_in, named_modules
from prune_speedup.engine.plan import Plan
from prune_speedup.torch.resize.attention import PrunedMultiheadAttention, can_be_pruned

__all__ = ["resize", "sizes_written", "update_sizes", "written_down"]


def update_sizes(model: nn.Module, plan: Plan) -> None:
    """Make the recorded sizes of layers agree with their tensors and with the plan."""
    for module, name, size in written_down(model, plan):
        setattr(module, name, size)
    resize(model)


def written_down(model: nn.Module, plan: Plan) -> list[tuple[nn.Module, str, Any]]:
    """What modules have written down of what their calls are given, and what it becomes."""
    named = dict(named_modules(model))
    return [
        (module, name, new)
        for call in plan.labelling.graph.calls
        if (module := named.get(call.module)) is not None
        for name, old, new in _literals(plan, call)
        if old != new and getattr(module, name, None) == old
    ]


def resize(model: nn.Module) -> None:
    """Make the recorded sizes of layers agree with their tensors."""
    modules = modules_in(model)
    resizers = {kind: _resizer(kind) for kind in {type(module) for module in modules}}
    for module in modules:
        if (resizer := resizers[type(module)]) is not None:
            resizer(module)


def _resizer(kind: type[nn.Module]) -> Callable[[Any], None] | None:
    foreign = names("resizer")
    for base in kind.__mro__:
        path = f"{base.__module__}.{base.__qualname__}"
        if path in foreign and (found := get_extension("resizer", path)) is not None:
            resizer: Callable[[Any], None] = found
            return resizer
    return next((known for base, known in _RESIZERS if issubclass(kind, base)), None)


def _literals(plan: Plan, call: Any) -> list[tuple[str, Any, Any]]:
    """Numbers that a call was given and what they must become, by their customary name."""
    if call.name == "convolution":
        value, weight = plan.shape_of(call.args[0]), plan.shape_of(call.args[1])
        if call.args[6]:
            groups = plan.shape(call.outputs[0])[1] // weight[1]
        else:
            groups = value[1] // weight[1]
        return [("groups", call.args[8], groups)]
    if call.name == "native_group_norm":
        before = plan.labelling.graph.metas[call.args[0].index].shape[1]
        after = plan.shape_of(call.args[0])[1]
        groups = call.args[6] if call.args[6] == 1 else call.args[6] * after // before
        return [("num_groups", call.args[6], groups), ("num_channels", before, after)]
    if call.name == "view":  # what an instance norm begins with
        shape, small = (
            plan.labelling.graph.metas[call.args[0].index].shape,
            plan.shape_of(call.args[0]),
        )
        return [("num_features", shape[1], small[1])] if len(shape) > 1 else []
    if call.name == "mean" and call.site is not None and call.site.function == "rms_norm":
        shape, axes = plan.labelling.graph.metas[call.args[0].index].shape, call.argument("dim")
        small = plan.shape_of(call.args[0])
        old, new = (tuple(sizes[axis] for axis in axes) for sizes in (shape, small))
        return [("normalized_shape", old, new)]
    if call.name in ("native_layer_norm", "_fused_rms_norm"):
        old = tuple(call.args[1])
        return [("normalized_shape", old, plan.shape_of(call.args[0])[-len(old) :])]
    return []


def _linear(module: Any) -> None:
    module.out_features, module.in_features = module.weight.shape


def _bilinear(module: Any) -> None:
    module.out_features, module.in1_features, module.in2_features = module.weight.shape


def _convolution(module: Any) -> None:
    out, inside = module.weight.shape[:2]
    if module.transposed:
        module.in_channels, module.out_channels = out, inside * module.groups
    else:
        module.out_channels, module.in_channels = out, inside * module.groups


def _batch_norm(module: Any) -> None:
    tensor = module.weight if module.weight is not None else module.running_mean
    if tensor is not None:
        module.num_features = tensor.shape[0]


def _layer_norm(module: Any) -> None:
    if module.weight is not None:
        module.normalized_shape = tuple(module.weight.shape)


def _embedding(module: Any) -> None:
    module.num_embeddings, module.embedding_dim = module.weight.shape


def _prelu(module: Any) -> None:
    module.num_parameters = module.weight.shape[0]


def _recurrent(module: Any) -> None:
    gates = {"LSTM": 4, "GRU": 3}.get(module.mode, 1)
    module.hidden_size = module.weight_hh_l0.shape[0] // gates
    module.input_size = module.weight_ih_l0.shape[1]
    if module.proj_size:
        module.proj_size = module.weight_hr_l0.shape[0]


def _cell(module: Any) -> None:
    module.hidden_size, module.input_size = module.weight_hh.shape[1], module.weight_ih.shape[1]


def _attention(module: Any) -> None:
    packed = module.in_proj_weight
    inner = module.q_proj_weight.shape[0] if packed is None else packed.shape[0] // 3
    first = module.q_proj_weight if packed is None else packed
    module.embed_dim = module.out_proj.weight.shape[0]
    module.num_heads = max(inner // module.head_dim, 1)
    module.kdim = first.shape[1] if packed is not None else module.k_proj_weight.shape[1]
    module.vdim = first.shape[1] if packed is not None else module.v_proj_weight.shape[1]
    if {inner, first.shape[1]} != {module.embed_dim} and can_be_pruned(module):
        module.__class__ = PrunedMultiheadAttention
        # What keeps torch's encoder layers from a fused call that would not know these shapes.
        module._qkv_same_embed_dim = False


_RESIZERS: list[tuple[Any, Callable[[Any], None]]] = [
    (nn.Linear, _linear),
    (nn.Bilinear, _bilinear),
    (nn.modules.conv._ConvNd, _convolution),
    (nn.modules.batchnorm._NormBase, _batch_norm),
    (nn.LayerNorm, _layer_norm),
    (nn.RMSNorm, _layer_norm),
    (nn.Embedding, _embedding),
    (nn.EmbeddingBag, _embedding),
    (nn.PReLU, _prelu),
    (nn.RNNBase, _recurrent),
    (nn.modules.rnn.RNNCellBase, _cell),
    (nn.MultiheadAttention, _attention),
]

_SIZES: list[tuple[Any, frozenset[str]]] = [
    (kind, frozenset(names.split()))
    for kind, names in (
        (nn.Linear, "in_features out_features"),
        (nn.Bilinear, "in1_features in2_features out_features"),
        (nn.modules.conv._ConvNd, "in_channels out_channels groups"),
        (nn.modules.batchnorm._NormBase, "num_features"),
        (nn.GroupNorm, "num_groups num_channels"),
        (nn.LayerNorm, "normalized_shape"),
        (nn.RMSNorm, "normalized_shape"),
        (nn.Embedding, "num_embeddings embedding_dim"),
        (nn.EmbeddingBag, "num_embeddings embedding_dim"),
        (nn.PReLU, "num_parameters"),
        (nn.RNNBase, "input_size hidden_size proj_size"),
        (nn.modules.rnn.RNNCellBase, "input_size hidden_size"),
        (nn.MultiheadAttention, "embed_dim num_heads kdim vdim"),
    )
]
"""What is written above, by kind of layer: all that changes in one of torch's own."""


def sizes_written(kind: type[nn.Module]) -> frozenset[str] | None:
    """Which attributes of a layer are its sizes; None for a layer that may have any."""
    if not kind.__module__.startswith(("torch.", "prune_speedup.")):
        return None
    return next((sizes for base, sizes in _SIZES if issubclass(kind, base)), None)
