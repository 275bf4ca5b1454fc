"""Fine-tuning: what is trained at which rate, what stays frozen, what a test may read."""

import json
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from lightning import Trainer
from torch import nn

from conftest import released_json, released_path
from recon.callbacks.checkpoints import SelectedCheckpoint
from recon.checkpoints.loading import load
from recon.checkpoints.official_keys import to_official_key
from recon.checkpoints.transfer import build_classifier, load_pretrained_encoder
from recon.cli.config_dir import conf_dir
from recon.data.datasets.furniture import Furniture, FurnitureDataModule
from recon.data.splits import split_train_val
from recon.data.transforms import RandomScale
from recon.evaluate import evaluate
from recon.layers.grouping import PatchGrouper
from recon.models.classifier import Classifier
from recon.models.encoder import Encoder
from recon.models.heads import linear_head, mlp_head
from recon.tasks.classify import Classification
from recon.tasks.metrics import classification_scores
from recon.tasks.optim import build_finetune_optimizer
from recon.train import train

SGD = partial(torch.optim.SGD, lr=0.1)
ADAMW = partial(torch.optim.AdamW, lr=2e-5, weight_decay=0.05)


def toy(dim: int = 24, depth: int = 2, classes: int = 26, head=mlp_head) -> Classifier:  # noqa: ANN001
    torch.manual_seed(0)
    encoder = Encoder(dim, depth=depth, heads=2, patch_widths=(8, 16, 16))
    return Classifier(PatchGrouper(8, 8), encoder, classes, head=head)


@pytest.mark.parametrize(
    ("kind", "head", "frozen"),
    [
        ("cls_full", mlp_head, False),
        ("cls_mlp3", mlp_head, True),
        ("cls_linear", linear_head, True),
    ],
)
def test_groups_are_the_released_ones(kind: str, head: object, frozen: bool) -> None:
    with torch.device("meta"):
        model = Classifier(PatchGrouper(64, 32), Encoder(384), 15, head=head)
    task = Classification(model, optimizer=ADAMW, freeze_encoder=frozen)
    optimizer = task.configure_optimizers()
    names = {id(p): n.removeprefix("model.") for n, p in task.named_parameters()}
    released = [group for group in released_json("param_groups.json")[kind] if group["names"]]
    assert len(optimizer.param_groups) == len(released)
    for ours, theirs in zip(optimizer.param_groups, released, strict=True):
        found = {to_official_key(names[id(p)], "classify") for p in ours["params"]}
        assert found == set(theirs["names"])
        assert ours["weight_decay"] == theirs["weight_decay"]
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates == pytest.approx([2e-4, 2e-5, 2e-5][: len(rates)])


def test_what_is_frozen_neither_learns_nor_moves() -> None:
    task = Classification(toy(), optimizer=SGD, freeze_encoder=True)
    before = {k: v.clone() for k, v in task.model.state_dict().items()}
    task.train()
    optimizer = task.configure_optimizers()
    batch = {"points": torch.randn(4, 64, 3), "label": torch.arange(4)}
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(task(batch["points"]), batch["label"]).backward()
        optimizer.step()
    moved = {k for k, v in task.model.state_dict().items() if not torch.equal(v, before[k])}
    assert all(k.startswith("head.") or k.endswith((".cls",)) for k in moved)
    assert "encoder.queries.tokens.cls" in moved
    assert "head.8.weight" in moved
    full = Classification(toy(), optimizer=SGD).train()
    assert full.model.encoder.training


def test_a_vote_is_the_mean_of_its_views() -> None:
    task = Classification(toy(), optimizer=SGD, vote_view=RandomScale(), votes=3).eval()
    points, generator = torch.randn(2, 64, 3), torch.Generator().manual_seed(5)
    voted = task._voted(points, generator)
    generator.manual_seed(5)
    views = [task(RandomScale()(points, generator)) for _ in range(3)]
    assert torch.allclose(voted, sum(views) / 3, atol=1e-6)
    with pytest.raises(ValueError, match="votes need a `vote_view`"):
        Classification(toy(), optimizer=SGD, votes=10)


def test_held_out_shapes_share_no_family_with_the_others() -> None:
    data = Furniture(["train"])
    train_set, held = split_train_val(data, 0.2, seed=0)
    assert sorted([*train_set.ids, *held.ids]) == sorted(data.ids)
    assert 0.1 < len(held) / len(data) < 0.3
    assert not set(train_set.families) & set(held.families)
    assert list(split_train_val(data, 0.2, seed=0)[1].ids) == list(held.ids)
    assert list(split_train_val(data, 0.2, seed=1)[1].ids) != list(held.ids)
    with pytest.raises(ValueError, match=r"must lie in \(0, 0.5\], got 0.7"):
        split_train_val(data, 0.7, seed=0)


