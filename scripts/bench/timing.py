"""Time steps and compare an optimized path with its reference implementation."""

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
    """Seconds of a reference implementation and of the optimized path."""

    name: str
    description: str
    reference_seconds: float
    optimized_seconds: float

    @property
    def speedup(self) -> float:
        """Time of the reference divided by the time of the optimized path."""
        return self.reference_seconds / self.optimized_seconds


def read_clock() -> float:
    """Return CPU time of the process, on CUDA wall time after a synchronization."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def time_step(step: Step) -> float:
    """Return the seconds of a step."""
    start = read_clock()
    step()
    return read_clock() - start


def compare_times(
    name: str, description: str, steps: tuple[Step, Step], rounds: int, warmup: int = 2
) -> Comparison:
    """Time two steps in turns, the reference first; warm-up rounds are not counted."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + warmup):
        for step, times in zip(steps, seconds, strict=True):
            elapsed = time_step(step)
            if number >= warmup:
                times.append(elapsed)
    return Comparison(name, description, *(statistics.median(times) for times in seconds))


def check_same_output(steps: tuple[Step, Step], tolerance: float, times: int = 3) -> None:
    """Raise AssertionError if the outputs of two steps differ."""
    for _ in range(times):
        expected, actual = (step() for step in steps)
        torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def autocast_bf16(enabled: bool) -> Any:
    """Return an autocast context for bfloat16, or a null context."""
    return torch.autocast(DEVICE.type, torch.bfloat16) if enabled else nullcontext()


def with_backward(function: Callable[[], Tensor]) -> Step:
    """Return a step that runs a function and its backward pass."""

    def step() -> Tensor:
        out = function()
        out.sum().backward()
        return out.detach()

    return step


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread, because waiting threads also cost CPU time."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


def measure_peak_gflops(dtype: torch.dtype) -> float:
    """Return the highest GFLOP/s of a matrix product on this device."""
    best = 0.0
    for size in (512, 1024, 2048, 4096 if DEVICE.type == "cuda" else 2048):
        x = torch.randn(size, size, device=DEVICE).to(dtype)
        seconds = min(time_step(partial(torch.matmul, x, x)) for _ in "1234")
        best = max(best, 2e-9 * size**3 / max(seconds, 1e-9))
    return best


def count_gflops(step: Step) -> float:
    """Return the GFLOP of the matrix products and convolutions of a step."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops() / 1e9
