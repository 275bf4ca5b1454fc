from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from recon.entry import conf_dir
from recon.train import train
from trees import meshes

EXPERIMENTS = sorted(path.stem for path in (Path(conf_dir()) / "experiment").glob("*.yaml"))


def overrides(name: str, shapenet_root: Path, output_dir: Path) -> list[str]:
    meshes(shapenet_root / "own")
    extra = {"finetune_furniture": []}
    if name in extra:
        return [f"experiment={name}", "debug=tiny", f"output_dir={output_dir}", *extra[name]]
    dry = {
        "shapenet": ["teacher=untrained", f"data.root={shapenet_root}"],
        "furniture": ["~callbacks.report"],
        "folder": [f"data.root={shapenet_root / 'own'}"],
    }[name.split("_")[1]]
    return [f"experiment={name}", "debug=tiny", f"output_dir={output_dir}", *dry]


def run(arguments: list[str]) -> int:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("train", arguments)
    return train(cfg).global_step


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_runs_one_step(name: str, shapenet_root: Path, tmp_path: Path) -> None:
    assert run(overrides(name, shapenet_root, tmp_path / "run")) == 1
    assert (tmp_path / "run" / "metrics.csv").read_text().startswith("epoch,")
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()
    assert f"name: {name}" in (tmp_path / "run" / "config.yaml").read_text()


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
    arguments = overrides("pretrain_furniture", shapenet_root, tmp_path / "run")
    assert run([*arguments, *option.split()]) == 1


@pytest.mark.parametrize("experiment", ["pretrain_shapenet", "pretrain_shapenet_generative"])
def test_any_experiment_takes_a_folder_of_meshes(experiment: str, tmp_path: Path) -> None:
    meshes(tmp_path / "own")
    own = ["data=folder", f"data.root={tmp_path / 'own'}", "teacher=untrained"]
    own = own if experiment == "pretrain_shapenet" else own[:2]
    dry = [f"experiment={experiment}", "debug=tiny", f"output_dir={tmp_path / 'run'}"]
    assert run([*dry, *own]) == 1


@pytest.mark.parametrize("student", ["recon", "multitask", "generative", "contrastive"])
def test_the_five_compositions_differ_in_a_few_lines(student: str) -> None:
    group = Path(conf_dir()) / "experiment"
    file = "pretrain_shapenet" if student == "recon" else f"pretrain_shapenet_{student}"
    lines = (group / f"{file}.yaml").read_text().splitlines()
    assert len([line for line in lines if line and not line.startswith("#")]) <= 5


@pytest.mark.parametrize("model", ["tiny", "small", "base"])
def test_models_have_the_papers_sizes(model: str) -> None:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        sizes = compose("train", [f"model={model}"]).model
    assert (sizes.dim, sizes.heads) == {"tiny": (192, 3), "small": (256, 4), "base": (384, 6)}[
        model
    ]
    assert (sizes.depth, sizes.decoder_depth, sizes.groups, sizes.group_size) == (12, 4, 64, 32)


def test_the_default_is_the_papers_recipe() -> None:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("train", ["experiment=pretrain_shapenet"])
    assert (cfg.optimizer.lr, cfg.optimizer.weight_decay) == (5e-4, 0.05)
    assert (cfg.scheduler.warmup_t, cfg.scheduler.lr_min, cfg.trainer.max_epochs) == (10, 1e-6, 300)
    assert (cfg.data.batch_size, cfg.points, cfg.mask.ratio) == (128, 1024, 0.6)
    assert cfg.trainer.gradient_clip_val is None
    assert cfg.model.encoder.stop_gradient is True
    assert cfg.model.drop_path == 0.1
