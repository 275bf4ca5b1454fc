"""Activation checkpointing that keeps random numbers and running statistics correct."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def maybe_checkpoint(module: nn.Module, *inputs: Any, enabled: bool) -> Any:
    """Call a module, and recompute its activations in the backward pass if `enabled` [1].

    Both passes draw the same random numbers, and running statistics are updated once. Values and
    gradients do not change. It saves memory and takes about a third more time.

    [1] Chen et al., arXiv:1604.06174.
    """
    if not (enabled and torch.is_grad_enabled()):
        return module(*inputs)

    def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        return nullcontext(), _restore_buffers(module)

    return checkpoint(module, *inputs, use_reentrant=False, context_fn=contexts)


@contextmanager
def _restore_buffers(module: nn.Module) -> Iterator[None]:
    """Reset the buffers of a module at the end of the block, also after an exception."""
    copies = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:  # torch stops the recomputation by an exception once it has all tensors
        with torch.no_grad():
            for buffer, copy in copies:
                buffer.copy_(copy)
