import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import jaxtyping
import pytest
import torch

from conftest import released_arrays
from recon.ops.native import fps_native, load_library
from recon.ops.sampling import _compute_tie_order, _fps_torch, farthest_point_sample

CASES = (
    "plain", "near_origin", "start_at_origin", "all_of_them", "grid_ties", "grid_ties_n343",
    "duplicates",
)  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("skip", [True, False])
def test_fps_matches_the_released_kernel(case: str, skip: bool) -> None:
    arrays = released_arrays("ops_fps.npz")
    expected = arrays(f"{case}_idx_{'cuda' if skip else 'no_magcheck'}").long()
    picked = farthest_point_sample(
        arrays(f"{case}_points"), expected.shape[1], skip_near_origin=skip
    )
    assert torch.equal(picked, expected)


def fps_reference(points: torch.Tensor, count: int) -> list[int]:
    picked = [0]
    while len(picked) < count:
        nearest = torch.stack([(points - points[i]).square().sum(-1) for i in picked]).amin(0)
        picked.append(int(nearest.argmax()))
    return picked


def test_fps_equals_its_definition() -> None:
    points = torch.randn(3, 77, 3)
    picked = farthest_point_sample(points, 20)
    assert picked.tolist() == [fps_reference(cloud, 20) for cloud in points]


def test_fps_is_independent_of_the_batch() -> None:
    points = torch.randn(4, 100, 3)
    picked = farthest_point_sample(points, 30)
    assert torch.equal(picked[2:3], farthest_point_sample(points[2:3], 30))


def test_fps_of_ordered_points_picks_the_first_points() -> None:
    points = torch.randn(1, 200, 3)
    ordered = points[:, farthest_point_sample(points, 200)[0]]
    assert farthest_point_sample(ordered, 50).tolist() == [list(range(50))]


@pytest.mark.parametrize("count", [0, 11])
def test_invalid_count_raises_value_error(count: int) -> None:
    with pytest.raises(ValueError, match=f"cannot pick {count} centers from 10 points"):
        farthest_point_sample(torch.randn(1, 10, 3), count)


@pytest.mark.parametrize(("n", "count"), [(1, 1), (5, 5), (16, 7), (257, 40), (1024, 64)])
@pytest.mark.parametrize("skip", [True, False])
def test_c_kernel_matches_torch(n: int, count: int, skip: bool) -> None:
    torch.manual_seed(n)
    points = (torch.randn(5, n, 3) * 8).round() / 8  # many ties
    order, min_squared_norm = torch.from_numpy(_compute_tie_order(n)), 1e-3 if skip else -1.0
    compiled = fps_native(points, order, count, min_squared_norm)
    if compiled is None:
        pytest.skip("no C compiler")
    assert torch.equal(compiled, _fps_torch(points, order, count, min_squared_norm))


def test_c_kernel_requires_three_coordinates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as outside the tests
    assert fps_native(torch.randn(2, 50, 6), torch.arange(50), 5, -1.0) is None


def test_fps_without_a_compiler_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    points = torch.randn(2, 90, 3)
    picked = farthest_point_sample(points, 20)
    monkeypatch.setenv("RECON_NATIVE", "0")
    load_library.cache_clear()
    assert load_library() is None
    assert torch.equal(farthest_point_sample(points, 20), picked)
    load_library.cache_clear()


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is unavailable on this system")
@pytest.mark.slow
def test_triton_kernel_matches_torch() -> None:
    program = Path(__file__).with_name("triton_interpreter.py")
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True)
    assert done.stdout == "equal\n", done.stderr[-3000:]
