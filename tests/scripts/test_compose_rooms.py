import runpy
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recon.data.datasets.furniture import Furniture

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "compose_rooms.py"))
OPTIONS = ["--rooms", "2", "--areas", "2", "--spacing", "0.1"]
FURNITURE = ("table", "chair", "sofa", "bookcase", "clutter", "column")


def run(out: Path, *options: str) -> None:
    SCRIPT["main"](["--out", str(out), *OPTIONS, *options])


def contents(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def by_class(room: Path) -> list[tuple[str, Any]]:
    paths = sorted(room.glob("Annotations/*.txt"))
    return [(path.stem.rsplit("_", 1)[0], np.loadtxt(path, ndmin=2)) for path in paths]


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("rooms")
    run(out, "--areas", "5")
    return out


@pytest.fixture(scope="module")
def rooms(composed: Path) -> list[list[tuple[str, Any]]]:
    rooms = [by_class(folder) for folder in composed.glob("Area_*/*")]
    assert len(rooms) == 10
    return rooms


def sizes(room: list[tuple[str, Any]]) -> Any:
    return np.concatenate([points for kind, points in room if kind == "wall"])[:, :3].max(0)


def test_files_are_of_the_raw_format(composed: Path, rooms: list[list[tuple[str, Any]]]) -> None:
    classes = set(SCRIPT["CLASSES"].split())
    found = Counter(kind for room in rooms for kind, _ in room)
    assert set(found) <= classes
    assert found["floor"] == found["ceiling"] == len(rooms)
    assert found["wall"] == 4 * len(rooms)
    for points in (points for room in rooms for _, points in room):
        assert points.shape[1] == 6
        assert len(points) > 0
        assert (points[:, 3:] % 1 == 0).all()
        assert points[:, 3:].min() >= 0
        assert points[:, 3:].max() <= 255
    line = next(composed.glob("Area_1/*/*.txt")).read_text().split("\n")[0].split(" ")
    assert [len(field.partition(".")[2]) for field in line] == [3, 3, 3, 0, 0, 0]


def test_a_room_is_the_union_of_its_annotations(composed: Path) -> None:
    for room in composed.glob("Area_*/*"):
        whole = (room / f"{room.name}.txt").read_text().splitlines()
        parts = [path.read_text().splitlines() for path in room.glob("Annotations/*")]
        assert Counter(whole) == Counter(line for lines in parts for line in lines)


def test_rooms_are_a_function_of_seed_area_and_index(composed: Path, tmp_path: Path) -> None:
    run(tmp_path / "same", "--rooms", "1")
    run(tmp_path / "other", "--rooms", "1", "--seed", "1")
    same, other, more = (contents(f) for f in (tmp_path / "same", tmp_path / "other", composed))
    assert len(same) > 20
    assert same.items() < more.items()
    assert not {text for text in same.values() if text} & set(other.values())


def test_walls_floor_and_ceiling_enclose_the_room(rooms: list[list[tuple[str, Any]]]) -> None:
    for room in rooms:
        width, depth, height = sizes(room)
        assert 3 < width < 7.02
        assert 3 < depth < 6.02
        assert 2.4 < height < 3.22
        for kind, points in room:
            if kind == "ceiling":
                assert points[:, 2] == pytest.approx(height, abs=0.03)
            if kind == "floor":
                assert points[:, 2] == pytest.approx(0, abs=0.03)
                assert np.ptp(points, axis=0)[:2] == pytest.approx([width, depth], abs=0.3)


def test_furniture_stays_inside(rooms: list[list[tuple[str, Any]]]) -> None:
    for room in rooms:
        size = sizes(room)
        for kind, points in room:
            if kind not in ("door", "window"):  # these are set into walls
                assert points[:, :3].min() > -0.02, kind
                assert (points[:, :3].max(0) < size + 0.02).all(), kind


def test_objects_on_the_floor_do_not_overlap(rooms: list[list[tuple[str, Any]]]) -> None:
    standing = 0
    for room in rooms:
        boxes = [
            (points[:, :2].min(0), points[:, :2].max(0))
            for kind, points in room
            if kind in FURNITURE and points[:, 2].min() < 0.1
        ]
        standing += len(boxes)
        for (low, high), (other_low, other_high) in combinations(boxes, 2):
            assert ((low >= other_high) | (other_low >= high)).any()
    assert standing > 5 * len(rooms)


def test_walls_have_openings_at_doors_and_windows(rooms: list[list[tuple[str, Any]]]) -> None:
    for room in rooms:
        walls = np.concatenate([points for kind, points in room if kind == "wall"])[:, :3]
        for kind, points in room:
            if kind in ("door", "window"):
                low, high = points[:, :3].min(0) + 0.03, points[:, :3].max(0) - 0.03
                assert not ((walls > low) & (walls < high)).all(1).any()


def test_the_held_out_area_has_test_shapes_only() -> None:
    shapes = {split: set(Furniture([split]).ids) for split in ("train", "test")}
    for area in (1, 4, 5, 6):
        parts = [part for i in (1, 2) for part in SCRIPT["compose_room"](0, area, i, 0.2)[1]]
        used = {part.model_id for part in parts} - {""}
        assert len(used) > 5
        assert used <= shapes["test" if area == 5 else "train"]


def test_point_density_and_model_sizes_are_as_given() -> None:
    def area(spacing: float) -> dict[str, float]:
        counts = Counter[str]()
        for part in SCRIPT["compose_room"](0, 1, 1, spacing)[1]:
            counts[part.class_name] += len(part.points) * spacing**2
        return counts

    few, many = area(0.06), area(0.03)
    assert few["floor"] == pytest.approx(many["floor"], rel=0.01)
    sofas = SCRIPT["load_catalog"]("train")["sofa"]
    assert {part.class_name for part in sofas} == {"sofa"}
    for sofa in sofas:
        width, depth, height = sofa.points.max(0)
        assert 1.2 < width < 2.6
        assert 0.6 < depth < 2
        assert 0.7 < height < 1.1


def test_running_again_writes_missing_rooms(tmp_path: Path) -> None:
    run(tmp_path)
    before = contents(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("Area_*/*/*.txt")}
    gone = next(tmp_path.glob("Area_2/*_1"))
    gone.rename(gone.with_name(f".{gone.name}.unfinished"))  # as if killed while writing it
    (gone.with_name(f".{gone.name}.unfinished") / "Annotations" / "floor_1.txt").write_text("1 2")
    run(tmp_path)
    assert contents(tmp_path) == before
    for path, time in times.items():
        assert path.parent == gone or path.stat().st_mtime_ns == time


def test_the_summary_counts_rooms_and_points(
    composed: Path, rooms: list[list[tuple[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    run(composed, "--areas", "5")
    said = capsys.readouterr().out.splitlines()[-1]
    counts = Counter[str]()
    for kind, points in (part for room in rooms for part in room):
        counts[kind] += len(points)
    assert f"10 rooms, {counts.total():,} points" in said
    for kind, count in counts.items():
        assert f"{kind} {count:,}" in said


@pytest.mark.parametrize(
    "wrong",
    ["--rooms=0", "--areas=0", "--areas=x", "--seed=-1", "--spacing=0", "--spacing=nan"],
)
def test_invalid_options_end_with_one_line(
    wrong: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        run(tmp_path / "rooms", wrong)
    assert stop.value.code
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "rooms").exists()


def test_folders_with_other_content_are_refused(
    composed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "Area_1").mkdir()
    (file := tmp_path / "file").write_text("precious")
    before = contents(composed)
    for out, option in ((tmp_path, "--seed=0"), (file, "--seed=0"), (composed, "--seed=1")):
        with pytest.raises(SystemExit) as stop:
            run(out, option)
        assert stop.value.code
        assert capsys.readouterr().err.count("\n") == 1
    assert file.read_text() == "precious"
    assert [*tmp_path.rglob("*.txt")] == []
    assert contents(composed) == before