class Watched(Furniture):
    """Records of which split labels are read."""

    read: list[str] = []

    def __init__(self, splits: Sequence[str], **settings: object) -> None:
        self.name = splits[0]
        super().__init__(splits, **settings)

    @property
    def labels(self) -> np.ndarray:
        Watched.read.append(self.name)
        return self.kept

    @labels.setter
    def labels(self, value: np.ndarray) -> None:
        self.kept = value


def test_no_test_label_is_touched_before_the_final_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recon.data.datasets.furniture.Furniture", Watched)
    Watched.read.clear()
    data = FurnitureDataModule(
        split="train", test_split="test", val_share=0.2, keys=["label"], batch_size=64
    )
    task = Classification(toy(), optimizer=SGD)
    quick = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False,
             "enable_progress_bar": False, "enable_model_summary": False}  # fmt: skip
    trainer = Trainer(max_epochs=1, limit_train_batches=1, **quick)
    trainer.fit(task, data)
    assert "train" in Watched.read
    assert "test" not in Watched.read
    trainer.test(task, data, verbose=False)
    assert "test" in Watched.read
    assert len(task.ids) == 141


def test_an_encoder_starts_from_a_pretrained_network() -> None:
    path = released_path("recon_pretrain_small.pth")
    pretrained = load(path, num_heads=3, num_groups=64).encoder.state_dict()
    encoder = Encoder(96, depth=4, heads=3)
    model = build_classifier(PatchGrouper(64, 32), encoder, 15, checkpoint=path)
    assert all(torch.equal(v, pretrained[k]) for k, v in model.encoder.state_dict().items())
    assert not model.encoder.stop_gradient


@pytest.mark.parametrize("wrong", [{"dim": 48}, {"depth": 3}, {"depth": 5}])
def test_a_pretrained_network_of_other_sizes_is_refused(wrong: dict[str, int]) -> None:
    sizes = {"dim": 96, "depth": 4, "heads": 3, **wrong}
    with pytest.raises(ValueError, match=r"small.pth: its encoder is 96 wide .*give the model's"):
        load_pretrained_encoder(released_path("recon_pretrain_small.pth"), Encoder(**sizes))


def test_scores_are_their_definitions() -> None:
    rng = np.random.default_rng(0)
    logits, labels = (
        torch.from_numpy(rng.normal(size=(200, 6))),
        torch.from_numpy(rng.integers(0, 5, 200)),
    )
    found = classification_scores(logits, labels)
    predicted = logits.argmax(1)
    assert found.overall_accuracy.mean == pytest.approx((predicted == labels).double().mean())
    own = [(predicted[labels == c] == c).double().mean().item() for c in range(5)]
    assert found.mean_class_accuracy == pytest.approx(np.mean(own), abs=1e-6)
    assert found.per_class_accuracy[:5].tolist() == pytest.approx(own, abs=1e-6)
    assert found.per_class_accuracy[5].isnan()
    for k, share in found.top_k_accuracy.items():
        hit = (logits.topk(k, dim=1).indices == labels[:, None]).any(1)
        assert share == pytest.approx(hit.double().mean().item(), abs=1e-6)
    for truth in range(6):
        for guess in range(6):
            count = ((labels == truth) & (predicted == guess)).sum()
            assert found.confusion_matrix[truth, guess] == count
    with pytest.raises(ValueError, match="label 4 is none of the 3 classes of the model"):
        classification_scores(logits[:, :3], labels)


@pytest.mark.parametrize(
    "options", [["protocol=linear"], ["eval.selection=test", "eval.test.vote_rounds=3"]]
)
def test_results_carry_their_protocol(options: list[str], tmp_path: Path) -> None:
    dry = ["experiment=finetune_furniture", "debug=tiny", f"output_dir={tmp_path}", "eval.votes=2"]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("train", [*dry, *options])
    train(cfg)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["selection"] == cfg.eval.selection
    assert results["test_shapes"] == 141
    rows = ["one view", "one vote of 2 views"]
    if cfg.eval.selection == "test":
        rows.append("best of 3 votes, chosen by test labels")
    assert list(results["results"]) == rows
    total = np.sum(results["results"]["one view"]["confusion"])
    assert total == 141


def test_the_head_alone_may_be_trained() -> None:
    optimizer = build_finetune_optimizer(nn.Linear(2, 2), SGD, lambda name: True)
    assert [group["lr"] for group in optimizer.param_groups] == [1.0]


def learn(data: FurnitureDataModule, classes: int) -> None:
    quick = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False,
             "enable_progress_bar": False, "enable_model_summary": False}  # fmt: skip
    Trainer(max_epochs=1, limit_train_batches=1, **quick).fit(
        Classification(toy(classes=classes), optimizer=SGD), data
    )


