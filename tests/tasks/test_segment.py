"""Fine-tuning segmenters: groups, ignored points, what tests leave, files of pictures."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import wandb
from hydra import compose, initialize_config_dir
from torch import Tensor, nn

from conftest import released_json
from recon.checkpoints.loading import load
from recon.checkpoints.official_keys import to_official_key
from recon.cli.config_dir import conf_dir
from recon.data.batch import Batch
from recon.data.datasets.furniture_parts import FurnitureParts
from recon.layers.grouping import PatchGrouper
from recon.models.encoder import Encoder
from recon.models.segmenter import Segmenter
from recon.reports.colors import color_by_class
from recon.reports.segmentation import pick_best_median_worst
from recon.tasks.scene import SceneSegmentation
from recon.tasks.segment import PartSegmentation, SegmentedCloud
from recon.tasks.sliding_windows import SlidingWindowConfig
from recon.train import train
from trees import s3dis

ADAMW = partial(torch.optim.AdamW, lr=1e-4, weight_decay=0.05)


def toy(**settings: object) -> Segmenter:
    torch.manual_seed(0)
    encoder = Encoder(24, depth=2, heads=2, patch_widths=(8, 16, 16))
    small = {"hidden": 16, "widths": (16, 16, 8)}
    return Segmenter(PatchGrouper(8, 8), encoder, 4, **{**small, **settings})


def test_groups_are_the_released_ones() -> None:
    with torch.device("meta"):
        model = Segmenter(PatchGrouper(128, 32), Encoder(384), 50, num_objects=16)
    task = PartSegmentation(model, optimizer=ADAMW)
    groups = task.configure_optimizers().param_groups
    names = {id(p): n.removeprefix("model.") for n, p in task.named_parameters()}
    released = released_json("param_groups.json")["partseg"]
    assert len(groups) == len(released)
    for ours, theirs in zip(groups, released, strict=True):
        assert {to_official_key(names[id(p)], "segment") for p in ours["params"]} == set(
            theirs["names"]
        )
        assert (ours["lr"], ours["weight_decay"]) == (
            pytest.approx(theirs["initial_lr"]),
            theirs["weight_decay"],
        )


def batch(labels: Tensor) -> Batch:
    torch.manual_seed(1)
    points = torch.randn(len(labels), labels.shape[1], 3)
    label = torch.zeros(len(labels), dtype=torch.long)
    return {"points": points, "point_labels": labels, "label": label}


def loss_of(task: PartSegmentation, labels: Tensor) -> Tensor:
    task.log = lambda *_, **__: None
    return task.eval().training_step(batch(labels), 0)


def test_points_without_a_label_teach_nothing() -> None:
    task = PartSegmentation(toy(num_objects=2), optimizer=ADAMW)
    labels = torch.randint(0, 4, (2, 40))
    hidden = labels.clone()
    hidden[:, :30] = -1
    scores = task.eval()(_clouds(batch(labels)), torch.zeros(2, dtype=torch.long))
    known = nn.functional.nll_loss(scores[:, 30:].flatten(0, 1), labels[:, 30:].flatten())
    assert torch.allclose(loss_of(task, hidden), known)


def _clouds(some: Batch):  # noqa: ANN202
    from recon.data.batch import get_clouds

    return get_clouds(some)


def test_rare_classes_weigh_by_the_cube_root() -> None:
    task = SceneSegmentation(toy(), windows=SlidingWindowConfig(), optimizer=ADAMW)

    class Columns(FurnitureParts):
        point_classes = list("abcd")
        label_counts = np.array([800, 100, 100, 0])

        def __init__(self) -> None: ...

    task.set_class_names(Columns())
    assert task.class_weights.tolist() == pytest.approx([1.0, 2.0, 2.0, 800 ** (1 / 3)], rel=1e-5)
    assert task.model.class_names == ("a", "b", "c", "d")


def test_a_double_step_repeats_the_step_on_the_same_gradients() -> None:
    once, twice = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    for parameter, double in ((once, False), (twice, True)):
        task = PartSegmentation(toy(num_objects=2), optimizer=ADAMW, double_step=double)
        optimizer = torch.optim.SGD([parameter], lr=0.5)
        parameter.grad = torch.ones(2)
        task.optimizer_step(0, 0, optimizer, lambda: None)
    assert once.tolist() == [0.5, 0.5]
    assert twice.tolist() == [0.0, 0.0]


@pytest.fixture(scope="module")
def parts_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        train(
            compose("train", ["experiment=partseg_furniture", "debug=tiny", f"output_dir={folder}"])
        )
    return folder


def test_a_tested_part_segmenter_leaves_figures_and_pictures(parts_run: Path) -> None:
    found = json.loads((parts_run / "results.json").read_text())
    shapes = FurnitureParts("test")
    assert found["shapes"] == len(shapes) == 34
    assert found["instance_miou"] == pytest.approx(sum(found["ids"].values()) / 34)
    per_class = found["per_class"]
    assert found["class_miou"] == pytest.approx(sum(per_class.values()) / len(per_class))
    assert {"segments.png", "report.html"} <= {path.name for path in parts_run.iterdir()}
    assert (parts_run / "report.html").read_text().count("<canvas") == 9
    model = load(parts_run / "checkpoints" / "last.ckpt", task="part_segment")
    assert model.object_names == tuple(shapes.classes)
    assert model.parts["lamp"] == [25, 26, 27]


def test_classes_of_another_number_are_named(tmp_path: Path) -> None:
    told = ["experiment=partseg_furniture", "debug=tiny", f"output_dir={tmp_path}"]
    for wrong, why in {
        "num_classes=27": "points have 28 classes, the network 27",
        "num_object_classes=9": "there are 8 classes of objects, the network knows 9",
    }.items():
        with initialize_config_dir(conf_dir(), version_base="1.3"):
            cfg = compose("train", [*told, wrong])
        with pytest.raises(ValueError, match=why):
            train(cfg)


def test_a_tested_scene_segmenter_has_both_figures(tmp_path: Path) -> None:
    s3dis(tmp_path / "data")
    told = [
        "experiment=semseg_rooms",
        "debug=tiny",
        f"data.root={tmp_path / 'data'}",
        "data.num_points=64",
        "data.split=[Area_1]",
    ]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("train", [*told, f"output_dir={tmp_path / 'run'}", "data.min_points=10"])
    train(cfg)
    found = json.loads((tmp_path / "run" / "results.json").read_text())
    merged, single = found["results"].values()
    assert set(found["results"]) == {"whole rooms, 3 votes", "single windows"}
    assert np.sum(merged["confusion"]) == found["points"]
    assert np.sum(single["confusion"]) >= found["points"]
    model = load(tmp_path / "run" / "checkpoints" / "last.ckpt", task="scene_segment")
    assert (model.up, model.channels, len(model.class_names)) == ("z", 9, 13)


def test_wandb_gets_clouds_to_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    told = ["experiment=partseg_furniture", "debug=tiny", "logger=wandb", f"output_dir={tmp_path}"]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        train(compose("train", told))
    wandb.finish()
    clouds = sorted(tmp_path.rglob("*.pts.json"))
    assert len(clouds) == 9
    first = json.loads(clouds[0].read_text())
    assert len(first[0]) == 6
    assert len(first) == 2048


def test_colours_tell_neighbouring_classes_apart() -> None:
    colors = color_by_class(np.arange(-1, 28)).astype(int)
    distance = np.abs(colors[1:-1] - colors[2:]).sum(1)
    assert distance.min() > 60
    assert len(np.unique(colors, axis=0)) == 29


@pytest.mark.parametrize(
    ("count", "names"), [(1, ["best"]), (2, ["best", "worst"]), (5, ["best", "median", "worst"])]
)
def test_pictures_show_the_extremes(count: int, names: list[str]) -> None:
    empty = torch.zeros(1, dtype=torch.long)
    tested = [SegmentedCloud(str(n), n / 10, torch.zeros(1, 3), empty, empty) for n in range(count)]
    shown = pick_best_median_worst(tested)
    assert [title.split(",")[0] for title, _ in shown] == names
    ious = [shape.iou for _, shape in shown]
    assert ious == sorted(ious, reverse=True)
    assert (ious[0], ious[-1]) == ((count - 1) / 10, 0)


def test_only_parts_step_twice_as_released() -> None:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        double = [
            compose("train", [f"experiment={name}", f"eval.selection={protocol}"]).task.double_step
            for name in ("partseg_shapenetpart", "semseg_s3dis")
            for protocol in ("val", "test")
        ]
    assert double == [False, True, False, False]
