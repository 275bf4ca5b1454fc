"""Graphs in ONNX and torch.export: any number of clouds, sampling included, as the network says."""

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

POINTS = 48


def networks() -> dict[str, Network]:
    cut, told = PatchGrouper(4, 5), {"depth": 1, "heads": 2, "patch_widths": (8, 16, 24)}
    widths = {"image": 5, "text": 7}
    decoder = Decoder(16, depth=1, heads=2, group_size=5)
    return {
        "pretrain": ReCon(cut, Encoder(16, **told), decoder, Projections(16, widths)),
        "classify": Classifier(cut, Encoder(16, **told), 4),
        "parts": Segmenter(cut, Encoder(16, **told), 5, num_objects=3, widths=(24, 16, 8)),
        "scenes": Segmenter(
            cut, Encoder(16, **told, queries=()), 5, channels=6, widths=(24, 16, 8), up="z"
        ),
    }


def written(network: Network, folder: Path, kind: str) -> ExportResult:
    name = {"onnx": "network.onnx", "torch_export": "network.pt2"}[kind]
    return export_graph(network, folder / name, POINTS, kind)


def run(made: ExportResult, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Run a graph as someone would who has the file alone."""
    if made.path.suffix == ".pt2":
        found: Any = torch.export.load(made.path).module()(**given)
        return found
    session = onnxruntime.InferenceSession(made.path)
    outputs = session.run(None, {name: value.numpy() for name, value in given.items()})
    names = [output.name for output in session.get_outputs()]
    return {n: torch.from_numpy(x) for n, x in zip(names, outputs, strict=True)}


@pytest.mark.slow
@pytest.mark.parametrize("name", networks())
@pytest.mark.parametrize(("kind", "tolerance"), [("torch_export", 1e-5), ("onnx", 1e-4)])
@torch.no_grad()
def test_graphs_say_what_the_network_says(
    kind: str, tolerance: float, name: str, tmp_path: Path
) -> None:
    network = networks()[name].eval()
    made = written(network, tmp_path, kind)
    assert made.max_error <= tolerance
    for batch in (1, 2, 5):
        points = torch.rand(batch, POINTS, getattr(network, "channels", 3)) * 7 + 3
        given = {"points": points}
        if name == "pretrain":
            features = PointEncoder(network).encode(points)
            known = {n: v for n, v in features._asdict().items() if v is not None}
            del known["centers"]  # those of the graph lie in the unit sphere
        elif name == "classify":
            known = {"logits": network(points)}
        elif name == "parts":
            given["label"] = torch.randint(3, (batch,))
            known = {"log_probabilities": network(points, given["label"])}
        else:
            known = {"log_probabilities": network(points)}
        found = run(made, given)
        assert set(found) - {"centers"} == set(known) == set(made.output_names) - {"centers"}
        for key, value in known.items():
            error = (found[key] - value).abs() / value.abs().clamp(min=1)
            assert error.max() <= tolerance, key


def test_a_trace_leaves_nothing_behind(tmp_path: Path) -> None:
    network = networks()["classify"].eval()
    points = torch.rand(2, POINTS + 3, 3)  # a size that was not met before
    known = farthest_point_sample(points, 9)
    program = torch.export.export(network, (torch.rand(2, POINTS + 4, 3),), strict=False)
    assert program is not None
    network(torch.rand(2, POINTS + 4, 3))  # sampled by the order that the trace asked for
    assert torch.equal(farthest_point_sample(points, 9), known)


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        ValueError, match=r"ONNX needs onnxruntime: pip install 'recon-pointcloud\[onnx\]'"
    ):
        written(networks()["classify"].eval(), tmp_path, "onnx")


@pytest.mark.slow
@pytest.mark.parametrize("error", [2e-5, float("nan")])
def test_outputs_that_are_off_are_refused(
    error: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recon.checkpoints.graph_export._check", lambda *_: error)
    with pytest.raises(ValueError, match=r"network.pt2: its outputs are off by .*: do not use"):
        written(networks()["classify"].eval(), tmp_path, "torch_export")
