import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir

from recon.checkpoints.reader import METADATA_KEY
from recon.checkpoints.resuming import (
    FIXED_OPTIONS,
    STATE_KEY,
    check_resumable,
    describe_changes,
    find_changes,
    find_fixed_rule,
)
from recon.cli.config_dir import conf_dir
from recon.layers.grouping import PatchGrouper
from recon.models.decoder import Decoder
from recon.models.encoder import Encoder
from recon.models.recon import Projections, ReCon

DOCS = Path(__file__).parents[2] / "docs" / "faults.md"


@pytest.fixture(scope="module")
def model() -> ReCon:
    return ReCon(
        PatchGrouper(8, 6),
        Encoder(16, depth=2, heads=2, queries=(), patch_widths=(8, 16, 24)),
        Decoder(16, depth=1, heads=2, group_size=6),
        Projections(16, {}),
    )


def build_checkpoint(model: ReCon) -> dict[str, Any]:
    return {
        METADATA_KEY: {},
        "state_dict": model.state_dict(),
        "loops": {},
        "callbacks": {},
        "optimizer_states": [],
        "lr_schedulers": [],
        "epoch": 1,
        "global_step": 2,
    }


@pytest.mark.parametrize("name", ["optimizer_states", "loops", "callbacks", "lr_schedulers"])
def test_checkpoints_with_incomplete_training_state_raise_value_error(
    name: str, model: ReCon, tmp_path: Path
) -> None:
    checkpoint = build_checkpoint(model)
    torch.save(checkpoint, tmp_path / "last.ckpt")
    check_resumable(tmp_path / "last.ckpt", model)
    torch.save(checkpoint | {name: 3}, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=rf"last\.ckpt: its `{name}` is not that of a training"):
        check_resumable(tmp_path / "last.ckpt", model)


@pytest.mark.parametrize(
    ("option", "rule"),
    [
        ("model.heads", "model"), ("model.encoder.depth", "model"), ("model.drop_path", None),
        ("task.model.encoder.drop_path", None), ("task.model.grouper.groups", "task.model"),
        ("checkpoint", "checkpoint"), ("data.batch_size", None), ("data.split", "data.split"),
        ("optimizer.lr", None), ("optimizer._target_", "optimizer._target_"), ("seed", "seed"),
        ("trainer.max_epochs", None), ("scheduler.t_initial", None), ("data.seed", "data.seed"),
    ],
)  # fmt: skip
def test_options_of_the_network_the_samples_and_the_optimizer_are_fixed(
    option: str, rule: str | None
) -> None:
    assert find_fixed_rule(option) == rule


def test_a_fixed_option_that_changes_is_refused_with_both_values(
    model: ReCon, tmp_path: Path
) -> None:
    path = tmp_path / "last.ckpt"
    old = {"seed": 0, "checkpoint": "a.ckpt", "model": {"heads": 2}, "optimizer": {"lr": 1.0}}
    torch.save(build_checkpoint(model) | {STATE_KEY: {"options": old}}, path)
    check_resumable(path, model, options=old | {"optimizer": {"lr": 2.0}, "checkpoint": None})
    for changed, message in (
        ({"seed": 1}, rf"seed=1: cannot change on resuming, {path} was trained with seed=0"),
        ({"model": {"heads": 4}}, r"model.heads=4: cannot change.*checkpoint=.* instead of ckpt"),
        ({"checkpoint": "b.ckpt"}, "checkpoint=b.ckpt: cannot change .*checkpoint=a.ckpt"),
    ):
        with pytest.raises(ValueError, match=message):
            check_resumable(path, model, options=old | changed)


@pytest.mark.parametrize(("name", "limit"), [("max_epochs", 3), ("max_steps", 1)])
def test_limits_below_what_was_trained_are_refused(
    name: str, limit: int, model: ReCon, tmp_path: Path
) -> None:
    position = {"epoch": 3, "consumed_samples": 8, "epoch_size": 8, "is_complete": True}
    state = {"position": position | {"batch_limit": None, "ids_digest": ""}, "options": {}}
    torch.save(build_checkpoint(model) | {STATE_KEY: state}, tmp_path / "last.ckpt")
    check_resumable(tmp_path / "last.ckpt", model, options={"trainer": {name: limit + 1}})
    with pytest.raises(ValueError, match=rf"trainer\.{name}={limit}: .* for {limit + 1} already"):
        check_resumable(tmp_path / "last.ckpt", model, options={"trainer": {name: limit}})


def test_changes_are_found_by_dotted_name_and_described_without_derived_options() -> None:
    old = {"trainer": {"max_epochs": 4, "precision": "32-true"}, "task": {"x": 1}, "old": 1}
    new = {"trainer": {"max_epochs": 12, "precision": "32-true"}, "task": {"x": 2}, "new": 1}
    changes = find_changes(old, new)
    assert changes == {"trainer.max_epochs": (4, 12), "task.x": (1, 2)}
    assert describe_changes(changes) == "trainer.max_epochs 4 -> 12"


def test_the_documented_table_lists_every_fixed_option_and_every_group() -> None:
    section = DOCS.read_text().partition("## Resume with other options")[2].partition("\n## ")[0]
    documented = set(re.findall(r"`([\w.]+)`", section))
    assert documented >= FIXED_OPTIONS.keys()
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        groups = set(compose("train", ["experiment=finetune_furniture"]))
    internal = {"ckpt_path", "started"}
    assert {name.partition(".")[0] for name in documented} >= groups - internal
