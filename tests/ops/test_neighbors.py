import jaxtyping
import pytest
import torch
from torch.testing import assert_close

from conftest import released_arrays
from recon.ops.native import knn_native
from recon.ops.neighbors import gather_rows, knn, knn_torch, pairwise_distances


def test_knn_matches_the_released_neighbors() -> None:
    arrays = released_arrays("recon_pretrain_small.npz")
    neighbors = knn(arrays("center"), arrays("points"), 32).sort(-1).values
    assert torch.equal(neighbors, arrays("knn_idx_sorted").long())


def test_knn_equals_its_definition() -> None:
    queries, points = torch.randn(2, 5, 3), torch.randn(2, 40, 3)
    distances = (queries.unsqueeze(2) - points.unsqueeze(1)).norm(dim=-1)
    expected = distances.argsort(-1)[..., :7].sort(-1).values
    assert torch.equal(knn(queries, points, 7).sort(-1).values, expected)


@pytest.mark.parametrize(("points", "k"), [(1, 1), (33, 33), (500, 32), (500, 1)])
@pytest.mark.parametrize("threads", [1, 2])
def test_c_kernel_matches_torch(threads: int, points: int, k: int) -> None:
    clouds = torch.randn(3, points, 3)
    queries = torch.cat([clouds[:, :5], torch.randn(3, 4, 3)], 1)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    neighbors = knn_native(queries, clouds, k)
    torch.set_num_threads(before)  # later forked processes hang with more threads
    if neighbors is not None:  # there is a compiler
        expected = knn_torch(queries, clouds, k).sort(-1).values
        assert torch.equal(neighbors.sort(-1).values, expected)


@pytest.mark.parametrize(("queries", "points"), [((1, 4, 3), (3, 50, 3)), ((2, 4, 6), (2, 50, 6))])
def test_other_shapes_are_computed_by_torch(
    queries: tuple[int, ...], points: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as outside the tests
    query_points, clouds = torch.randn(queries), torch.randn(points)
    assert knn_native(query_points, clouds, 5) is None
    expected = knn_torch(query_points, clouds, 5).sort(-1).values
    assert torch.equal(knn(query_points, clouds, 5).sort(-1).values, expected)


def test_ties_return_exactly_k_neighbors() -> None:
    points = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0]]])
    picked = knn(torch.zeros(1, 1, 3), points, 3)[0, 0].tolist()
    assert 0 in picked
    assert len({*picked}) == 3


def test_gather_rows_accepts_any_index_shape() -> None:
    values = torch.randn(2, 10, 3)
    index = torch.randint(10, (2, 4, 5))
    expected = torch.stack([values[b][index[b]] for b in range(2)])
    assert torch.equal(gather_rows(values, index), expected)


def test_distances_of_close_points_are_accurate() -> None:
    x = torch.tensor([[[100.0, 0, 0]]])
    y = x + torch.tensor([1e-4, 0, 0])
    assert_close(pairwise_distances(x, y), (y - x).norm(dim=-1, keepdim=True))


@pytest.mark.parametrize("k", [0, 9])
def test_invalid_k_raises_value_error(k: int) -> None:
    with pytest.raises(ValueError, match=f"cannot find {k} neighbors among 8 points"):
        knn(torch.randn(1, 2, 3), torch.randn(1, 8, 3), k)
