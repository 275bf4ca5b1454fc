"""Compose indoor rooms from the bundled models and write them in the raw format of S3DIS.

python scripts/compose_rooms.py --out data/rooms --rooms 5 --areas 6 --seed 0 --spacing 0.03

A room is <out>/Area_<k>/<type>_<i>: all points in <type>_<i>.txt and each instance in Annotations,
as lines of x y z r g b in meters, z up, one point per square of the spacing. Area_5, usually the
test area, uses models of the bundled test split only, the other areas models of the train split
only. Armchairs and stools are chairs, desks are tables, and shelves and cabinets above 1.2 m are
bookcases. Beds, lower cabinets, appliances, sinks, radiators, plants, boxes, lamps, screens and
dishes are clutter. People, trees, cars and similar models are not used. Existing rooms are skipped.
"""

import argparse
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from rich.progress import track
from scipy.spatial import cKDTree

from recon.data.datasets.furniture import Furniture

CLASSES = "ceiling floor wall beam column window door table chair sofa bookcase board clutter"
TEST_AREA = 5
ROLES = {role: role for role in ("chair", "sofa", "desk", "table", "door", "window", "bed")}
ROLES |= {"armchair": "chair", "stool": "chair", "bookshelf": "bookcase"}
ROLES |= dict.fromkeys(("box", "plant", "Lamp", "Desk lamp", "Little lamp"), "loose")
ROLES |= dict.fromkeys(("cabinet", "appliance", "radiator", "sink"), "side")
ROLES |= dict.fromkeys(("screen", "bottle", "cup"), "top")
ROLES |= dict.fromkeys(("Hanging light", "Ceiling lamp", "Fluorescent light"), "light")
CLASS_BY_ROLE = {role: role for role in CLASSES.split()} | {"desk": "table", "low table": "table"}
RECIPES = {  # (role, minimum, maximum), in the order of placement
    "office": [("desk", 1, 3), ("bookcase", 1, 3), ("sofa", 0, 1), ("chair", 2, 5)],
    "conferenceRoom": [("table", 1, 2), ("sofa", 0, 1), ("bookcase", 0, 1), ("chair", 4, 9)],
    "lounge": [("sofa", 1, 3), ("low table", 1, 2), ("bookcase", 0, 2), ("chair", 1, 4)],
    "pantry": [("table", 1, 2), ("side", 2, 5), ("chair", 2, 6)],
    "storage": [("bookcase", 2, 5), ("desk", 0, 1), ("side", 1, 3), ("loose", 1, 4)],
    "bedroom": [("bed", 1, 1), ("bookcase", 1, 2), ("side", 1, 2), ("desk", 0, 1), ("chair", 0, 2)],
}
FACE_CLASSES = ("wall", "wall", "wall", "wall", "floor", "ceiling")
WALL_ROLES, OPENING_ROLES = ("bookcase", "sofa", "desk", "bed", "side"), ("door", "window")
FIRST_OBJECTS = [
    ("door", 1, 1),
    ("window", 0, 2),
    ("beam", 0, 1),
    ("column", 0, 1),
    ("board", 0, 1),
]
LAST_OBJECTS = [("loose", 0, 2), ("light", 0, 3), ("top", 0, 8)]
BUILT_SIZES = {  # minimum and maximum width, depth, height in meters; 9 means the room's size
    "beam": ((3, 0.2, 0.15), (9, 0.4, 0.3)),
    "column": ((0.3, 0.3, 9), (0.5, 0.5, 9)),
    "board": ((1.2, 0.03, 0.9), (2.4, 0.03, 1.2)),
}
PAINT_GRAY = {"ceiling": 220, "floor": 120, "wall": 195, "beam": 195, "column": 195, "board": 140}
MIN_GAP, DOORWAY_DEPTH, NOISE_STD, EPSILON = 0.03, 0.8, 0.003, 1e-6  # in meters
MAX_TRIES, MIN_MILLIMETERS = 60, -500
# Tables of formatted numbers, because formatting is slow: every millimeter from -0.5 m to 8 m.
METER_STRINGS = np.array([f"{mm / 1000:.3f} " for mm in range(MIN_MILLIMETERS, 8000)], "S")
BYTE_STRINGS, LINE_END_STRINGS = (
    np.array([f"{byte}{end}" for byte in range(256)], "S") for end in " \n"
)

