"""A trained classifier and zero-shot on other people's shapes, by the command's own function."""

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


def run(config: str, told: list[str]) -> ClassificationScores | None:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose(config, told)
    return evaluate(cfg)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    told = ["experiment=finetune_furniture", "debug=tiny", "eval.votes=0", "num_points=64"]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        train(compose("train", [*told, "trainer.limit_train_batches=5", f"output_dir={folder}"]))
    return folder


def own_shapes(root: Path, labelled: bool) -> dict[str, str]:
    """Write ten test shapes as files of one's own; return their classes."""
    data, classes = Furniture(["test"]), {}
    for index in range(10):
        name = data.classes[data.labels[index]]
        path = root / (name if labelled else "") / f"{index}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, data.points(index))
        classes[path.relative_to(root).as_posix()] = name
    return classes


def test_a_checkpoint_knows_its_classes(trained: Path) -> None:
    model = load(trained / "checkpoints" / "last.ckpt", task="classify")
    assert list(model.class_names) == list(Furniture(["train"]).classes)


def test_a_classifier_is_tested_by_names(trained: Path, tmp_path: Path) -> None:
    weights = f"checkpoint={trained / 'checkpoints' / 'last.ckpt'}"
    found = run("evaluate", ["task=classify", weights, f"output_dir={tmp_path / 'a'}", *SMALL])
    assert found is not None
    told = json.loads((trained / "results.json").read_text())["results"]["one view"]
    (best,) = (trained / "checkpoints").glob("best.ckpt")
    best_found = run(
        "evaluate", ["task=classify", f"checkpoint={best}", f"output_dir={tmp_path / 'b'}", *SMALL]
    )
    assert best_found is not None
    assert best_found.overall_accuracy.mean == told["overall_accuracy"]["mean"]
    # Folders sort their classes in another order, and have fewer of them.
    classes = own_shapes(tmp_path / "own", labelled=True)
    own = ["data=folder", f"data.root={tmp_path / 'own'}", "data.test_split=all", weights]
    scores = run("evaluate", ["task=classify", *own, f"output_dir={tmp_path / 'c'}", *SMALL])
    assert scores is not None
    with (tmp_path / "c" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["id"]: row["class"] for row in rows} == classes
    right = sum(row["predicted"] == row["class"] for row in rows)
    assert scores.overall_accuracy.mean == pytest.approx(right / 10)
    with (tmp_path / "a" / "predictions.csv").open() as file:
        in_split = {row["id"]: row["predicted"] for row in csv.DictReader(file)}
    assert [
        row["predicted"] for row in sorted(rows, key=lambda row: int(Path(row["id"]).stem))
    ] == [in_split[name] for name in Furniture(["test"]).ids[:10]]


def test_shapes_without_classes_are_predicted(trained: Path, tmp_path: Path) -> None:
    own_shapes(tmp_path / "own", labelled=False)
    weights = f"checkpoint={trained / 'checkpoints' / 'last.ckpt'}"
    own = ["data=folder", f"data.root={tmp_path / 'own'}", "data.test_split=all", weights, *SMALL]
    assert run("evaluate", ["task=classify", *own, f"output_dir={tmp_path / 'a'}"]) is None
    found = json.loads((tmp_path / "a" / "results.json").read_text())
    assert sum(found["predicted"].values()) == 10
    some = ["classes=[chair,table]", f"output_dir={tmp_path / 'b'}"]
    run("evaluate", ["task=classify", *own, *some])
    found = json.loads((tmp_path / "b" / "results.json").read_text())
    assert set(found["predicted"]) <= {"chair", "table"}
    with pytest.raises(ValueError, match="the classifier did not learn 'dragon', but "):
        run("evaluate", ["task=classify", *own, "classes=[chair,dragon]"])


def test_labels_outside_the_asked_classes_are_named(trained: Path, tmp_path: Path) -> None:
    own_shapes(tmp_path / "own", labelled=True)
    weights = f"checkpoint={trained / 'checkpoints' / 'last.ckpt'}"
    own = ["data=folder", f"data.root={tmp_path / 'own'}", "data.test_split=all", weights, *SMALL]
    with pytest.raises(ValueError, match="none of the 1 classes to choose among: bed"):
        run("evaluate", ["task=classify", *own, "classes=[bed]", f"output_dir={tmp_path}"])


def test_a_classifier_has_no_frozen_features(trained: Path) -> None:
    with pytest.raises(ValueError, match="holds weights for task='classify', not for 'pretrain'"):
        run("evaluate", ["task=svm", f"checkpoint={trained / 'checkpoints' / 'last.ckpt'}"])
