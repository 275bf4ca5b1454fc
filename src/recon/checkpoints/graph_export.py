"""Networks as graphs that run without this library: ONNX and torch.export, checked."""

from collections.abc import Callable
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from recon.checkpoints.factory import Network
from recon.data.transforms import UnitSphere
from recon.models.classifier import Classifier
from recon.models.recon import PretrainingNetwork
from recon.models.segmenter import Segmenter

ONNX_OPSET = 20
TOLERANCES = {"onnx": 1e-4, "torch_export": 1e-5}
"""How far outputs may be from the network's own, relative to the larger of 1 and their size."""
CHECK_BATCH_SIZES = (1, 3)
"""Clouds at a time that a graph is checked with, unlike the 2 it was traced with."""


class FeatureGraph(nn.Module):
    """What `PointEncoder` returns, of clouds of any place and scale that stand on y.

    Shapes: points (B, N, 3) -> the queries and their projections, tokens (B, G, dim), centers
    (B, G, 3) in the unit sphere, and the pooled feature.
    """

    def __init__(self, network: PretrainingNetwork) -> None:
        super().__init__()
        self.network = deepcopy(network)
        if hasattr(self.network, "decoder"):  # which features do not need
            del self.network.decoder

    def forward(self, points: Float[Tensor, "b n 3"]) -> dict[str, Tensor]:
        encoding = self.network.encode(UnitSphere()(points - points.mean(1, keepdim=True)))
        projected = self.network.projections(encoding.queries)
        return {
            **encoding.queries,
            **{f"{name}_projected": value for name, value in projected.items()},
            "tokens": encoding.tokens,
            "centers": encoding.centers,
            "pooled": encoding.pooled(),
        }


class ClassifierGraph(nn.Module):
    """Scores of classes of clouds as the tests saw them; (B, N, 3) -> (B, classes)."""

    def __init__(self, network: Classifier) -> None:
        super().__init__()
        self.network = network

    def forward(self, points: Float[Tensor, "b n 3"]) -> dict[str, Tensor]:
        return {"logits": self.network(points)}


class SegmenterGraph(nn.Module):
    """Log-probabilities of the points' classes, of clouds as the segmenter's tests saw them.

    Shapes: points (B, N, C) -> (B, N, classes).
    """

    def __init__(self, network: Segmenter) -> None:
        super().__init__()
        self.network = network

    def forward(self, points: Float[Tensor, "b n c"]) -> dict[str, Tensor]:
        return {"log_probabilities": self.network(points)}


class PartSegmenterGraph(nn.Module):
    """The same, of objects of known classes: points (B, N, C), labels (B,) -> (B, N, classes)."""

    def __init__(self, network: Segmenter) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, points: Float[Tensor, "b n c"], label: Int[Tensor, " b"]
    ) -> dict[str, Tensor]:
        return {"log_probabilities": self.network(points, label)}


class ExportResult(NamedTuple):
    """A graph that was written and read back, and how far its outputs were off."""

    path: Path
    output_names: list[str]
    max_error: float
    """Largest difference to the network's own outputs, relative as in `TOLERANCES`."""


def _graph(network: Network) -> nn.Module:
    if isinstance(network, PretrainingNetwork):
        return FeatureGraph(network)
    if isinstance(network, Classifier):
        return ClassifierGraph(network)
    return SegmenterGraph(network) if network.num_objects is None else PartSegmenterGraph(network)


def _inputs(network: Network, batch: int, points: int) -> dict[str, Tensor]:
    """Draw clouds in the unit sphere, and classes of objects where the network asks for them."""
    generator = torch.Generator().manual_seed(batch)
    channels = getattr(network, "channels", 3)
    drawn = torch.rand(batch, points, channels, generator=generator)
    drawn[..., :3] = UnitSphere()(drawn[..., :3])
    given = {"points": drawn}
    if isinstance(network, Segmenter) and network.num_objects is not None:
        given["label"] = torch.randint(network.num_objects, (batch,), generator=generator)
    return given


