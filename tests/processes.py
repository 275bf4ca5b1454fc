"""Train the cases of test_processes.py with a number of processes."""

import sys
from pathlib import Path

from hydra import compose, initialize_config_dir

from recon.cli.config_dir import conf_dir
from recon.train import train

TOY = ["debug=tiny", "trainer.limit_train_batches=null", "trainer.max_steps=20",
       "trainer.max_epochs=20", "+trainer.sync_batchnorm=true"]  # fmt: skip
UNEVEN = ["data.drop_last=false", "trainer.precision=64-true"]
CASES: dict[str, tuple[int, list[str]]] = {
    # The paper's student on cached teachers, in single precision.
    "pretrain": (4, ["experiment=pretrain_furniture", "~callbacks.report"]),
    # Epochs end with incomplete batches of 9 and 8 samples.
    "views": (9, ["experiment=pretrain_furniture", "~callbacks.report", "data.split=train",
                   "loss/distillation=siglip", "loss/self_contrast=by_view", "mask=block",
                   *UNEVEN]),
    "categories": (9, ["experiment=pretrain_furniture", "~callbacks.report", "data.split=train",
                        "loss/distillation=smooth_l1", "loss/self_contrast=by_category",
                        "student=two_towers", "trainer.gradient_clip_val=1.0", "probe=furniture",
                        "callbacks.linear_probe.every_n_epochs=1", *UNEVEN]),
    "classify": (8, ["experiment=finetune_furniture", "eval.votes=2", *UNEVEN]),
    "parts": (3, ["experiment=partseg_furniture", "data.val_split=test", "trainer.max_steps=6",
                   "data.num_points=256", *UNEVEN]),
    "rooms": (4, ["experiment=semseg_rooms", "data.split=[Area_1]", "data.num_points=64",
                  "data.test_split=[Area_2,Area_5,Area_6]",
                  "task.windows.votes=2", "trainer.max_steps=6", *UNEVEN]),
}  # fmt: skip
"""Runs to compare: batch size of each of two processes, and options."""


def run(out: Path, rooms: str, ranks: int) -> None:
    """Train each case as one of `ranks` processes."""
    distributed = ["trainer.strategy=ddp_find_unused_parameters_true", f"trainer.devices={ranks}"]
    for name, (size, options) in CASES.items():
        arguments = [
            *TOY,
            *options,
            f"data.batch_size={2 * size // ranks}",
            f"output_dir={out / name}",
        ]
        arguments += [f"data.root={rooms}"] if name == "rooms" else []
        with initialize_config_dir(conf_dir(), version_base="1.3"):
            train(compose("train", [*arguments, *distributed] if ranks > 1 else arguments))


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
