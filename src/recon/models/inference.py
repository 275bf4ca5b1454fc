"""Fold batch norms for inference, and compile networks for training."""

from copy import deepcopy
from typing import Any, TypeVar

import torch
from torch import nn

from recon.layers.patch_embed import FoldedPatchEmbed, PatchEmbed

Network = TypeVar("Network", bound=nn.Module)
COMPILED_PARTS = ("encoder", "generative", "contrastive", "decoder", "propagate", "point_head")
"""Names of the submodules that take most of the time and compile without graph breaks."""


def fold_batch_norms(network: Network, dtype: torch.dtype | None = None) -> Network:
    """Return a copy for inference with the batch norms of its patch embeddings folded.

    Results are the same up to rounding; see `FoldedPatchEmbed`. `dtype` converts the weights of the
    linear layers; with autocast to the same dtype, they are then not cast at every call.
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
    """Compile the parts of a network in place with torch.compile, without graph breaks.

    The names of the weights stay the same. Sampling and neighbor search are not compiled: on a CPU
    they run in C.
    """
    for name, part in network.named_children():
        if name in COMPILED_PARTS:
            part.compile(fullgraph=True, dynamic=False, backend=backend)
