"""Multi-head attention as the released weights have it: no bias but on the output."""

import torch.nn.functional as F  # noqa: N812
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


def _check_heads(dim: int, heads: int) -> int:
    if heads < 1 or dim % heads:
        raise ValueError(f"width {dim} is not a multiple of the number of heads {heads}")
    return heads


class SelfAttention(nn.Module):
    """Tokens attend to each other; (B, N, dim) -> (B, N, dim)."""

    def __init__(self, dim: int, *, heads: int) -> None:
        super().__init__()
        self.heads = _check_heads(dim, heads)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        q, k, v = rearrange(
            self.qkv(tokens), "b n (three h d) -> three b h n d", three=3, h=self.heads
        )
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(rearrange(out, "b h n d -> b n (h d)"))


class CrossAttention(nn.Module):
    """Queries attend to tokens; (B, Q, dim), (B, N, dim) -> (B, Q, dim)."""

    def __init__(self, dim: int, *, heads: int) -> None:
        super().__init__()
        self.heads = _check_heads(dim, heads)
        self.q = nn.Linear(dim, dim, bias=False)
        self.kv = nn.Linear(dim, 2 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self, queries: Float[Tensor, "b q d"], tokens: Float[Tensor, "b n d"]
    ) -> Float[Tensor, "b q d"]:
        q = rearrange(self.q(queries), "b q (h d) -> b h q d", h=self.heads)
        k, v = rearrange(self.kv(tokens), "b n (two h d) -> two b h n d", two=2, h=self.heads)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(rearrange(out, "b h q d -> b q (h d)"))
