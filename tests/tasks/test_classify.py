"""Fine-tuning: learning rates, frozen parameters, checkpoint selection, reads of test labels."""

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
from recon.data.dataset import DatasetView
from recon.data.datasets.furniture import Furniture, FurnitureDataModule
from recon.data.seeded_transforms import seed_generators
from recon.data.splits import split_train_val
from recon.data.transforms import Compose, FarthestPointSample, RandomScale, RandomSO3Rotation
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
def test_parameter_groups_match_the_release(kind: str, head: object, frozen: bool) -> None:
    with torch.device("meta"):
        model = Classifier(PatchGrouper(64, 32), Encoder(384), 15, head=head)
    task = Classification(model, optimizer=ADAMW, freeze_encoder=frozen)
    optimizer = task.configure_optimizers()
    names = {id(p): n.removeprefix("model.") for n, p in task.named_parameters()}
    released = [group for group in released_json("param_groups.json")[kind] if group["names"]]
    assert len(optimizer.param_groups) == len(released)
    for group, expected in zip(optimizer.param_groups, released, strict=True):
        keys = {to_official_key(names[id(p)], "classify") for p in group["params"]}
        assert keys == set(expected["names"])
        assert group["weight_decay"] == expected["weight_decay"]
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates == pytest.approx([2e-4, 2e-5, 2e-5][: len(rates)])


def test_a_vote_averages_the_logits_of_its_views() -> None:
    task = Classification(toy(), optimizer=SGD, vote_view=RandomScale(), votes=3).eval()
    points, seeds = torch.randn(2, 64, 3), torch.tensor([5, 9])
    voted = task._predict_vote(points, seed_generators(seeds, "cpu", 0))
    for row, generator in enumerate(seed_generators(seeds, "cpu", 0)):
        views = [task(RandomScale()(points[row : row + 1], generator)) for _ in range(3)]
        assert torch.allclose(voted[row : row + 1], sum(views) / 3, atol=1e-6)
    with pytest.raises(ValueError, match="votes > 0 needs a `vote_view`"):
        Classification(toy(), optimizer=SGD, votes=10)


def test_views_and_votes_do_not_depend_on_the_batch_size() -> None:
    view = Compose([FarthestPointSample(64), RandomSO3Rotation()])
    logits = []
    for batch_size in (4, 12):
        data = FurnitureDataModule(
            split="train", test_split="test", keys=["label"], batch_size=batch_size
        )
        data.setup("test")
        data.test_dataset = DatasetView([data.test_dataset], [(0, row) for row in range(12)])
        task = Classification(toy(), optimizer=SGD, view=view, vote_view=view, votes=2)
        Trainer(accelerator="cpu", logger=False, enable_progress_bar=False).test(
            task, data, verbose=False
        )
        logits.append({name: torch.cat(parts) for name, parts in task.test_logits.items()})
    for name in ("one view", "round 0"):
        assert torch.allclose(logits[0][name], logits[1][name], atol=1e-5)
    assert not torch.allclose(logits[0]["one view"], logits[0]["round 0"], atol=1e-3)


def test_held_out_split_shares_no_family_with_the_train_split() -> None:
    data = Furniture(["train"])
    train_set, val_set = split_train_val(data, 0.2, seed=0)
    assert sorted([*train_set.ids, *val_set.ids]) == sorted(data.ids)
    assert 0.1 < len(val_set) / len(data) < 0.3
    assert not set(train_set.families) & set(val_set.families)
    assert list(split_train_val(data, 0.2, seed=0)[1].ids) == list(val_set.ids)
    assert list(split_train_val(data, 0.2, seed=1)[1].ids) != list(val_set.ids)
    with pytest.raises(ValueError, match=r"must be in \(0, 0.5\], got 0.7"):
        split_train_val(data, 0.7, seed=0)


class LabelReadRecorder(Furniture):
    """Record the splits whose labels are read."""

    splits_read: list[str] = []

    def __init__(self, splits: Sequence[str], **settings: object) -> None:
        self.name = splits[0]
        super().__init__(splits, **settings)

    @property
    def labels(self) -> np.ndarray:
        LabelReadRecorder.splits_read.append(self.name)
        return self.stored_labels

    @labels.setter
    def labels(self, value: np.ndarray) -> None:
        self.stored_labels = value


def test_test_labels_are_read_only_in_the_final_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recon.data.datasets.furniture.Furniture", LabelReadRecorder)
    LabelReadRecorder.splits_read.clear()
    data = FurnitureDataModule(
        split="train", test_split="test", val_share=0.2, keys=["label"], batch_size=64
    )
    task = Classification(toy(), optimizer=SGD)
    quick = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False,
             "enable_progress_bar": False, "enable_model_summary": False}  # fmt: skip
    trainer = Trainer(max_epochs=1, limit_train_batches=1, **quick)
    trainer.fit(task, data)
    assert "train" in LabelReadRecorder.splits_read
    assert "test" not in LabelReadRecorder.splits_read
    trainer.test(task, data, verbose=False)
    assert "test" in LabelReadRecorder.splits_read
    assert len(task.ids) == 141


