"""ONNX and torch.export graphs compute what the network does, for batches of any size."""

import sys
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torch import Tensor

from recon.checkpoints.factory import Network
from recon.checkpoints.graph_export import ExportResult, export_graph
from recon.layers.grouping import PatchGrouper
from recon.models.classifier import Classifier
from recon.models.decoder import Decoder
from recon.models.encoder import Encoder
from recon.models.recon import Projections, ReCon
from recon.models.segmenter import Segmenter
from recon.ops.sampling import farthest_point_sample
from recon.point_encoder import PointEncoder

NUM_POINTS = 48


def build_networks() -> dict[str, Network]:
    grouper, sizes = PatchGrouper(4, 5), {"depth": 1, "heads": 2, "patch_widths": (8, 16, 24)}
    widths = {"image": 5, "text": 7}
    decoder = Decoder(16, depth=1, heads=2, group_size=5)
    return {
        "pretrain": ReCon(grouper, Encoder(16, **sizes), decoder, Projections(16, widths)),
        "classify": Classifier(grouper, Encoder(16, **sizes), 4),
        "parts": Segmenter(grouper, Encoder(16, **sizes), 5, num_objects=3, widths=(24, 16, 8)),
        "scenes": Segmenter(
            grouper, Encoder(16, **sizes, queries=()), 5, channels=6, widths=(24, 16, 8), up="z"
        ),
    }


def export_network(network: Network, folder: Path, export_format: str) -> ExportResult:
    name = {"onnx": "network.onnx", "torch_export": "network.pt2"}[export_format]
    return export_graph(network, folder / name, NUM_POINTS, export_format)


def run_graph(path: Path, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Run a graph from its file alone, without this library."""
    if path.suffix == ".pt2":
        tensors: Any = torch.export.load(path).module()(**inputs)
        return tensors
    session = onnxruntime.InferenceSession(path)
    arrays = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    names = [output.name for output in session.get_outputs()]
    return {n: torch.from_numpy(x) for n, x in zip(names, arrays, strict=True)}


@pytest.mark.slow
@pytest.mark.parametrize("name", build_networks())
@pytest.mark.parametrize(("export_format", "tolerance"), [("torch_export", 1e-5), ("onnx", 1e-4)])
@torch.no_grad()
def test_graph_outputs_equal_the_network_outputs(
    export_format: str, tolerance: float, name: str, tmp_path: Path
) -> None:
    network = build_networks()[name].eval()
    result = export_network(network, tmp_path, export_format)
    assert result.max_error <= tolerance
    for batch_size in (1, 2, 5):
        points = torch.rand(batch_size, NUM_POINTS, getattr(network, "channels", 3)) * 7 + 3
        inputs = {"points": points}
        if name == "pretrain":
            features = PointEncoder(network).encode(points)
            expected = {n: v for n, v in features._asdict().items() if v is not None}
            del expected["centers"]  # the graph returns centers in the unit sphere
        elif name == "classify":
            expected = {"logits": network(points)}
        elif name == "parts":
            inputs["label"] = torch.randint(3, (batch_size,))
            expected = {"log_probabilities": network(points, inputs["label"])}
        else:
            expected = {"log_probabilities": network(points)}
        outputs = run_graph(result.path, inputs)
        assert set(outputs) == set(result.output_names)
        assert set(outputs) - {"centers"} == set(expected)
        for key, value in expected.items():
            error = (outputs[key] - value).abs() / value.abs().clamp(min=1)
            assert error.max() <= tolerance, key


def test_tracing_does_not_change_later_sampling() -> None:
    network = build_networks()["classify"].eval()
    points = torch.rand(2, NUM_POINTS + 3, 3)  # a size that was not sampled before
    expected = farthest_point_sample(points, 9)
    program = torch.export.export(network, (torch.rand(2, NUM_POINTS + 4, 3),), strict=False)
    assert program is not None
    network(torch.rand(2, NUM_POINTS + 4, 3))  # sampled in the tie order that the trace cached
    assert torch.equal(farthest_point_sample(points, 9), expected)


def test_missing_onnx_packages_raise_value_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        ValueError, match=r"ONNX needs onnxruntime: pip install 'recon-pointcloud\[onnx\]'"
    ):
        export_network(build_networks()["classify"].eval(), tmp_path, "onnx")


@pytest.mark.slow
@pytest.mark.parametrize("error", [2e-5, float("nan")])
def test_outputs_above_the_tolerance_raise_value_error(
    error: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recon.checkpoints.graph_export._measure_error", lambda *_: error)
    with pytest.raises(ValueError, match=r"network.pt2: its outputs differ .*: do not use it"):
        export_network(build_networks()["classify"].eval(), tmp_path, "torch_export")
