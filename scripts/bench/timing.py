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


class Comparison(NamedTuple):
    """One comparison: seconds of the plain definition and of ours."""

    name: str
    description: str
    reference_seconds: float
    optimized_seconds: float

    @property
    def speedup(self) -> float:
        """How many times as fast ours is."""
        return self.reference_seconds / self.optimized_seconds


def read_clock() -> float:
    """Return a clock that stands still while another process has the core."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def time_step(step: Step) -> float:
    """Return how long a step takes."""
    start = read_clock()
    step()
    return read_clock() - start


def compare_times(
    name: str, what: str, steps: tuple[Step, Step], rounds: int, warm: int = 2
) -> Comparison:
    """Time two steps, the plain one first, in turns; the first ones are not counted."""
    taken: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + warm):
        for step, times in zip(steps, taken, strict=True):
            used = time_step(step)
            if number >= warm:
                times.append(used)
    return Comparison(name, what, *(statistics.median(times) for times in taken))


def check_same_output(steps: tuple[Step, Step], tolerance: float, times: int = 3) -> None:
    """Raise AssertionError where what steps give differs."""
    for _ in range(times):
        plain, ours = (step() for step in steps)
        torch.testing.assert_close(ours, plain, rtol=tolerance, atol=tolerance)


def autocast_bf16(on: bool) -> Any:
    """Return autocast to bfloat16, or nothing."""
    return torch.autocast(DEVICE.type, torch.bfloat16) if on else nullcontext()


def with_backward(function: Callable[[], Tensor]) -> Step:
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


def measure_peak_gflops(dtype: torch.dtype) -> float:
    """Return the largest GFLOP a second of a matrix product that this device reaches."""
    best = 0.0
    for size in (512, 1024, 2048, 4096 if DEVICE.type == "cuda" else 2048):
        x = torch.randn(size, size, device=DEVICE).to(dtype)
        taken = min(time_step(partial(torch.matmul, x, x)) for _ in "1234")
        best = max(best, 2e-9 * size**3 / max(taken, 1e-9))
    return best


def count_gflops(step: Step) -> float:
    """Return the GFLOP of the matrix products and convolutions of a step."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops() / 1e9
