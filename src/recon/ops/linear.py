"""Linear layers over all points of a batch."""

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor


def pointwise_linear(
    x: Float[Tensor, "... i"], weight: Float[Tensor, "o i"], bias: Float[Tensor, " o"] | None = None
) -> Float[Tensor, "... o"]:
    """Apply a linear layer to many rows, the same up to rounding.

    On a CPU torch leaves float32 to MKL; oneDNN, which it has beside it, takes a tenth less time
    for matrices so large that its own copies of them do not count.
    """
    if torch.compiler.is_compiling() or not _uses_onednn(x):
        return F.linear(x, weight, bias)
    return F.linear(x.to_mkldnn(), weight.contiguous(), bias).to_dense()


def _uses_onednn(x: Tensor) -> bool:
    """Return whether float32 is multiplied on a CPU, and the build of torch has oneDNN."""
    plain = x.device.type == "cpu" and x.dtype == torch.float32
    return plain and not torch.is_autocast_enabled("cpu") and torch.backends.mkldnn.is_available()
