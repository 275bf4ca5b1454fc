"""Clocks and comparisons that the benchmarks share."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
Step = Callable[[], Any]


class Row(NamedTuple):
    """One comparison: seconds of the plain definition and of ours."""

    name: str
    what: str
    plain: float
    ours: float

    @property
    def ratio(self) -> float:
        """How many times as fast ours is."""
        return self.plain / self.ours


def now() -> float:
    """Return a clock that stands still while another process has the core."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def seconds(step: Step) -> float:
    """Return how long a step takes."""
    start = now()
    step()
    return now() - start


def alternate(name: str, what: str, steps: tuple[Step, Step], rounds: int, warm: int = 2) -> Row:
    """Time two steps, the plain one first, in turns; the first ones are not counted."""
    taken: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + warm):
        for step, times in zip(steps, taken, strict=True):
            used = seconds(step)
            if number >= warm:
                times.append(used)
    return Row(name, what, *(statistics.median(times) for times in taken))


def same(steps: tuple[Step, Step], tolerance: float, times: int = 3) -> None:
    """Raise AssertionError where what steps give differs."""
    for _ in range(times):
        plain, ours = (step() for step in steps)
        torch.testing.assert_close(ours, plain, rtol=tolerance, atol=tolerance)


def half(on: bool) -> Any:
    """Return autocast to bfloat16, or nothing."""
    return torch.autocast(DEVICE.type, torch.bfloat16) if on else nullcontext()


def backward(function: Callable[[], Tensor]) -> Step:
    """Run a function and its gradient."""

    def both() -> Tensor:
        out = function()
        out.sum().backward()
        return out.detach()

    return both


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread: threads that wait for each other cost CPU time too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def peak(dtype: torch.dtype) -> float:
    """Return the largest GFLOP a second of a matrix product that this device reaches."""
    best = 0.0
    for size in (512, 1024, 2048, 4096 if DEVICE.type == "cuda" else 2048):
        x = torch.randn(size, size, device=DEVICE).to(dtype)
        taken = min(seconds(partial(torch.matmul, x, x)) for _ in "1234")
        best = max(best, 2e-9 * size**3 / max(taken, 1e-9))
    return best


def gflop(step: Step) -> float:
    """Return the GFLOP of the matrix products and convolutions of a step."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops() / 1e9
