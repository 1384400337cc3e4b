"""`nn.MultiheadAttention` whose heads need not add up to the width around it.

torch's own forward insists on `num_heads * head_dim == embed_dim`, so a layer that lost half of
its heads could not keep its residual width, or the other way round. This is the same layer, the
same parameters under the same names and the same arithmetic, without that wish.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["PrunedMultiheadAttention", "can_be_pruned"]


def can_be_pruned(module: nn.Module) -> bool:
    """Whether this is an attention that `PrunedMultiheadAttention` speaks for."""
    return (
        type(module) is nn.MultiheadAttention and module.bias_k is None and not module.add_zero_attn
    )


class PrunedMultiheadAttention(nn.MultiheadAttention):
    """Made from an `nn.MultiheadAttention` by changing its class; never built directly."""

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend, with the arguments and results of `nn.MultiheadAttention`."""
        batched = query.dim() == 3
        # In torch's order, so that a recording of its forward is met call by call.
        key_padding_mask = _additive(key_padding_mask, query.dtype)
        attn_mask = _additive(attn_mask, query.dtype)
        if self.batch_first and batched:
            same_key, same_value = key is query, value is key
            query = query.transpose(1, 0)
            key = query if same_key else key.transpose(1, 0)
            value = key if same_value else value.transpose(1, 0)
        if not batched:
            same_key, same_value = key is query, value is key
            query = query.unsqueeze(1)
            key = query if same_key else key.unsqueeze(1)
            value = key if same_value else value.unsqueeze(1)
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        if is_causal and attn_mask is None:
            raise RuntimeError("is_causal needs an attn_mask, as in nn.MultiheadAttention.")
        if is_causal and key_padding_mask is None and not need_weights:
            attn_mask = None
        else:
            is_causal = is_causal and key_padding_mask is None
        attended, weights = self._attend(
            query,
            key,
            value,
            key_padding_mask,
            attn_mask,
            is_causal=is_causal,
            need_weights=need_weights,
        )
        if weights is not None and average_attn_weights:
            weights = weights.mean(dim=1)
        if not batched:
            attended = attended.squeeze(1)
            weights = None if weights is None else weights.squeeze(0)
        if self.batch_first and batched:
            attended = attended.transpose(1, 0)
        return attended, weights

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        padding: Tensor | None,
        mask: Tensor | None,
        *,
        is_causal: bool,
        need_weights: bool,
    ) -> tuple[Tensor, Tensor | None]:
        target, batch, _ = query.shape
        q, k, v = self._project(query, key, value)
        if mask is not None and mask.dim() == 2:
            mask = mask.unsqueeze(0)
        # An only head may be narrower than it was; what it is scaled by is what it was.
        heads, width = self.num_heads, q.shape[-1] // self.num_heads
        q = q.view(target, batch * heads, width).transpose(0, 1)
        k = k.view(k.shape[0], batch * heads, width).transpose(0, 1)
        v = v.view(v.shape[0], batch * heads, width).transpose(0, 1)
        source = k.size(1)
        if padding is not None:
            padding = padding.view(batch, 1, 1, source).expand(-1, heads, -1, -1)
            padding = padding.reshape(batch * heads, 1, source)
            mask = padding if mask is None else mask + padding
        drop = self.dropout if self.training else 0.0
        if need_weights:
            scaled = q * math.sqrt(1.0 / float(self.head_dim))
            if mask is not None:
                weights = torch.baddbmm(mask, scaled, k.transpose(-2, -1))
            else:
                weights = torch.bmm(scaled, k.transpose(-2, -1))
            weights = F.dropout(weights.softmax(-1), drop) if drop else weights.softmax(-1)
            attended = torch.bmm(weights, v).transpose(0, 1)
            attended = self._project_out(attended.reshape(target * batch, heads * width))
            attended = attended.view(target, batch, attended.size(1))
            return attended, weights.view(batch, heads, target, source)
        if mask is not None:
            one = mask.size(0) == 1
            mask = mask.unsqueeze(0) if one else mask.view(batch, heads, -1, source)
        q = q.view(batch, heads, target, width)
        k = k.view(batch, heads, source, width)
        v = v.view(batch, heads, source, width)
        scale = None if width == self.head_dim else self.head_dim**-0.5
        attended = F.scaled_dot_product_attention(q, k, v, mask, drop, is_causal, scale=scale)
        attended = attended.permute(2, 0, 1, 3).reshape(batch * target, heads * width)
        attended = self._project_out(attended)
        return attended.view(target, batch, attended.size(1)), None

    def _project_out(self, attended: Tensor) -> Tensor:
        return F.linear(attended, self.out_proj.weight, self.out_proj.bias)

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Any, Any, Any]:
        weight, bias = self.in_proj_weight, self.in_proj_bias
        inner = 0 if weight is None else weight.shape[0] // 3
        if weight is not None and key is value and query is key:
            packed: Any = F.linear(query, weight, bias)
            packed = packed.unflatten(-1, (3, inner)).unsqueeze(0).transpose(0, -2)
            packed = packed.squeeze(-2).contiguous()
            return packed[0], packed[1], packed[2]
        if weight is not None and key is value:
            any_weight: Any = weight
            any_bias: Any = bias
            w_q, w_kv = any_weight.split([inner, inner * 2])
            b_q, b_kv = (None, None) if bias is None else any_bias.split([inner, inner * 2])
            q, packed = F.linear(query, w_q, b_q), F.linear(key, w_kv, b_kv)
            packed = packed.unflatten(-1, (2, inner)).unsqueeze(0).transpose(0, -2)
            packed = packed.squeeze(-2).contiguous()
            return q, packed[0], packed[1]
        weights = (
            (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
            if weight is None
            else weight.chunk(3)
        )
        biases = (None, None, None) if bias is None else bias.chunk(3)
        return (
            F.linear(query, weights[0], biases[0]),
            F.linear(key, weights[1], biases[1]),
            F.linear(value, weights[2], biases[2]),
        )


def _additive(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    if mask is None or mask.is_floating_point():
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, float("-inf"))