Points = Float[np.ndarray, "n 3"]
Colors = UInt8[np.ndarray, "n 3"]
Box = Float[np.ndarray, "2 3"]
Proposal = tuple[Points, Float[np.ndarray, "3"]]


class Instance(NamedTuple):
    """An instance: its class, points in meters (z up), colors, and the id of its model if any."""

    class_name: str
    points: Points
    colors: Colors
    model_id: str = ""


def assign_role(category: str, name: str, size: Float[np.ndarray, "3"]) -> str | None:
    """Return the role of a model by category, name and size in meters; None if it is not used."""
    role, longest = ROLES.get(name if category == "lamp" else category), size.max()
    if "upper" in name.lower() or longest > (2.3 if role == "door" else 4):
        return None
    if category == "cabinet" and size[1] > 1.2:
        return "bookcase"
    if role in ("loose", "side") and longest < 0.6:
        return "top"
    return "low table" if role == "table" and size[1] < 0.6 else role


@lru_cache(maxsize=2)
def load_catalog(split: str) -> dict[str, list[Instance]]:
    """Return the models of a split by role, in meters, z up and facing -y."""
    data, models = Furniture([split]), defaultdict(list)
    for row, model_id in enumerate(data.ids):
        category, size = data.classes[data.labels[row]], data.sizes_cm[row] / 100
        if data.labels[row] >= 0 and (role := assign_role(category, data.names[row], size)):
            cloud = data.cloud(row)
            points = cloud.points[:, [0, 2, 1]] * [1.0, -1, 1]
            # The median: a thin handle or foot at the end of an axis may have no sampled point.
            points *= np.median(size[[0, 2, 1]] / np.ptp(points, axis=0))
            kind, points = CLASS_BY_ROLE.get(role, "clutter"), rotate_to_origin(points, 0)
            models[role].append(Instance(kind, points, np.asarray(cloud.colors), model_id))
    return dict(models)


