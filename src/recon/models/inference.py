"""Networks made ready: folded for inference, compiled for training."""

from copy import deepcopy
from typing import Any, TypeVar

import torch
from torch import nn

from recon.layers.patch_embed import FoldedPatchEmbed, PatchEmbed

Network = TypeVar("Network", bound=nn.Module)
COMPILED_PARTS = ("encoder", "generative", "contrastive", "decoder", "propagate", "point_head")
"""Parts of networks in which the time goes, and which compile as a whole."""


def fold_batch_norms(network: Network, dtype: torch.dtype | None = None) -> Network:
    """Return a copy for inference whose patch embeddings have their batch norms folded.

    The same numbers up to rounding; see `FoldedPatchEmbed`. `dtype` is that of the linear layers'
    weights, for autocast to the same: it need not cast them at every call then.
    """
    copy = deepcopy(network).eval()
    for parent in [*copy.modules()]:
        for name, child in parent.named_children():
            if isinstance(child, PatchEmbed):
                setattr(parent, name, FoldedPatchEmbed(child))
    for module in copy.modules():
        if dtype is not None and isinstance(module, nn.Linear):
            module.to(dtype)
    return copy


def compile_parts(network: nn.Module, backend: Any = "inductor") -> None:
    """Compile the parts of a network in place by torch.compile, without graph breaks.

    Names of weights stay the same. Sampling and neighbours stay outside: on a CPU they are
    compiled already.
    """
    for name, part in network.named_children():
        if name in COMPILED_PARTS:
            part.compile(fullgraph=True, dynamic=False, backend=backend)
