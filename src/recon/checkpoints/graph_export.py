"""Export networks to ONNX and torch.export, and check the outputs of the exported graphs."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
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
"""Maximum error of an output, relative to the larger of 1 and the network's output."""
CHECK_BATCH_SIZES = (1, 3)
"""Batch sizes of the comparison; the graph is traced with another one, 2."""

GraphRunner = Callable[..., dict[str, Tensor]]


class FeatureGraph(nn.Module):
    """Compute the features of `PointEncoder`, for clouds of any position and scale, y up.

    Shapes: points (B, N, 3) -> the queries and their projections, tokens (B, G, dim), centers
    (B, G, 3) in the unit sphere, and the pooled feature.
    """

    def __init__(self, network: PretrainingNetwork) -> None:
        super().__init__()
        self.network = deepcopy(network)
        if hasattr(self.network, "decoder"):  # features do not need it
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
    """Compute class logits of clouds prepared as in testing; (B, N, 3) -> (B, classes)."""

    def __init__(self, network: Classifier) -> None:
        super().__init__()
        self.network = network

    def forward(self, points: Float[Tensor, "b n 3"]) -> dict[str, Tensor]:
        return {"logits": self.network(points)}


class SegmenterGraph(nn.Module):
    """Compute log-probabilities of the points' classes, for clouds prepared as in testing.

    Shapes: points (B, N, C) -> (B, N, classes).
    """

    def __init__(self, network: Segmenter) -> None:
        super().__init__()
        self.network = network

    def forward(self, points: Float[Tensor, "b n c"]) -> dict[str, Tensor]:
        return {"log_probabilities": self.network(points)}


class PartSegmenterGraph(nn.Module):
    """Compute log-probabilities of the points' parts, given the classes of the objects.

    Shapes: points (B, N, C), labels (B,) -> (B, N, classes).
    """

    def __init__(self, network: Segmenter) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, points: Float[Tensor, "b n c"], label: Int[Tensor, " b"]
    ) -> dict[str, Tensor]:
        return {"log_probabilities": self.network(points, label)}


class ExportResult(NamedTuple):
    """An exported graph, read back and compared with its network."""

    path: Path
    output_names: list[str]
    max_error: float
    """Largest error of an output, relative as in `TOLERANCES`."""


def _wrap_network(network: Network) -> nn.Module:
    if isinstance(network, PretrainingNetwork):
        return FeatureGraph(network)
    if isinstance(network, Classifier):
        return ClassifierGraph(network)
    return SegmenterGraph(network) if network.num_objects is None else PartSegmenterGraph(network)


def _draw_inputs(network: Network, batch_size: int, num_points: int) -> dict[str, Tensor]:
    """Draw random clouds in the unit sphere, and object classes if the network takes them."""
    generator = torch.Generator().manual_seed(batch_size)
    channels = getattr(network, "channels", 3)
    points = torch.rand(batch_size, num_points, channels, generator=generator)
    points[..., :3] = UnitSphere()(points[..., :3])
    inputs = {"points": points}
    if isinstance(network, Segmenter) and network.num_objects is not None:
        inputs["label"] = torch.randint(network.num_objects, (batch_size,), generator=generator)
    return inputs


def _trace_graph(graph: nn.Module, inputs: dict[str, Tensor]) -> ExportedProgram:
    batch = Dim("batch", min=1)
    shapes = {name: {0: batch} for name in inputs}
    return torch.export.export(graph, (), inputs, dynamic_shapes=shapes, strict=False)


def _measure_error(graph: nn.Module, network: Network, num_points: int, run: GraphRunner) -> float:
    """Return the largest relative error of another runtime's outputs."""
    errors = []
    for batch_size in CHECK_BATCH_SIZES:
        inputs = _draw_inputs(network, batch_size, num_points)
        expected, actual = graph(**inputs), run(inputs)
        errors += [
            ((actual[name] - value).abs() / value.abs().clamp(min=1)).max()
            for name, value in expected.items()
        ]
    return float(torch.stack(errors).max())  # NaN if any error is NaN


@torch.no_grad()
def export_graph(
    network: Network,
    path: Path,
    num_points: int,
    export_format: str,
    show_stage: Callable[[str], AbstractContextManager[Any]] = nullcontext,
) -> ExportResult:
    """Export a network as a graph for clouds of `num_points` points, in batches of any size.

    `export_format` is `torch_export` (.pt2) or `onnx`, which needs the packages of the extra
    `onnx`. The graph includes the grouping into patches. The file is read back and run, and its
    outputs are compared with the network's. Each stage runs within `show_stage(<its name>)`.

    Raises ValueError for too few points, and for errors above `TOLERANCES`.
    """
    grouper = network.grouper
    if num_points < (min_points := max(grouper.groups, grouper.group_size)):
        raise ValueError(
            f"num_points={num_points}: the patches of the network need at least {min_points}"
        )
    if export_format == "onnx":
        _require_packages("onnx", "onnxruntime", "onnxscript")
    graph = _wrap_network(network.eval())
    inputs = _draw_inputs(network, 2, num_points)
    path.parent.mkdir(parents=True, exist_ok=True)
    with show_stage("tracing the network"):
        program, output_names = _trace_graph(graph, inputs), list(graph(**inputs))
    with show_stage(f"writing {path}"):
        if export_format == "onnx":
            run = _write_onnx(program, path, [*inputs], output_names)
        else:
            torch.export.save(program, path)
            read_back: Any = torch.export.load(path).module()
            run = lambda tensors: read_back(**tensors)  # noqa: E731
    with show_stage("comparing its outputs with those of the network"):
        error = _measure_error(graph, network, num_points, run)
    tolerance = TOLERANCES[export_format]
    if not error <= tolerance:  # also true for NaN
        raise ValueError(
            f"{path}: its outputs differ from the network's by {error:.1e}, more than "
            f"{tolerance:.0e}: do not use it"
        )
    return ExportResult(path, output_names, error)


def _require_packages(*packages: str) -> None:
    """Raise ValueError for missing packages, before anything is computed."""
    for package in packages:
        try:
            import_module(package)
        except ImportError as error:
            raise ValueError(
                f"ONNX needs {package}: pip install 'recon-pointcloud[onnx]'"
            ) from error


def _compute_distances(x: Tensor, y: Tensor, p: float, mode: int | None) -> Tensor:
    """Decompose `torch.cdist`, for which ONNX has no operator."""
    return (x.unsqueeze(-2) - y.unsqueeze(-3)).square().sum(-1).sqrt()


def _write_onnx(
    program: ExportedProgram, path: Path, input_names: list[str], output_names: list[str]
) -> GraphRunner:
    """Write an ONNX file; return a function that runs it by onnxruntime."""
    import onnxruntime

    decompositions = torch.export.default_decompositions()
    decompositions[torch.ops.aten._cdist_forward.default] = _compute_distances
    onnx_program = torch.onnx.export(
        program.run_decompositions(decompositions),
        input_names=input_names,
        output_names=output_names,
        opset_version=ONNX_OPSET,
        dynamo=True,
        optimize=False,  # the optimizer drops the 1e-8 that keeps a division finite
        verbose=False,
    )
    assert onnx_program is not None
    onnx_program.save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        outputs = session.run(output_names, {n: tensor.numpy() for n, tensor in inputs.items()})
        return {n: torch.from_numpy(x) for n, x in zip(output_names, outputs, strict=True)}

    return run
