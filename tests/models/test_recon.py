import pytest
import torch

from recon.layers.grouping import PatchGrouper, check_clouds
from recon.models.decoder import Decoder
from recon.models.encoder import Encoder
from recon.models.recon import ContrastiveNetwork, Projections, ReCon


def build_recon() -> ReCon:
    encoder = Encoder(24, depth=2, heads=3, patch_widths=(8, 16, 16))
    decoder = Decoder(24, depth=1, heads=3, group_size=8)
    return ReCon(PatchGrouper(10, 8), encoder, decoder, Projections(24, {"image": 5, "cls": 6}))


MASK = torch.tensor([[True] * 6 + [False] * 4] * 2)


def test_predicted_patches_match_the_order_of_the_targets() -> None:
    model, points = build_recon(), torch.randn(2, 60, 3)
    out = model(points, MASK)
    assert out.predicted.shape == out.target.shape == (12, 8, 3)
    assert torch.equal(out.target, model.grouper(points).points[MASK])


def test_only_projected_queries_are_returned() -> None:
    out = build_recon()(torch.randn(2, 60, 3), MASK)
    assert {name: query.shape for name, query in out.projected_queries.items()} == {
        "image": (2, 5),
        "cls": (2, 6),
    }


def test_encode_uses_all_patches() -> None:
    assert build_recon().encode(torch.randn(2, 60, 3)).tokens.shape == (2, 10, 24)


def test_only_the_generative_student_needs_a_mask() -> None:
    model, points = build_recon().eval(), torch.randn(2, 60, 3)
    with pytest.raises(ValueError, match="needs a mask"):
        model(points, None)
    contrastive = ContrastiveNetwork(model.grouper, model.encoder, model.projections)
    out = contrastive(points, None)
    assert out.predicted.shape == (0, 8, 3)
    expected = model.projections(model.encode(points).queries)
    assert torch.equal(out.projected_queries["image"], expected["image"])


def test_projections_are_initialized_as_released() -> None:
    weight = Projections(384, {"image": 512})["image"].weight
    assert weight.mean().item() == pytest.approx(0.02, abs=1e-4)
    assert weight.std().item() == pytest.approx(0.01, abs=1e-4)


def test_clouds_are_converted_to_the_dtype_of_the_weights() -> None:
    model, points = build_recon().eval(), torch.randn(2, 60, 3)
    encoding = model.encode(points.double())
    assert torch.equal(encoding.tokens, model.encode(points).tokens)
    with pytest.raises(ValueError, match=r"shape \(B, N, 3\), got \(2, 60, 6\)"):
        check_clouds(torch.randn(2, 60, 6))


def test_projection_without_a_query_raises_value_error() -> None:
    encoder = Encoder(24, depth=2, heads=3, queries=["text"], patch_widths=(8, 16, 16))
    with pytest.raises(ValueError, match=r"projections of \['image'\], .*queries \['text'\]"):
        ContrastiveNetwork(PatchGrouper(10, 8), encoder, Projections(24, {"image": 5, "text": 5}))
