"""Attention as matmul, softmax, matmul: on CPUs in bf16 the backward of the fused kernel is slower.

Measured with MiniLM on short sentences: `scaled_dot_product_attention` took half the training step in
bf16 on an AVX512-BF16 machine; in fp32 the fused kernel is as fast or faster. So `best_attention`
chooses by device and precision; the numbers are the same up to rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "foretune_matmul"


def matmul_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """softmax(Q K^T / sqrt(d) + mask) V (Vaswani et al. 2017, section 3.2.1).

    query, key, value: (batch, heads, tokens, d). Returns (batch, tokens, heads, d) and the weights.
    """
    groups = query.shape[1] // key.shape[1]  # grouped-query attention shares keys among heads
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = torch.matmul(query * scale, key.transpose(2, 3))
    if attention_mask is not None:
        scores = scores + attention_mask[..., : key.shape[-2]]
    weights = torch.softmax(scores, dim=-1).to(value.dtype)
    if dropout and module.training:
        weights = nn.functional.dropout(weights, p=dropout)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


def register() -> None:
    """Make the function known to transformers under NAME, with the additive mask it needs."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, eager_mask

    AttentionInterface.register(NAME, matmul_attention)
    AttentionMaskInterface.register(NAME, eager_mask)


def use_best_attention(model: PreTrainedModel, device: str, precision: str) -> str:
    """Switch `model` to the fastest attention for device and precision; return its name.

    Models that do not take attention functions (RoFormer, for one) keep their own.
    """
    wanted = NAME if device == "cpu" and precision == "bf16" else "sdpa"
    supported = getattr(model, "_supports_sdpa", False) and getattr(
        model, "_supports_attention_backend", False
    )
    if not supported:
        return str(getattr(getattr(model, "config", None), "_attn_implementation", "own"))
    register()
    try:
        model.set_attn_implementation(wanted)
    except ValueError:  # a part of the model, such as a detector's convolutional backbone, takes none
        return str(getattr(model.config, "_attn_implementation", "own"))
    return wanted
