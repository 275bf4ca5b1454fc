import json
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from recon.checkpoints.loading import build_metadata
from recon.checkpoints.reader import METADATA_KEY
from recon.cli.config_dir import conf_dir
from recon.evaluate import compute_fingerprint, evaluate
from recon.layers.grouping import PatchGrouper
from recon.models.encoder import Encoder
from recon.models.recon import ContrastiveNetwork, Projections
from recon.train import train
from trees import (
    write_few_shot_fold,
    write_meshes,
    write_modelnet,
    write_objaverse,
    write_s3dis,
    write_scanobjectnn,
    write_shapenetpart,
)

GROUP = Path(conf_dir()) / "experiment"
EXPERIMENTS = sorted(path.stem for path in GROUP.glob("*.yaml"))
EVALUATED = [name for name in EXPERIMENTS if name.startswith(("svm_", "zeroshot_"))]
TRAINED = [name for name in EXPERIMENTS if name not in EVALUATED]
TREES = {
    "modelnet40": lambda root: write_modelnet(root, points=600),
    "modelnet10": lambda root: write_modelnet(root, classes=10, points=600),
    "scanobjectnn": lambda root: write_scanobjectnn(root, 30),
    "objaverse": write_objaverse,
    "folder": write_meshes,
    "shapenetpart": write_shapenetpart,
    "s3dis": write_s3dis,
    "rooms": write_s3dis,
}


def write_data(name: str, root: Path) -> list[str]:
    """Write a small data set for an experiment; return the option that names it."""
    data = name.split("_")[1]
    if data == "furniture":
        return []
    if name == "fewshot_modelnet40":
        write_few_shot_fold(root, shot=10)
    else:
        TREES[data](root)
    return [f"data.root={root}"]


def build_overrides(name: str, shapenet_root: Path, output_dir: Path) -> list[str]:
    options = ["teacher=untrained", f"data.root={shapenet_root}"]
    if "pretrain_shapenet" not in name:
        options = write_data(name, output_dir.parent / "data")
    if name == "pretrain_furniture":
        options.append("~callbacks.report")
    if name.startswith(("finetune", "fewshot")):
        options.append("eval.votes=0")
    if "modelnet" in name:  # 600 points, or 64
        options += ["num_points=32", "transform=furniture", "eval.val.val_share=0.5"]
    if name == "finetune_folder":
        options += [
            "data.split=all",
            "data.test_split=all",
            "data.num_points=1300",
            "data.num_surface_points=1300",
        ]
        options += ["eval.selection=last"]
    if name.startswith("semseg"):
        options += ["data.split=[Area_1]", "data.num_points=64", "task.windows.votes=1"]
    return [f"experiment={name}", "debug=tiny", f"output_dir={output_dir}", *options]


def run_train(arguments: list[str]) -> int:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("train", arguments)
    return train(cfg).global_step


@pytest.mark.parametrize("name", TRAINED)
def test_experiment_runs_one_step(name: str, shapenet_root: Path, tmp_path: Path) -> None:
    assert run_train(build_overrides(name, shapenet_root, tmp_path / "run")) == 1
    assert (tmp_path / "run" / "metrics.csv").read_text().startswith("epoch,")
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()
    assert (tmp_path / "run" / "results.json").is_file() == (not name.startswith("pretrain"))
    assert f"name: {name}" in (tmp_path / "run" / "config.yaml").read_text()


