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
    points = write_scanobjectnn(tmp_path / "ScanObjectNN")
    folder, suffix = VARIANTS[variant]
    for split, file in (("train", "training"), ("test", "test")):
        data = ScanObjectNN(tmp_path, split, variant=variant)
        assert np.array_equal(data.cloud(7).points, points[f"{folder}/{file}{suffix}"][7])
        assert data.labels.tolist() == list(range(15))
    assert data.texts(14) == build_prompts("toilet")


def test_invalid_files_raise_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"training_objectdataset.h5: not found\. Scan"):
        ScanObjectNN(tmp_path)
    with pytest.raises(ValueError, match="no variant 'OBJ': choose OBJ_BG, OBJ_ONLY, PB_T50_RS"):
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
