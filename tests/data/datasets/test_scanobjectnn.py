"""ScanObjectNN: variants, batches, errors."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from recon.data.datasets.scanobjectnn import VARIANTS, ScanObjectNN, ScanObjectNNDataModule
from recon.teachers.prompts import build_prompts
from trees import write_scanobjectnn


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_round_trip(variant: str, tmp_path: Path) -> None:
    folder, suffix = VARIANTS[variant]
    infix = suffix.removeprefix("_objectdataset").removesuffix(".h5")
    points = write_scanobjectnn(tmp_path / "ScanObjectNN", suffixes=[infix])
    for split, file in (("train", "training"), ("test", "test")):
        data = ScanObjectNN(tmp_path, split, variant=variant)
        assert np.array_equal(data.cloud(7).points, points[f"{folder}/{file}{suffix}"][7])
        assert data.labels.tolist() == list(range(15))
    assert data.texts(14) == build_prompts("toilet")


def test_invalid_files_raise_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"training_objectdataset.h5: not found\. Scan"):
        ScanObjectNN(tmp_path)
    with pytest.raises(
        ValueError,
        match=r"no variant 'OBJ': choose .*PB_T25 \(.*_augmented25_norot.h5\)",
    ):
        ScanObjectNN(tmp_path, variant="OBJ")
    write_scanobjectnn(tmp_path)
    path = tmp_path / "main_split" / "training_objectdataset.h5"
    original = path.read_bytes()
    for content in (b"", original[: len(original) // 2], b"not HDF5"):
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match=r"training_objectdataset.h5: (is empty|not a readable)"
        ):
            ScanObjectNN(tmp_path)
    points = np.zeros((2, 2048, 3))
    points[1, 5] = np.nan
    for fields, message in (
        ({"data": points}, "no data set `label`"),
        ({"data": points, "label": [0, 15]}, r"label 15 \(number 1\) is none of the 15"),
        ({"data": points, "label": [0]}, "has 1 labels of type int64, expected 2"),
        ({"data": points[0], "label": [0]}, r"expected \(n, 2048, 3\)"),
    ):
        with h5py.File(path, "w") as file:
            for key, value in fields.items():
                file[key] = value
        with pytest.raises(ValueError, match=rf"training_objectdataset.h5: .*{message}"):
            ScanObjectNN(tmp_path)
    with h5py.File(path, "w") as file:
        file["data"], file["label"] = points, [0, 1]
    with pytest.raises(ValueError, match=r"h5 \(row 1\): 1 of 2048 points are NaN"):
        ScanObjectNN(tmp_path).cloud(1)


def test_batches_have_labels(tmp_path: Path) -> None:
    write_scanobjectnn(tmp_path)
    data = ScanObjectNNDataModule(tmp_path, batch_size=5, keys=["label"])
    data.setup()
    assert next(iter(data.test_dataloader()))["label"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("partition", ["main_split", "split3"])
@pytest.mark.parametrize("background", [True, False])
def test_folders_follow_background_and_partition(
    background: bool, partition: str, tmp_path: Path
) -> None:
    folders = [f"{partition}{end}" for end in ("", "_nobg")]
    points = write_scanobjectnn(tmp_path / "h5_files", 2, folders=folders)
    options = {"variant": "PB_T50_RS", "background": background, "partition": partition}
    name = f"{folders[not background]}/test_objectdataset_augmentedrot_scale75.h5"
    for root in (tmp_path, tmp_path / "h5_files", tmp_path / "h5_files" / folders[0]):
        module = ScanObjectNNDataModule(root, **options)
        assert np.array_equal(module.read_part("test").cloud(1).points, points[name][1])
    recorded = None if partition == "main_split" else partition
    assert module.settings() == options | {"partition": recorded}


def test_a_copy_without_background_is_read_with_a_warning(tmp_path: Path) -> None:
    points = write_scanobjectnn(tmp_path, 2, folders=["main_split_nobg"])
    name = "main_split_nobg/training_objectdataset_augmentedrot_scale75.h5"
    with pytest.warns(UserWarning, match=r"main_split: has no PB_T50_RS: reading .*_nobg"):
        data = ScanObjectNN(tmp_path, variant="PB_T50_RS")
    assert np.array_equal(data.cloud(0).points, points[name][0])
    with pytest.raises(FileNotFoundError, match=r"set data\.background=false"):
        ScanObjectNN(tmp_path, variant="PB_T50_RS", background=True)
    with pytest.raises(FileNotFoundError, match=r"set data\.variant=OBJ_ONLY"):
        ScanObjectNN(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"has OBJ_ONLY \(main_split_nobg\), PB_T50_RS .*variant=OBJ_"
    ):
        ScanObjectNN(tmp_path, variant="PB_T25")


def test_contradictory_options_are_refused(tmp_path: Path) -> None:
    for options, message in (
        ({"variant": "OBJ_ONLY", "background": True}, "variant=OBJ_ONLY contradicts background=tr"),
        ({"background": False}, "set variant=OBJ_ONLY"),
        ({"partition": "split5"}, "no partition 'split5': choose main_split, split1"),
    ):
        with pytest.raises(ValueError, match=message):
            ScanObjectNNDataModule(tmp_path, **options)