def test_encoder_is_initialized_from_a_pretrained_checkpoint() -> None:
    path = released_path("recon_pretrain_small.pth")
    pretrained = load(path, num_heads=3, num_groups=64).encoder.state_dict()
    encoder = Encoder(96, depth=4, heads=3)
    model = build_classifier(PatchGrouper(64, 32), encoder, 15, checkpoint=path)
    assert all(torch.equal(v, pretrained[k]) for k, v in model.encoder.state_dict().items())
    assert not model.encoder.stop_gradient


@pytest.mark.parametrize("wrong", [{"dim": 48}, {"depth": 3}, {"depth": 5}])
def test_checkpoint_of_other_sizes_raises_value_error(wrong: dict[str, int]) -> None:
    sizes = {"dim": 96, "depth": 4, "heads": 3, **wrong}
    with pytest.raises(ValueError, match=r"small.pth: its encoder is 96 wide .*set the model"):
        load_pretrained_encoder(released_path("recon_pretrain_small.pth"), Encoder(**sizes))


def test_scores_match_their_definitions() -> None:
    rng = np.random.default_rng(0)
    logits, labels = (
        torch.from_numpy(rng.normal(size=(200, 6))),
        torch.from_numpy(rng.integers(0, 5, 200)),
    )
    scores = classification_scores(logits, labels)
    predicted = logits.argmax(1)
    assert scores.overall_accuracy.mean == pytest.approx((predicted == labels).double().mean())
    per_class = [(predicted[labels == c] == c).double().mean().item() for c in range(5)]
    assert scores.mean_class_accuracy == pytest.approx(np.mean(per_class), abs=1e-6)
    assert scores.per_class_accuracy[:5].tolist() == pytest.approx(per_class, abs=1e-6)
    assert scores.per_class_accuracy[5].isnan()
    for k, share in scores.top_k_accuracy.items():
        hit = (logits.topk(k, dim=1).indices == labels[:, None]).any(1)
        assert share == pytest.approx(hit.double().mean().item(), abs=1e-6)
    for truth in range(6):
        for guess in range(6):
            count = ((labels == truth) & (predicted == guess)).sum()
            assert scores.confusion_matrix[truth, guess] == count
    with pytest.raises(ValueError, match="label 4 is none of the 3 classes of the model"):
        classification_scores(logits[:, :3], labels)


@pytest.mark.parametrize(
    "options",
    [
        ["protocol=linear"],
        pytest.param(["eval.selection=test", "eval.test.vote_rounds=3"], marks=pytest.mark.slow),
    ],
)
def test_results_store_their_protocol(options: list[str], tmp_path: Path) -> None:
    overrides = [
        "experiment=finetune_furniture",
        "debug=tiny",
        f"output_dir={tmp_path}",
        "eval.votes=2",
    ]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("train", [*overrides, *options, f"output_dir={tmp_path}"])
    train(cfg)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["protocol"]["selection"] == cfg.eval.selection
    assert results["protocol"]["test_shapes"] == 141
    assert results["votes"] == 2
    has_selection = cfg.eval.selection != "last"
    assert (results["checkpoint"] == "checkpoints/best.ckpt") == has_selection
    rows = ["one view", "one vote of 2 views"]
    if cfg.eval.selection == "test":
        rows.append("best of 3 votes, chosen by test labels")
    assert list(results["protocols"]) == rows
    suffixes = ("", "/voted", "/best_vote")[: len(rows)]
    for details, suffix in zip(results["protocols"].values(), suffixes, strict=True):
        counts = np.array(details["confusion"])
        accuracy = results["metrics"][f"overall_accuracy{suffix}"]
        assert counts.sum() == 141
        assert accuracy["value"] == pytest.approx(np.trace(counts) / 141)
        assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]


def test_optimizer_of_a_head_alone_has_one_group() -> None:
    optimizer = build_finetune_optimizer(nn.Linear(2, 2), SGD, lambda name: True)
    assert [group["lr"] for group in optimizer.param_groups] == [1.0]


def fit_one_batch(data: FurnitureDataModule, classes: int) -> None:
    quick = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False,
             "enable_progress_bar": False, "enable_model_summary": False}  # fmt: skip
    Trainer(max_epochs=1, limit_train_batches=1, **quick).fit(
        Classification(toy(classes=classes), optimizer=SGD), data
    )