def test_classes_that_cannot_be_learned_are_named() -> None:
    data = FurnitureDataModule(split="train", keys=["label"])
    with pytest.raises(ValueError, match="has 26 classes, the classifier 25: set classes=26"):
        learn(data, 25)
    data.setup("fit")
    data.dataset.labels = np.where(data.dataset.labels == 3, 4, data.dataset.labels)
    name = data.dataset.classes[3]
    with pytest.raises(ValueError, match=f"1 of 26 classes have no shape .* among them '{name}'"):
        learn(data, 26)
    data.dataset.labels[7] = -1
    with pytest.raises(ValueError, match=f"{data.dataset.ids[7]} has no label among its 26"):
        learn(data, 26)


def test_a_class_of_one_family_stays_in_training() -> None:
    data = Furniture(["train"])
    data.labels = data.labels.copy()
    data.labels[5] = 26
    for seed in range(8):
        train_set, held = split_train_val(data, 0.2, seed=seed)
        assert set(train_set.labels) == set(data.labels)
        assert not set(train_set.ids) & set(held.ids)


def test_last_is_the_last_epoch_and_selected_the_best(tmp_path: Path) -> None:
    told = ["experiment=finetune_furniture", "debug=tiny", "eval.votes=0", "trainer.max_epochs=3"]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        trainer = train(compose("train", [*told, f"output_dir={tmp_path}"]))
    kept = {name: torch.load(tmp_path / "checkpoints" / f"{name}.ckpt", weights_only=True)
            for name in ("last", "best")}  # fmt: skip
    assert kept["last"]["epoch"] == 2
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "best.ckpt", "last.ckpt", "previous.ckpt",
    ]  # fmt: skip
    best = float(trainer.checkpoint_callback.best_model_score)
    assert kept["best"]["epoch"] <= 2
    resumed = SelectedCheckpoint(tmp_path / "other", monitor="val/accuracy", mode="max")
    state = next(v for k, v in kept["last"]["callbacks"].items() if "Selected" in k)
    resumed.load_state_dict(state)
    assert float(resumed.best_model_score) == pytest.approx(best)
    gone = SelectedCheckpoint(tmp_path / "other", monitor="val/accuracy", mode="max")
    gone.load_state_dict({**state, "best_model_path": str(tmp_path / "gone.ckpt")})
    assert gone.best_model_score is None


def test_without_a_test_split_nothing_is_trained(tmp_path: Path) -> None:
    told = ["experiment=finetune_furniture", "debug=tiny", "data.test_split=null"]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("train", [*told, f"output_dir={tmp_path}"])
    with pytest.raises(ValueError, match=r"nothing to test on: set data.test_split to one of "):
        train(cfg)


def test_shapes_without_a_class_are_named_before_holding_out() -> None:
    data = Furniture(["train"])
    data.labels = data.labels.copy()
    data.labels[7] = -1
    with pytest.raises(ValueError, match=f"{data.ids[7]} has no class: sort it into a folder"):
        split_train_val(data, 0.2, seed=0)


@pytest.mark.slow
def test_figures_of_training_shapes_say_so(tmp_path: Path) -> None:
    told = ["experiment=finetune_furniture", "debug=tiny", "eval.votes=0", "data.test_split=train"]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        train(compose("train", [*told, f"output_dir={tmp_path}"]))
    found = json.loads((tmp_path / "results.json").read_text())
    assert 0 < found["tested_on_training_shapes"] < found["test_shapes"] == 269


@pytest.mark.parametrize("name", ["fewshot_furniture", "fewshot_modelnet40"])
def test_few_shot_selects_only_as_the_literature_does(name: str) -> None:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        default, released = (
            compose("train", [f"experiment={name}", *selection])
            for selection in ([], ["eval.selection=test"])
        )
    assert default.eval.selection == "last"
    assert default.callbacks.checkpoint.monitor is None
    assert default.data.val_split is default.data.val_share is None
    assert released.callbacks.checkpoint.monitor == "val/accuracy"
    assert released.data.val_split == released.data.test_split


@pytest.mark.slow
def test_two_processes_test_every_shape_once(tmp_path: Path) -> None:
    told = ["experiment=finetune_furniture", "debug=tiny", "trainer.devices=2", "eval.votes=2",
            "trainer.strategy=ddp_find_unused_parameters_true"]  # fmt: skip
    command = [sys.executable, "-m", "recon.train", *told, f"output_dir={tmp_path}"]
    subprocess.run(command, check=True, capture_output=True)
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["test_shapes"] == 141
    assert np.sum(found["results"]["one view"]["confusion"]) == 141
    alone = ["task=classify", f"checkpoint={tmp_path / 'checkpoints' / 'best.ckpt'}"]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        scores = evaluate(compose("evaluate", [*alone, f"output_dir={tmp_path / 'alone'}"]))
    told_accuracy = found["results"]["one view"]["overall_accuracy"]["mean"]
    assert scores.overall_accuracy.mean == pytest.approx(told_accuracy)