def _traced(graph: nn.Module, given: dict[str, Tensor]) -> ExportedProgram:
    batch = Dim("batch", min=1)
    shapes = {name: {0: batch} for name in given}
    return torch.export.export(graph, (), given, dynamic_shapes=shapes, strict=False)


def _check(
    graph: nn.Module, network: Network, points: int, run: Callable[..., dict[str, Tensor]]
) -> float:
    """Return the largest relative difference of another runtime's outputs."""
    apart = []
    for batch in CHECK_BATCH_SIZES:
        given = _inputs(network, batch, points)
        ours, others = graph(**given), run(given)
        apart += [
            ((others[name] - known).abs() / known.abs().clamp(min=1)).max()
            for name, known in ours.items()
        ]
    return float(torch.stack(apart).max())  # NaN where any is


@torch.no_grad()
def export_graph(network: Network, path: Path, num_points: int, export_format: str) -> ExportResult:
    """Write a network as a graph of clouds of `points` points, any number of them at a time.

    `kind` is `torch_export` (.pt2) or `onnx`, which needs the packages of the extra `onnx`. Patches
    are cut in the graph. What was written is read back, run and compared with the network. Raises
    ValueError for too few points and for outputs that are off by more than `TOLERANCES`.
    """
    cut = network.grouper
    if num_points < (need := max(cut.groups, cut.group_size)):
        raise ValueError(
            f"num_points={num_points}: the network cuts patches that need at least {need}"
        )
    if export_format == "onnx":
        _require("onnx", "onnxruntime", "onnxscript")
    graph = _graph(network.eval())
    given = _inputs(network, 2, num_points)
    path.parent.mkdir(parents=True, exist_ok=True)
    program, outputs = _traced(graph, given), list(graph(**given))
    if export_format == "onnx":
        run = _onnx(program, path, [*given], outputs)
    else:
        torch.export.save(program, path)
        read_back: Any = torch.export.load(path).module()
        run = lambda asked: read_back(**asked)  # noqa: E731
    error = _check(graph, network, num_points, run)
    if not error <= TOLERANCES[export_format]:  # NaN is not
        raise ValueError(
            f"{path}: its outputs are off by {error:.1e}, more than "
            f"{TOLERANCES[export_format]:.0e}: do not "
            "use it"
        )
    return ExportResult(path, outputs, error)


def _require(*packages: str) -> None:
    """Raise ValueError for packages that are missing, before anything is computed."""
    for package in packages:
        try:
            import_module(package)
        except ImportError as error:
            raise ValueError(
                f"ONNX needs {package}: pip install 'recon-pointcloud[onnx]'"
            ) from error


def _distances(x: Tensor, y: Tensor, p: float, mode: int | None) -> Tensor:
    """Compute `exact_distances`, which ONNX has no word for."""
    return (x.unsqueeze(-2) - y.unsqueeze(-3)).square().sum(-1).sqrt()


def _onnx(
    program: ExportedProgram, path: Path, inputs: list[str], outputs: list[str]
) -> Callable[..., dict[str, Tensor]]:
    """Write an ONNX file; return what runs it by onnxruntime."""
    import onnxruntime

    known = torch.export.default_decompositions()
    known[torch.ops.aten._cdist_forward.default] = _distances
    written = torch.onnx.export(
        program.run_decompositions(known),
        input_names=inputs,
        output_names=outputs,
        opset_version=ONNX_OPSET,
        dynamo=True,
        optimize=False,  # its rewriting takes the 1e-8 that keeps a division finite for nothing
        verbose=False,
    )
    assert written is not None
    written.save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(given: dict[str, Tensor]) -> dict[str, Tensor]:
        found = session.run(outputs, {name: tensor.numpy() for name, tensor in given.items()})
        return {n: torch.from_numpy(x) for n, x in zip(outputs, found, strict=True)}

    return run