def test_classes_without_samples_or_labels_raise_value_error() -> None:
    data = FurnitureDataModule(split="train", keys=["label"])
    with pytest.raises(ValueError, match="have 26 classes, the classifier has 25: set num_cl"):
        fit_one_batch(data, 25)
    data.setup("fit")
    data.dataset.labels = np.where(data.dataset.labels == 3, 4, data.dataset.labels)
    name = data.dataset.classes[3]
    with pytest.raises(ValueError, match=f"1 of 26 classes have no training shape, .* '{name}'"):
        fit_one_batch(data, 26)
    data.dataset.labels[7] = -1
    with pytest.raises(ValueError, match=f"label of {data.dataset.ids[7]} is none of the 26"):
        fit_one_batch(data, 26)


def test_class_of_one_family_stays_in_the_train_split() -> None:
    data = Furniture(["train"])
    data.labels = data.labels.copy()
    data.labels[5] = 26
    for seed in range(8):
        train_set, val_set = split_train_val(data, 0.2, seed=seed)
        assert set(train_set.labels) == set(data.labels)
        assert not set(train_set.ids) & set(val_set.ids)


def test_last_checkpoint_has_the_last_epoch_and_best_the_best_score(tmp_path: Path) -> None:
    overrides = [
        "experiment=finetune_furniture", "debug=tiny", "eval.votes=0", "trainer.max_epochs=3",
    ]  # fmt: skip
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        trainer = train(compose("train", [*overrides, f"output_dir={tmp_path}"]))
    checkpoints = {name: torch.load(tmp_path / "checkpoints" / f"{name}.ckpt", weights_only=True)
                   for name in ("last", "best")}  # fmt: skip
    assert checkpoints["last"]["epoch"] == 2
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "best.ckpt", "last.ckpt", "previous.ckpt",
    ]  # fmt: skip
    best = float(trainer.checkpoint_callback.best_model_score)
    assert checkpoints["best"]["epoch"] <= 2
    resumed = SelectedCheckpoint(tmp_path / "other", monitor="val/accuracy", mode="max")
    state = next(v for k, v in checkpoints["last"]["callbacks"].items() if "Selected" in k)
    resumed.load_state_dict(state)
    assert float(resumed.best_model_score) == pytest.approx(best)
    without_file = SelectedCheckpoint(tmp_path / "other", monitor="val/accuracy", mode="max")
    without_file.load_state_dict({**state, "best_model_path": str(tmp_path / "gone.ckpt")})
    assert without_file.best_model_score is None


def test_missing_test_split_raises_before_training(tmp_path: Path) -> None:
    overrides = ["experiment=finetune_furniture", "debug=tiny", "data.test_split=null"]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("train", [*overrides, f"output_dir={tmp_path}"])
    with pytest.raises(ValueError, match=r"nothing to test on: set data.test_split to one of "):
        train(cfg)


def test_unlabeled_shapes_raise_value_error_in_the_split() -> None:
    data = Furniture(["train"])
    data.labels = data.labels.copy()
    data.labels[7] = -1
    with pytest.raises(ValueError, match=f"{data.ids[7]} has no class: move it into a class"):
        split_train_val(data, 0.2, seed=0)


@pytest.mark.slow
def test_results_count_tested_training_shapes(tmp_path: Path) -> None:
    overrides = [
        "experiment=finetune_furniture", "debug=tiny", "eval.votes=0", "data.test_split=train",
    ]  # fmt: skip
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        train(compose("train", [*overrides, f"output_dir={tmp_path}"]))
    results = json.loads((tmp_path / "results.json").read_text())
    assert 0 < results["protocol"]["tested_on_training_shapes"] < 269
    assert results["protocol"]["test_shapes"] == 269


@pytest.mark.parametrize("name", ["fewshot_furniture", "fewshot_modelnet40"])
def test_few_shot_selects_a_checkpoint_only_on_request(name: str) -> None:
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
def test_two_processes_test_each_shape_once(tmp_path: Path) -> None:
    overrides = ["experiment=finetune_furniture", "debug=tiny", "trainer.devices=2",
                 "eval.votes=2", "trainer.strategy=ddp_find_unused_parameters_true"]  # fmt: skip
    command = [sys.executable, "-m", "recon.train", *overrides, f"output_dir={tmp_path}"]
    subprocess.run(command, check=True, capture_output=True)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["protocol"]["test_shapes"] == 141
    assert np.sum(results["protocols"]["one view"]["confusion"]) == 141
    options = ["task=classify", f"checkpoint={tmp_path / 'checkpoints' / 'best.ckpt'}"]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        scores = evaluate(compose("evaluate", [*options, f"output_dir={tmp_path / 'alone'}"]))
    accuracy = results["metrics"]["overall_accuracy"]["value"]
    assert scores.overall_accuracy.mean == pytest.approx(accuracy)
