"""Activations computed again instead of kept."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def maybe_checkpoint(module: nn.Module, *inputs: Any, enabled: bool) -> Any:
    """Call a module; with `on`, keep its inputs alone and compute it again for the gradient [1].

    Random numbers are the same both times, and running statistics move once. Values and gradients
    do not change; memory does, for about a third more time.

    [1] Chen et al., arXiv:1604.06174.
    """
    if not (enabled and torch.is_grad_enabled()):
        return module(*inputs)

    def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        return nullcontext(), _kept_buffers(module)

    return checkpoint(module, *inputs, use_reentrant=False, context_fn=contexts)


@contextmanager
def _kept_buffers(module: nn.Module) -> Iterator[None]:
    before = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:  # torch leaves early, by an exception, once it has what it needs
        with torch.no_grad():
            for buffer, kept in before:
                buffer.copy_(kept)
