"""Evaluation of a trained classifier on test shapes and on a user's own shapes."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from recon.checkpoints.loading import load
from recon.cli.config_dir import conf_dir
from recon.data.datasets.furniture import Furniture
from recon.evaluate import evaluate
from recon.tasks.metrics import ClassificationScores
from recon.train import train

SMALL = ["data.num_workers=0", "num_points=64"]


def run(overrides: list[str]) -> ClassificationScores | None:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("evaluate", overrides)
    return evaluate(cfg)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    overrides = ["experiment=finetune_furniture", "debug=tiny", "eval.votes=0", "num_points=64"]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        train(
            compose("train", [*overrides, "trainer.limit_train_batches=5", f"output_dir={folder}"])
        )
    return folder


def write_shapes(root: Path, labeled: bool) -> dict[str, str]:
    """Write ten test shapes as files; return their classes by path."""
    data, classes = Furniture(["test"]), {}
    for index in range(10):
        name = data.classes[data.labels[index]]
        path = root / (name if labeled else "") / f"{index}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, data.points(index))
        classes[path.relative_to(root).as_posix()] = name
    return classes


def test_checkpoint_stores_class_names(trained: Path) -> None:
    model = load(trained / "checkpoints" / "last.ckpt", task="classify")
    assert list(model.class_names) == list(Furniture(["train"]).classes)


def test_classes_are_matched_by_name(trained: Path, tmp_path: Path) -> None:
    weights = f"checkpoint={trained / 'checkpoints' / 'last.ckpt'}"
    last_scores = run(["task=classify", weights, f"output_dir={tmp_path / 'a'}", *SMALL])
    assert last_scores is not None
    results = json.loads((trained / "results.json").read_text())["metrics"]
    (best,) = (trained / "checkpoints").glob("best.ckpt")
    best_scores = run(
        ["task=classify", f"checkpoint={best}", f"output_dir={tmp_path / 'b'}", *SMALL]
    )
    assert best_scores is not None
    assert best_scores.overall_accuracy.mean == results["overall_accuracy"]["value"]
    # Folders sort their classes in another order, and have fewer of them.
    classes = write_shapes(tmp_path / "own", labeled=True)
    own = ["data=folder", f"data.root={tmp_path / 'own'}", "data.test_split=all", weights]
    scores = run(["task=classify", *own, f"output_dir={tmp_path / 'c'}", *SMALL])
    assert scores is not None
    with (tmp_path / "c" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["id"]: row["class"] for row in rows} == classes
    num_correct = sum(row["predicted"] == row["class"] for row in rows)
    assert scores.overall_accuracy.mean == pytest.approx(num_correct / 10)
    with (tmp_path / "a" / "predictions.csv").open() as file:
        predicted = {row["id"]: row["predicted"] for row in csv.DictReader(file)}
    assert [
        row["predicted"] for row in sorted(rows, key=lambda row: int(Path(row["id"]).stem))
    ] == [predicted[name] for name in Furniture(["test"]).ids[:10]]


def test_unlabeled_shapes_get_predictions_without_scores(trained: Path, tmp_path: Path) -> None:
    write_shapes(tmp_path / "own", labeled=False)
    weights = f"checkpoint={trained / 'checkpoints' / 'last.ckpt'}"
    own = ["data=folder", f"data.root={tmp_path / 'own'}", "data.test_split=all", weights, *SMALL]
    assert run(["task=classify", *own, f"output_dir={tmp_path / 'a'}"]) is None
    results = json.loads((tmp_path / "a" / "results.json").read_text())
    assert sum(results["predicted"].values()) == 10
    subset = ["classes=[chair,table]", f"output_dir={tmp_path / 'b'}"]
    run(["task=classify", *own, *subset])
    results = json.loads((tmp_path / "b" / "results.json").read_text())
    assert set(results["predicted"]) <= {"chair", "table"}
    with pytest.raises(ValueError, match="the classifier did not learn 'dragon'; its classes are "):
        run(["task=classify", *own, "classes=[chair,dragon]"])


@pytest.mark.slow
def test_random_test_transforms_do_not_depend_on_the_batch_size(
    trained: Path, tmp_path: Path
) -> None:
    weights = f"checkpoint={trained / 'checkpoints' / 'last.ckpt'}"
    predicted, fingerprints = [], set()
    for size in (16, 141):
        options = ["data.test_transform=any_pose", f"data.batch_size={size}"]
        run(["task=classify", weights, *options, f"output_dir={tmp_path / str(size)}", *SMALL])
        predicted.append((tmp_path / str(size) / "predictions.csv").read_text())
        results = json.loads((tmp_path / str(size) / "results.json").read_text())
        fingerprints.add(results["fingerprint"])
    assert predicted[0] == predicted[1]
    assert len(fingerprints) == 1
    assert results["protocol"]["test_transform"]["transforms"][0]["num_points"] == 64


def test_a_view_of_training_shapes_without_any_raises_value_error(trained: Path) -> None:
    weights = f"checkpoint={trained / 'checkpoints' / 'last.ckpt'}"
    with pytest.raises(ValueError, match="train_view: is set, but only a linear SVM has training"):
        run(["task=classify", weights, "train_view=any_pose"])
    with pytest.raises(ValueError, match=r"view=any_pse: there is no transform of this name"):
        run(["task=classify", "checkpoint=missing.ckpt", "view=any_pse"])


def test_labels_outside_the_chosen_classes_raise_value_error(trained: Path, tmp_path: Path) -> None:
    write_shapes(tmp_path / "own", labeled=True)
    weights = f"checkpoint={trained / 'checkpoints' / 'last.ckpt'}"
    own = ["data=folder", f"data.root={tmp_path / 'own'}", "data.test_split=all", weights, *SMALL]
    with pytest.raises(ValueError, match="none of the 1 classes to choose among: bed"):
        run(["task=classify", *own, "classes=[bed]", f"output_dir={tmp_path}"])


def test_linear_probe_of_a_classifier_checkpoint_raises_value_error(trained: Path) -> None:
    with pytest.raises(ValueError, match="holds weights for task='classify', not for 'pretrain'"):
        run(["task=svm", f"checkpoint={trained / 'checkpoints' / 'last.ckpt'}"])