def rotate_to_origin(points: Points, degrees: float) -> Points:
    """Rotate points about the vertical axis and move their bounding box to the origin."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    points = points @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    return points - points.min(0)


class Room:
    """A room during composition: its instances and the occupied boxes."""

    def __init__(self, models: dict[str, list[Instance]], spacing: float, rng: np.random.Generator):
        self.models, self.spacing, self.rng = models, spacing, rng
        self.size = rng.uniform([3, 3, 2.4], [7, 6, 3.2])
        self.box = np.stack([np.zeros(3), self.size])
        self.light = rng.uniform(0.75, 1.1) * rng.uniform(0.94, 1.06, 3)
        self.paint = {
            k: v + rng.uniform(-45, 35) + rng.normal(0, 9, 3) for k, v in PAINT_GRAY.items()
        }
        self.occupied, self.occluders, self.tables = list[Box](), list[Box](), list[Box]()
        self.parts = list[Instance]()

    def add(self, class_name: str, points: Points, colors: np.ndarray, model_id: str = "") -> None:
        """Add an instance with sensor noise and the lighting of this room."""
        noise = self.rng.normal(0, NOISE_STD, points.shape)
        colors = (colors + self.rng.normal(0, 4, points.shape)) * self.light
        self.parts.append(
            Instance(class_name, points + noise, colors.clip(0, 255).astype(np.uint8), model_id)
        )

    def sample_faces(self, box: Box) -> Iterator[Points]:
        """Sample the six faces of a box: low and high x, then y, then z."""
        for axis, side in np.ndindex(3, 2):
            low, extent = box[0].copy(), box[1] - box[0]
            low[axis], extent[axis] = box[side, axis], 0
            count = round(np.delete(extent, axis).prod() / self.spacing**2)
            yield low + extent * self.rng.random((count, 3))

    def resample(self, points: Points, colors: Colors) -> tuple[Points, Colors]:
        """Resample a surface, by interpolation, to one point per spacing square."""
        distances, neighbors = cKDTree(points).query(points, k=9)
        # For r points per unit of area, the mean squared kth-neighbor distance is k / (pi r).
        area = len(points) * np.pi * np.square(distances[:, 8]).mean() / 8
        count = int(np.clip(area / self.spacing**2, 20, 10 * len(points)))
        chosen = np.resize(self.rng.permutation(len(points)), count)
        others = neighbors[chosen[:, None], self.rng.integers(1, 9, (count, 2))]
        weights = self.rng.dirichlet([1, 1, 1], count) if count > len(points) else [1, 0, 0]
        triangles = points[np.column_stack([chosen, others])]
        return np.einsum("nkd,nk->nd", triangles, np.resize(weights, (count, 3))), colors[chosen]

    def propose_within(self, points: Points, box: Box, degrees: float, z: float) -> Proposal:
        """Propose a random position inside a box, seen from above, at height z."""
        points = rotate_to_origin(points, degrees)
        low = box[0] + self.rng.random(3) * (box[1] - box[0] - points.max(0))
        low[2] = z
        return points, low

    def propose_beside(
        self, points: Points, box: Box, inset: float, share: float, z: float = 0
    ) -> Proposal:
        """Propose a position with the back to a side of a box, inset by a share of the depth."""
        side = int(self.rng.integers(4))  # the back after this many quarter turns: +y, -x, -y, +x
        points, low = self.propose_within(points, box, 90 * side, z)
        axis, depth = 1 - side % 2, points.max(0)[1 - side % 2]
        inset += share * depth
        low[axis] = box[0, axis] + inset if side in (1, 2) else box[1, axis] - depth - inset
        return points, low

    def propose(self, role: str, points: Points) -> Proposal:
        """Propose a position for a role."""
        rng, height = self.rng, points[:, 2].max()
        top, sill = self.size[2] - height, 0.1 if height > 1.5 else rng.uniform(0.8, 1)
        z = {"beam": top, "light": top, "board": 0.85, "window": sill}.get(role, 0)
        if role in WALL_ROLES:
            return self.propose_beside(points, self.box, rng.uniform(0.02, 0.05), 0)
        if role in BUILT_SIZES or role in OPENING_ROLES:
            return self.propose_beside(points, self.box, 0, -0.5 if role in OPENING_ROLES else 0, z)
        degrees = 90 * int(rng.integers(4)) if "table" in role else rng.uniform(0, 360)
        if role in ("chair", "top") and self.tables:
            table = self.tables[rng.integers(len(self.tables))]
            if role == "chair":
                return self.propose_beside(
                    rotate_to_origin(points, rng.normal(0, 12)), table, -0.08, -1
                )
            middle = table + np.array([[0.15], [-0.15]]) * (table[1] - table[0])  # it may be round
            return self.propose_within(points, middle, degrees, table[1, 2])
        return self.propose_within(points, self.box, degrees, z)

    def furnish(self, role: str) -> None:
        """Place a random model of a role, or a built element, if a free position is found."""
        if role in BUILT_SIZES:
            extent = self.rng.uniform(*BUILT_SIZES[role]).clip(max=self.size)
            model = Instance(role, np.stack([np.zeros(3), extent]), np.empty((0, 3), np.uint8))
        else:
            model = self.models[role][self.rng.integers(len(self.models[role]))]
        occupied = np.array(self.occupied).reshape(-1, 2, 3)
        for points, low in (self.propose(role, model.points) for _ in range(MAX_TRIES)):
            box = np.stack([low, low + points.max(0)])
            outside = ((box < -EPSILON) | (box > self.size + EPSILON)).any()
            overlaps = (box[0] < occupied[:, 1] + MIN_GAP) & (occupied[:, 0] < box[1] + MIN_GAP)
            if not overlaps.all(1).any() and (role in OPENING_ROLES or not outside):
                self.place(role, model, points + low, box)
                break

    def place(self, role: str, model: Instance, points: Points, box: Box) -> None:
        """Add a model at its position and mark its box as occupied."""
        if role in BUILT_SIZES:
            self.add(role, np.concatenate([*self.sample_faces(box)]), self.paint[role])
        else:
            self.add(model.class_name, *self.resample(points, model.colors), model.model_id)
        if role in BUILT_SIZES or role in OPENING_ROLES:
            self.occluders.append(box.copy())
        if role == "door":  # the space on both sides of it stays free
            box[:, np.ptp(box, axis=0)[:2].argmin()] += [-DOORWAY_DEPTH, DOORWAY_DEPTH]
        if model.class_name == "table" and box[1, 2] < 1.04:  # higher tables have shelves
            self.tables.append(box.copy())
            box[1, 2] -= 2 * MIN_GAP  # leave space for objects on it
        self.occupied.append(box)


def compose_room(seed: int, area: int, index: int, spacing: float) -> tuple[str, list[Instance]]:
    """Compose a room, which depends only on the arguments; return its name and instances."""
    rng = np.random.default_rng([seed, area, index])
    kind = str(rng.choice([*RECIPES]))
    room = Room(load_catalog("test" if area == TEST_AREA else "train"), spacing, rng)
    for role, minimum, maximum in FIRST_OBJECTS + RECIPES[kind] + LAST_OBJECTS:
        for _ in range(rng.integers(minimum, maximum + 1)):
            room.furnish(role)
    low, high = np.array(room.occluders).reshape(-1, 2, 1, 3).swapaxes(0, 1)
    for face, points in zip(FACE_CLASSES, room.sample_faces(room.box), strict=True):
        hidden = (points > low - EPSILON) & (points < high + EPSILON)
        room.add(face, points[~hidden.all(2).any(0)], room.paint[face])
    return f"{kind}_{index}", room.parts


def write_room(area: Path, name: str, parts: Sequence[Instance]) -> Path:
    """Write a room to a temporary folder, rename it when complete, and return its path."""
    draft, numbers = area / f".{name}.unfinished", Counter[str]()
    shutil.rmtree(draft, ignore_errors=True)
    (draft / "Annotations").mkdir(parents=True)
    with (draft / f"{name}.txt").open("wb") as file:
        for part in parts:
            numbers[part.class_name] += 1
            coordinates = METER_STRINGS[np.rint(part.points * 1000).astype(int) - MIN_MILLIMETERS]
            columns = (
                coordinates,
                BYTE_STRINGS[part.colors[:, :2]],
                LINE_END_STRINGS[part.colors[:, 2:]],
            )
            text = np.concatenate(columns, axis=1).tobytes().translate(None, b"\0")
            (
                draft / "Annotations" / f"{part.class_name}_{numbers[part.class_name]}.txt"
            ).write_bytes(text)
            file.write(text)
    return draft.rename(area / name)


def compose_rooms(out: Path, rooms: int, areas: int, seed: int, spacing: float) -> str:
    """Write the missing rooms; return a summary of all rooms."""
    if rooms < 1 or areas < 1 or seed < 0 or not 0.01 <= spacing <= 0.5:
        raise ValueError(
            "--rooms and --areas must be at least 1, --seed at least 0, --spacing 0.01 to 0.5"
        )
    marker = out / f"seed_{seed}_spacing_{spacing}"
    if not marker.exists() and out.exists() and (out.is_file() or any(out.iterdir())):
        raise ValueError(
            f"{out} is a file, or contains other files, seeds or spacings: choose a new folder"
        )
    out.mkdir(parents=True, exist_ok=True)
    marker.touch()
    points, room_indices = Counter[str](), [*np.ndindex(areas, rooms)]
    for area, index in track(room_indices, "rooms"):
        folder = out / f"Area_{area + 1}"
        room = next(folder.glob(f"[!.]*_{index + 1}"), None)
        room = room or write_room(folder, *compose_room(seed, area + 1, index + 1, spacing))
        for path in room.glob("Annotations/*.txt"):
            points[path.stem.rsplit("_", 1)[0]] += path.read_bytes().count(b"\n")
    table = ", ".join(f"{kind} {points[kind]:,}" for kind in CLASSES.split())
    return f"{len(room_indices)} rooms, {points.total():,} points: {table}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Compose rooms with command-line options; input errors are printed in one line."""
    parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, required=True)
    for name, value in {"rooms": 5, "areas": 6, "seed": 0, "spacing": 0.03}.items():
        parser.add_argument(f"--{name}", type=type(value), default=value, help=f"default {value}")
    try:
        print(compose_rooms(**vars(parser.parse_args(arguments))))
    except (ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
