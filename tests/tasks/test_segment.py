"""Fine-tuning of segmenters: parameter groups, unlabeled points, class weights, results."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import wandb
from hydra import compose, initialize_config_dir
from lightning import Trainer
from torch import Tensor, nn

from conftest import released_json
from recon.checkpoints.loading import load
from recon.checkpoints.official_keys import to_official_key
from recon.cli.config_dir import conf_dir
from recon.data.batch import Batch, Clouds, get_clouds
from recon.data.datamodule import PointCloudDataModule
from recon.data.dataset import Cloud, PointCloudDataset
from recon.data.datasets.furniture_parts import FurnitureParts
from recon.data.transforms import RandomPointSample
from recon.layers.grouping import PatchGrouper
from recon.models.encoder import Encoder
from recon.models.segmenter import Segmenter
from recon.reports.colors import color_by_class
from recon.reports.segmentation import describe_points, pick_best_median_worst
from recon.tasks.scene import SceneSegmentation
from recon.tasks.segment import PartSegmentation, SegmentedCloud
from recon.tasks.sliding_windows import SlidingWindowConfig
from recon.train import train
from trees import write_s3dis

ADAMW = partial(torch.optim.AdamW, lr=1e-4, weight_decay=0.05)


def toy(**settings: object) -> Segmenter:
    torch.manual_seed(0)
    encoder = Encoder(24, depth=2, heads=2, patch_widths=(8, 16, 16))
    sizes = {"hidden": 16, "widths": (16, 16, 8)}
    return Segmenter(PatchGrouper(8, 8), encoder, 4, **{**sizes, **settings})


def test_parameter_groups_match_the_release() -> None:
    with torch.device("meta"):
        model = Segmenter(PatchGrouper(128, 32), Encoder(384), 50, num_objects=16)
    task = PartSegmentation(model, optimizer=ADAMW)
    groups = task.configure_optimizers().param_groups
    names = {id(p): n.removeprefix("model.") for n, p in task.named_parameters()}
    released = released_json("param_groups.json")["partseg"]
    assert len(groups) == len(released)
    for group, expected in zip(groups, released, strict=True):
        keys = {to_official_key(names[id(p)], "segment") for p in group["params"]}
        assert keys == set(expected["names"])
        assert group["lr"] == pytest.approx(expected["initial_lr"])
        assert group["weight_decay"] == expected["weight_decay"]


def build_batch(labels: Tensor) -> Batch:
    torch.manual_seed(1)
    points = torch.randn(len(labels), labels.shape[1], 3)
    label = torch.zeros(len(labels), dtype=torch.long)
    return {"points": points, "point_labels": labels, "label": label}


def compute_loss(task: PartSegmentation, labels: Tensor) -> Tensor:
    task.log = lambda *_, **__: None
    return task.eval().training_step(build_batch(labels), 0)


def test_unlabeled_points_do_not_enter_the_loss() -> None:
    task = PartSegmentation(toy(num_objects=2), optimizer=ADAMW)
    labels = torch.randint(0, 4, (2, 40))
    partly_labeled = labels.clone()
    partly_labeled[:, :30] = -1
    clouds = get_clouds(build_batch(labels))
    scores = task.eval()(clouds, torch.zeros(2, dtype=torch.long))
    expected = nn.functional.nll_loss(scores[:, 30:].flatten(0, 1), labels[:, 30:].flatten())
    assert torch.allclose(compute_loss(task, partly_labeled), expected)


def test_batches_without_labels_have_no_loss_and_no_gradient() -> None:
    task = PartSegmentation(toy(num_objects=2), optimizer=ADAMW)
    loss = compute_loss(task, torch.full((2, 40), -1))
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is None or not p.grad.any() for p in task.parameters())


def test_class_weights_are_cube_roots_of_inverse_frequencies() -> None:
    task = SceneSegmentation(toy(), windows=SlidingWindowConfig(), optimizer=ADAMW)

    class CountedParts(FurnitureParts):
        point_classes = list("abcd")
        label_counts = np.array([800, 100, 100, 0])

        def __init__(self) -> None: ...

    task.set_class_names(CountedParts())
    assert task.class_weights.tolist() == pytest.approx([1.0, 2.0, 2.0, 800 ** (1 / 3)], rel=1e-5)
    assert task.model.class_names == ("a", "b", "c", "d")


def test_double_step_applies_the_same_gradients_twice() -> None:
    once, twice = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    for parameter, double in ((once, False), (twice, True)):
        task = PartSegmentation(toy(num_objects=2), optimizer=ADAMW, double_step=double)
        optimizer = torch.optim.SGD([parameter], lr=0.5)
        parameter.grad = torch.ones(2)
        task.optimizer_step(0, 0, optimizer, lambda: None)
    assert once.tolist() == [0.5, 0.5]
    assert twice.tolist() == [0.0, 0.0]


class LabeledShapes(PointCloudDataset):
    """Shapes with fewer and with more than 64 points; parts 0, 1 and 2, 3."""

    def __init__(self) -> None:
        self.ids, self.classes = [f"shape{row}" for row in range(6)], ("a", "b")
        self.labels, self.point_classes = np.arange(6) % 2, ("w", "x", "y", "z")
        self.parts = {"a": [0, 1], "b": [2, 3]}

    def cloud(self, index: int) -> Cloud:
        rng = np.random.default_rng(index)
        points = rng.normal(size=(20 + 40 * index, 3)).astype(np.float32)
        is_upper = points[:, 1] + rng.normal(0, 0.2, len(points)) > 1.2  # a rare part
        labels = 2 * (index % 2) + is_upper.astype(np.int64)
        labels[: index // 2] = -1
        return Cloud(points, point_labels=labels)


class LabeledShapesModule(PointCloudDataModule):
    splits = {"train": ["train"], "test": ["test"]}

    def read_part(self, part: str) -> LabeledShapes:
        return LabeledShapes()


class SplitByHeight(PartSegmentation):
    """Predict the second part of a shape above a height, wherever the network sees the point."""

    def forward(self, clouds: Clouds, label: Tensor | None = None) -> Tensor:
        self.sizes.append(clouds.points.shape[1])
        above = clouds.points[..., 1] > 1.2
        return nn.functional.one_hot(2 * label[:, None] + above, 4).float()


@pytest.mark.parametrize("votes", [1, 2])
@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("num_points", [None, 64])
def test_iou_is_that_of_all_points_of_the_files(
    num_points: int | None, batch_size: int, votes: int
) -> None:
    data = LabeledShapesModule(
        ".", test_split="test", val_split="test", keys=PartSegmentation.keys,
        batch_size=batch_size, num_points=num_points,
    )  # fmt: skip
    task, shapes = SplitByHeight(toy(num_objects=2), optimizer=ADAMW, votes=votes), LabeledShapes()
    task.sizes = []
    task.set_class_names(shapes)
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    (validated,) = trainer.validate(task, data, verbose=False)
    trainer.test(task, data, verbose=False)
    expected = {}
    for index, name in enumerate(shapes.ids):
        cloud = shapes.cloud(index)
        predicted = 2 * (index % 2) + (cloud.points[:, 1] > 1.2)
        known = cloud.point_labels >= 0
        ious = []
        for part in shapes.parts[shapes.classes[index % 2]]:
            truth, guess = (labels[known] == part for labels in (cloud.point_labels, predicted))
            union = (truth | guess).sum()
            ious.append((truth & guess).sum() / union if union else 1.0)
        expected[name] = np.mean(ious)
    results = task.compute_results()
    assert results["ids"] == pytest.approx(expected)
    assert results["instance_miou"] == pytest.approx(np.mean([*expected.values()]))
    assert validated["val/instance_miou"] == pytest.approx(results["instance_miou"], abs=1e-6)
    assert results["points"] == sum(20 + 40 * index for index in range(6))
    assert (results["eval_points"], results["votes"]) == ("file", votes)
    assert {*task.sizes} == ({64} if num_points else {20 + 40 * index for index in range(6)})


def test_drawn_points_are_scored_on_request() -> None:
    data = LabeledShapesModule(
        ".", test_split="test", keys=PartSegmentation.keys, batch_size=2, num_points=64,
        eval_points="drawn",
    )  # fmt: skip
    task = SplitByHeight(toy(num_objects=2), optimizer=ADAMW)
    task.sizes = []
    task.set_class_names(LabeledShapes())
    Trainer(accelerator="cpu", logger=False, enable_progress_bar=False).test(
        task, data, verbose=False
    )
    results = task.compute_results()
    assert (results["points"], results["eval_points"]) == (6 * 64, "drawn")
    assert describe_points(results) == "drawn points of each shape"
    with pytest.raises(ValueError, match="votes must be at least 1, got 0"):
        PartSegmentation(toy(num_objects=2), optimizer=ADAMW, votes=0)


def test_rooms_are_scored_on_all_points_whatever_the_test_transform_keeps() -> None:
    class Rooms(LabeledShapes):
        parts = {}

    class RoomsModule(LabeledShapesModule):
        def read_part(self, part: str) -> Rooms:
            return Rooms()

    class ByHeight(SceneSegmentation):
        def forward(self, clouds: Clouds, label: Tensor | None = None) -> Tensor:
            return nn.functional.one_hot((clouds.points[..., 2] > 1).long(), 4).float()

    windows = SlidingWindowConfig(num_points=32, votes=2)
    data = RoomsModule(
        ".", test_split="test", keys=["point_labels"], batch_size=1,
        test_transform=RandomPointSample(12),
    )  # fmt: skip
    task = ByHeight(toy(), windows=windows, optimizer=ADAMW)
    task.set_class_names(Rooms())
    Trainer(accelerator="cpu", logger=False, enable_progress_bar=False).test(
        task, data, verbose=False
    )
    labeled = sum((Rooms().cloud(index).point_labels >= 0).sum() for index in range(6))
    assert task.compute_results()["points"] == labeled


@pytest.fixture(scope="module")
def parts_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        train(
            compose("train", ["experiment=partseg_furniture", "debug=tiny", f"output_dir={folder}"])
        )
    return folder


def test_part_segmentation_writes_results_pictures_and_report(parts_run: Path) -> None:
    results = json.loads((parts_run / "results.json").read_text())
    shapes = FurnitureParts("test")
    assert (results["task"], results["split"], results["seed"]) == ("part_segment", "test", 0)
    assert results["protocol"]["test_shapes"] == len(shapes) == 34
    metrics = {name: metric["value"] for name, metric in results["metrics"].items()}
    assert metrics["instance_miou"] == pytest.approx(sum(results["ids"].values()) / 34)
    ((protocol, details),) = results["protocols"].items()
    assert protocol == "mean over shapes, every point of each file"
    per_class = details["per_class"].values()
    assert metrics["class_miou"] == pytest.approx(sum(per_class) / len(per_class))
    assert (results["points"], results["protocol"]["eval_points"]) == (34 * 2048, "file")
    assert {"segments.png", "report.html"} <= {path.name for path in parts_run.iterdir()}
    assert (parts_run / "report.html").read_text().count("<canvas") == 9
    model = load(parts_run / "checkpoints" / "last.ckpt", task="part_segment")
    assert model.object_names == tuple(shapes.classes)
    assert model.parts["lamp"] == [25, 26, 27]


def test_wrong_number_of_classes_raises_value_error(tmp_path: Path) -> None:
    overrides = ["experiment=partseg_furniture", "debug=tiny", f"output_dir={tmp_path}"]
    for option, message in {
        "num_classes=27": "points have 28 classes, the network has 27",
        "num_object_classes=9": "data have 8 object classes, the network has 9",
    }.items():
        with initialize_config_dir(conf_dir(), version_base="1.3"):
            cfg = compose("train", [*overrides, option])
        with pytest.raises(ValueError, match=message):
            train(cfg)


def test_scene_segmentation_scores_rooms_and_single_windows(tmp_path: Path) -> None:
    write_s3dis(tmp_path / "data")
    overrides = [
        "experiment=semseg_rooms",
        "debug=tiny",
        f"data.root={tmp_path / 'data'}",
        "data.num_points=64",
        "data.split=[Area_1]",
    ]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("train", [*overrides, f"output_dir={tmp_path / 'run'}", "data.min_points=10"])
    train(cfg)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    rooms, windows = results["protocols"].values()
    assert set(results["protocols"]) == {"whole rooms, 3 votes", "single windows"}
    assert (results["task"], results["votes"]) == ("scene_segment", 3)
    assert results["metrics"]["miou"]["protocol"] == "whole rooms, 3 votes"
    assert results["metrics"]["miou/single_windows"]["protocol"] == "single windows"
    assert np.sum(rooms["confusion"]) == results["points"]
    assert np.sum(windows["confusion"]) >= results["points"]
    model = load(tmp_path / "run" / "checkpoints" / "last.ckpt", task="scene_segment")
    assert (model.up, model.channels, len(model.class_names)) == ("z", 9, 13)


def test_segmented_clouds_are_logged_to_wandb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    overrides = ["experiment=partseg_furniture", "debug=tiny", "logger=wandb"]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        train(compose("train", [*overrides, f"output_dir={tmp_path}"]))
    wandb.finish()
    clouds = sorted(tmp_path.rglob("*.pts.json"))
    assert len(clouds) == 9
    first = json.loads(clouds[0].read_text())
    assert len(first[0]) == 6
    assert len(first) == 2048


def test_class_colors_are_distinct() -> None:
    colors = color_by_class(np.arange(-1, 28)).astype(int)
    distance = np.abs(colors[1:-1] - colors[2:]).sum(1)
    assert distance.min() > 60
    assert len(np.unique(colors, axis=0)) == 29


@pytest.mark.parametrize(
    ("count", "names"), [(1, ["best"]), (2, ["best", "worst"]), (5, ["best", "median", "worst"])]
)
def test_pictures_show_the_best_median_and_worst_shape(count: int, names: list[str]) -> None:
    empty = torch.zeros(1, dtype=torch.long)
    clouds = [SegmentedCloud(str(n), n / 10, torch.zeros(1, 3), empty, empty) for n in range(count)]
    shown = pick_best_median_worst(clouds)
    assert [title.split(",")[0] for title, _ in shown] == names
    ious = [shape.iou for _, shape in shown]
    assert ious == sorted(ious, reverse=True)
    assert (ious[0], ious[-1]) == ((count - 1) / 10, 0)


def test_double_step_is_used_only_for_released_part_segmentation() -> None:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        double = [
            compose("train", [f"experiment={name}", f"eval.selection={selection}"]).task.double_step
            for name in ("partseg_shapenetpart", "semseg_s3dis")
            for selection in ("val", "test")
        ]
    assert double == [False, True, False, False]
