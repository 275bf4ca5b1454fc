import numpy as np
import pytest
import torch

from recon.layers.attention import CrossAttention
from recon.layers.grouping import PatchGrouper
from recon.models.encoder import Encoder
from recon.models.recon import ContrastiveNetwork, Projections
from recon.reports.introspection import attention_maps, tsne


def test_attention_maps_reproduce_the_forward_pass() -> None:
    layer, queries, tokens = (
        CrossAttention(12, heads=3),
        torch.randn(2, 2, 12),
        torch.randn(2, 5, 12),
    )
    weights = layer.attention_maps(queries, tokens)
    assert weights.shape == (2, 3, 2, 5)
    assert torch.allclose(weights.sum(-1), torch.ones(2, 3, 2))
    value = (tokens @ layer.kv.weight[12:].T).unflatten(-1, (3, 4)).transpose(1, 2)
    out = layer.proj((weights @ value).transpose(1, 2).flatten(2))
    assert torch.allclose(out, layer(queries, tokens), atol=1e-6)


def test_attention_of_points_equals_attention_of_their_patches() -> None:
    encoder = Encoder(24, depth=2, heads=2, patch_widths=(8, 16, 16))
    network = ContrastiveNetwork(PatchGrouper(8, 8), encoder, Projections(24, {})).train()
    clouds = torch.rand(2, 64, 3)
    maps = attention_maps(network, ["a", "b"], clouds)
    assert network.training
    assert [list(shape.weights) for shape in maps] == [["cls", "image", "text"]] * 2
    centers = network.eval().encode(clouds).centers
    for row, shape in enumerate(maps):
        total = 0.0
        for center in centers[row].numpy():  # a center is a point, with its patch's weight
            nearest = np.linalg.norm(shape.points - center, axis=1).argmin()
            total += shape.weights["image"][nearest]
        assert total == pytest.approx(1, abs=0.02)
    plain = Encoder(24, depth=2, heads=2, queries=(), patch_widths=(8, 16, 16))
    without_queries = ContrastiveNetwork(PatchGrouper(8, 8), plain, Projections(24, {}))
    assert attention_maps(without_queries, ["a"], clouds) == []


def test_tsne_preserves_neighbors() -> None:
    rng = np.random.default_rng(0)
    centers = 20 * rng.normal(size=(3, 8))
    features = np.repeat(centers, 10, 0) + rng.normal(size=(30, 8))
    labels = np.repeat(np.arange(3), 10)
    embedding = tsne(features, labels, [str(n) for n in range(30)], list("abc"))
    assert embedding is not None
    assert embedding.coordinates.min() >= 0
    assert embedding.coordinates.max() <= 1
    offsets = embedding.coordinates[:, None] - embedding.coordinates[None]
    distances = np.linalg.norm(offsets, axis=-1)
    np.fill_diagonal(distances, 9)
    assert (labels[distances.argmin(1)] == labels).mean() > 0.9
    assert tsne(features[:4], labels[:4], list("abcd"), list("abc")) is None
