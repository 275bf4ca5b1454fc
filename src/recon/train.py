"""Pretrain: python -m recon.train experiment=pretrain_shapenet data.root=<ShapeNet55-34>."""

from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig, OmegaConf

from recon.entry import conf_dir, keep_large_blocks, one_line_errors, quiet

if TYPE_CHECKING:
    from lightning import Trainer


def train(cfg: DictConfig) -> "Trainer":
    """Build task, data and trainer from a composed configuration, and train."""
    if cfg.ckpt_path and not Path(cfg.ckpt_path).is_file():
        raise FileNotFoundError(f"{cfg.ckpt_path}: no such checkpoint to resume from")
    _ = cfg.started  # its clock runs from here
    # Imported here: they take seconds, which --help and a misspelt option need not wait for.
    from hydra.utils import instantiate
    from lightning import seed_everything

    from recon.models.checkpoint import check_resumable
    from recon.models.inference import compile_parts

    quiet()
    keep_large_blocks()
    seed_everything(cfg.seed, verbose=False)
    data = instantiate(cfg.data, _convert_="all")
    data.setup("fit")  # what is missing is said before teachers are fetched
    if "eval" in cfg and data.test_split is None:
        raise ValueError(
            f"nothing to test on: set data.test_split to one of {', '.join(data.splits)}"
        )
    if cfg.classes is None:
        of_points = cfg.classes_of == "points"
        cfg.classes = len(data.dataset.point_classes if of_points else data.dataset.classes)
    if "object_classes" in cfg and cfg.object_classes is None:
        cfg.object_classes = len(data.dataset.classes)
    OmegaConf.resolve(cfg)
    task = instantiate(cfg.task, _convert_="all")
    data.keys |= task.keys
    if cfg.ckpt_path:
        check_resumable(Path(cfg.ckpt_path), task)
    if cfg.compile:
        compile_parts(task.model)
    callbacks = [instantiate(callback, _convert_="all") for callback in cfg.callbacks.values()]
    trainer = instantiate(
        cfg.trainer, callbacks=callbacks, logger=instantiate(cfg.logger), _convert_="all"
    )
    _save(cfg)
    trainer.fit(task, data, ckpt_path=cfg.ckpt_path)
    if "eval" in cfg:
        # The test split is read here for the first time, by the checkpoint that the validation
        # split selected, or the last one where nothing selects.
        selected = getattr(trainer.checkpoint_callback, "monitor", None) is not None
        trainer.test(task, data, ckpt_path="best" if selected else None, verbose=False)
    return trainer


def train_seeds(cfg: DictConfig) -> None:
    """Train once for each of `seeds`, in folders of their own; print mean and deviation."""
    from recon.sweep import collect, show

    if cfg.ckpt_path:
        raise ValueError("one checkpoint resumes one run: set seed, not seeds")
    if len(set(cfg.seeds)) < len(cfg.seeds) or not cfg.seeds:
        raise ValueError(f"seeds must be different numbers, got {list(cfg.seeds)}")
    folder = Path(cfg.output_dir)
    for seed in cfg.seeds:
        one = deepcopy(cfg)
        one.seed, one.seeds, one.output_dir = seed, None, str(folder / f"seed_{seed}")
        train(one)
    show(collect({"": [folder / f"seed_{seed}" for seed in cfg.seeds]}), folder)


def _save(cfg: DictConfig) -> None:
    """Print the resolved configuration and keep it in the run's folder."""
    from rich import print as show
    from rich.syntax import Syntax

    text = OmegaConf.to_yaml(cfg)
    folder = Path(cfg.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(text)
    show(Syntax(text, "yaml", background_color="default"))


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="train")
def main(cfg: DictConfig) -> None:
    """Train as the command line says; wrong input ends in one line."""
    from hydra.core.hydra_config import HydraConfig

    cfg.output_dir = HydraConfig.get().runtime.output_dir  # each job of a sweep has its own
    with one_line_errors():
        if cfg.seeds is None:
            train(cfg)
        else:
            train_seeds(cfg)


if __name__ == "__main__":
    main()