@pytest.fixture(scope="module")
def toy_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a toy checkpoint with projected queries as wide as the teachers of the evaluations."""
    torch.manual_seed(0)
    encoder = Encoder(24, depth=2, heads=2, patch_widths=(8, 16, 16))
    grouper, widths = PatchGrouper(8, 8), {"image": 512, "text": 512}
    network = ContrastiveNetwork(grouper, encoder, Projections(24, widths))
    state = {f"model.{name}": value for name, value in network.state_dict().items()}
    path = tmp_path_factory.mktemp("weights") / "toy.ckpt"
    torch.save({METADATA_KEY: build_metadata(network), "state_dict": state}, path)
    return path


# Each of these builds a CLIP network without weights.
SLOW = {
    "zeroshot_modelnet10",
    "zeroshot_modelnet40",
    "zeroshot_scanobjectnn",
    "zeroshot_objaverse_lvis",
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in EVALUATED],
)
def test_evaluation_writes_results_with_a_fingerprint(
    name: str, toy_weights: Path, tmp_path: Path
) -> None:
    options = write_data(name, tmp_path / "data")
    if name == "zeroshot_furniture":
        options.append("task.query=image")
    elif name.startswith("zeroshot"):
        options.append("task.class_features.teacher.weights=null")
    small = ["num_points=256", "data.num_workers=0", "network.num_groups=8", "network.group_size=8"]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose(
            "evaluate",
            [
                f"experiment={name}",
                f"checkpoint={toy_weights}",
                f"output_dir={tmp_path}",
                *small,
                *options,
            ],
        )
    if name == "zeroshot_furniture":
        with pytest.raises(ValueError, match="class features have width 384, projected"):
            evaluate(cfg)
        return
    scores = evaluate(cfg)
    results = json.loads((tmp_path / "results.json").read_text())
    interval = scores.overall_accuracy
    assert results["metrics"]["overall_accuracy"] == {
        "value": interval.mean, "low": interval.low, "high": interval.high,
    }  # fmt: skip
    assert results["protocol"]["test_shapes"] == int(scores.confusion_matrix.sum())
    assert results["fingerprint"] == compute_fingerprint(results["protocol"])
    assert compute_fingerprint({**results["protocol"], "points": 512}) != results["fingerprint"]


@pytest.mark.parametrize("name", [n for n in EXPERIMENTS if "furniture" not in n])
def test_experiments_state_their_published_result(name: str) -> None:
    head = (GROUP / f"{name}.yaml").read_text()
    is_unpublished = name.startswith("pretrain") or name in ("semseg_rooms", "finetune_folder")
    assert is_unpublished or "Published: " in head


@pytest.mark.parametrize(
    "option",
    [
        "student=generative", "student=contrastive", "student=multitask", "student=two_towers",
        "mask=block", "loss/reconstruction=chamfer_l1", "loss/distillation=cosine",
        "loss/distillation=siglip", "loss/distillation=smooth_l1",
        "loss/self_contrast=by_category", "loss/self_contrast=by_view", "logger=wandb",
        "student=two_towers loss/self_contrast=by_view", "callbacks=within_epochs",
    ],
)  # fmt: skip
def test_option_runs_one_step(
    option: str, shapenet_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")
    arguments = build_overrides("pretrain_furniture", shapenet_root, tmp_path / "run")
    assert run_train([*arguments, *option.split()]) == 1


@pytest.mark.parametrize("experiment", ["pretrain_shapenet", "pretrain_shapenet_generative"])
def test_pretraining_accepts_a_folder_of_meshes(experiment: str, tmp_path: Path) -> None:
    write_meshes(tmp_path / "meshes")
    data = ["data=folder", f"data.root={tmp_path / 'meshes'}", "teacher=untrained"]
    data = data if experiment == "pretrain_shapenet" else data[:2]
    options = [f"experiment={experiment}", "debug=tiny", f"output_dir={tmp_path / 'run'}"]
    assert run_train([*options, *data]) == 1


@pytest.mark.parametrize("student", ["recon", "multitask", "generative", "contrastive"])
def test_pretraining_experiments_are_short(student: str) -> None:
    group = Path(conf_dir()) / "experiment"
    file = "pretrain_shapenet" if student == "recon" else f"pretrain_shapenet_{student}"
    lines = (group / f"{file}.yaml").read_text().splitlines()
    assert len([line for line in lines if line and not line.startswith("#")]) <= 5


@pytest.mark.parametrize("model", ["tiny", "small", "base"])
def test_models_have_the_sizes_of_the_paper(model: str) -> None:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        sizes = compose("train", [f"model={model}"]).model
    assert (sizes.dim, sizes.heads) == {"tiny": (192, 3), "small": (256, 4), "base": (384, 6)}[
        model
    ]
    assert (sizes.depth, sizes.decoder_depth, sizes.groups, sizes.group_size) == (12, 4, 64, 32)


def test_defaults_are_the_recipe_of_the_paper() -> None:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("train", ["experiment=pretrain_shapenet"])
    assert (cfg.optimizer.lr, cfg.optimizer.weight_decay) == (5e-4, 0.05)
    assert (cfg.scheduler.warmup_t, cfg.scheduler.lr_min, cfg.trainer.max_epochs) == (10, 1e-6, 300)
    assert (cfg.data.batch_size, cfg.num_points, cfg.mask.ratio) == (128, 1024, 0.6)
    assert cfg.trainer.gradient_clip_val is None
    assert cfg.model.encoder.stop_gradient is True
    assert cfg.model.drop_path == 0.1
