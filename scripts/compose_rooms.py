"""Compose indoor rooms from the embedded models and write them in the raw format of S3DIS.

python scripts/compose_rooms.py --out data/rooms --rooms 5 --areas 6 --seed 0 --spacing 0.03

Rooms are <out>/Area_<k>/<type>_<i>: all points in <type>_<i>.txt, each instance in Annotations,
lines of x y z r g b in metres, z up, a point in each square of the spacing. Area_5, usually held
out, has labelled shapes of the embedded test split alone, the others of the train split alone.
Armchairs and stools are chairs, desks are tables, shelves and cabinets taller than 1.2 m bookcases;
beds, lower cabinets, appliances, sinks, radiators, plants, boxes, lamps, screens and dishes are
clutter; people, trees, cars and the like stay out. Rooms that are there already are skipped.
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
HELD_OUT = 5
ROLES = {role: role for role in ("chair", "sofa", "desk", "table", "door", "window", "bed")}
ROLES |= {"armchair": "chair", "stool": "chair", "bookshelf": "bookcase"}
ROLES |= dict.fromkeys(("box", "plant", "Lamp", "Desk lamp", "Little lamp"), "loose")
ROLES |= dict.fromkeys(("cabinet", "appliance", "radiator", "sink"), "side")
ROLES |= dict.fromkeys(("screen", "bottle", "cup"), "top")
ROLES |= dict.fromkeys(("Hanging light", "Ceiling lamp", "Fluorescent light"), "light")
KINDS = {role: role for role in CLASSES.split()} | {"desk": "table", "low table": "table"}
RECIPES = {  # in the order of placing: (role, fewest, most)
    "office": [("desk", 1, 3), ("bookcase", 1, 3), ("sofa", 0, 1), ("chair", 2, 5)],
    "conferenceRoom": [("table", 1, 2), ("sofa", 0, 1), ("bookcase", 0, 1), ("chair", 4, 9)],
    "lounge": [("sofa", 1, 3), ("low table", 1, 2), ("bookcase", 0, 2), ("chair", 1, 4)],
    "pantry": [("table", 1, 2), ("side", 2, 5), ("chair", 2, 6)],
    "storage": [("bookcase", 2, 5), ("desk", 0, 1), ("side", 1, 3), ("loose", 1, 4)],
    "bedroom": [("bed", 1, 1), ("bookcase", 1, 2), ("side", 1, 2), ("desk", 0, 1), ("chair", 0, 2)],
}
SHELL = ("wall", "wall", "wall", "wall", "floor", "ceiling")
AT_WALL, OPENINGS = ("bookcase", "sofa", "desk", "bed", "side"), ("door", "window")
FIRST = [("door", 1, 1), ("window", 0, 2), ("beam", 0, 1), ("column", 0, 1), ("board", 0, 1)]
EVERYWHERE = [("loose", 0, 2), ("light", 0, 3), ("top", 0, 8)]
BUILT = {  # least and greatest width, depth and height; 9 is the whole room
    "beam": ((3, 0.2, 0.15), (9, 0.4, 0.3)),
    "column": ((0.3, 0.3, 9), (0.5, 0.5, 9)),
    "board": ((1.2, 0.03, 0.9), (2.4, 0.03, 1.2)),
}
PAINT = {"ceiling": 220, "floor": 120, "wall": 195, "beam": 195, "column": 195, "board": 140}
GAP, TRIES, DOORWAY, NOISE, EPSILON, LOWEST = 0.03, 60, 0.8, 0.003, 1e-6, -500
# Looking text up is many times faster than formatting: each millimetre from -0.5 m to 8 m.
METER_STRINGS = np.array([f"{mm / 1000:.3f} " for mm in range(LOWEST, 8000)], "S")
BYTES, LAST = (np.array([f"{byte}{end}" for byte in range(256)], "S") for end in " \n")

Points = Float[np.ndarray, "n 3"]
Colors = UInt8[np.ndarray, "n 3"]
Box = Float[np.ndarray, "2 3"]
Offer = tuple[Points, Float[np.ndarray, "3"]]


class Instance(NamedTuple):
    """One instance: its class, points in metres (z up), colours and the id of its model if any."""

    class_name: str
    points: Points
    colors: Colors
    model_id: str = ""


def assign_role(category: str, name: str, size: Float[np.ndarray, "3"]) -> str | None:
    """Say how a model of some width, height and depth is used, lamps by name; None: not at all."""
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
    """Return the usable models of a split by role, in metres, z up and facing -y."""
    data, models = Furniture([split]), defaultdict(list)
    for row, source in enumerate(data.ids):
        category, size = data.classes[data.labels[row]], data.sizes_cm[row] / 100
        if data.labels[row] >= 0 and (role := assign_role(category, data.names[row], size)):
            cloud = data.cloud(row)
            points = cloud.points[:, [0, 2, 1]] * [1.0, -1, 1]
            # The median, as no sample may lie on the thin handle or foot that ends one axis.
            points *= np.median(size[[0, 2, 1]] / np.ptp(points, axis=0))
            kind, points = KINDS.get(role, "clutter"), turned(points, 0)
            models[role].append(Instance(kind, points, np.asarray(cloud.colors), source))
    return dict(models)


def turned(points: Points, degrees: float) -> Points:
    """Turn points about the vertical and move their box to the origin."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    points = points @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    return points - points.min(0)


class Room:
    """A room while it is being composed: its parts and the boxes that are taken."""

    def __init__(self, models: dict[str, list[Instance]], spacing: float, rng: np.random.Generator):
        self.models, self.spacing, self.rng = models, spacing, rng
        self.size = rng.uniform([3, 3, 2.4], [7, 6, 3.2])
        self.box = np.stack([np.zeros(3), self.size])
        self.light = rng.uniform(0.75, 1.1) * rng.uniform(0.94, 1.06, 3)
        self.paint = {k: v + rng.uniform(-45, 35) + rng.normal(0, 9, 3) for k, v in PAINT.items()}
        self.taken, self.hiding, self.tables = list[Box](), list[Box](), list[Box]()
        self.parts = list[Instance]()

    def add(self, kind: str, points: Points, colors: np.ndarray, source: str = "") -> None:
        """Keep an instance as a sensor sees it in the light of this room."""
        noise = self.rng.normal(0, NOISE, points.shape)
        colors = (colors + self.rng.normal(0, 4, points.shape)) * self.light
        self.parts.append(
            Instance(kind, points + noise, colors.clip(0, 255).astype(np.uint8), source)
        )

    def faces(self, box: Box) -> Iterator[Points]:
        """Sample the six faces of a box: low and high across x, then y, then z."""
        for axis, side in np.ndindex(3, 2):
            low, extent = box[0].copy(), box[1] - box[0]
            low[axis], extent[axis] = box[side, axis], 0
            count = round(np.delete(extent, axis).prod() / self.spacing**2)
            yield low + extent * self.rng.random((count, 3))

    def dense(self, points: Points, colors: Colors) -> tuple[Points, Colors]:
        """Thin a surface, or fill in between near neighbours, to one point in a spacing square."""
        distances, near = cKDTree(points).query(points, k=9)
        # With r points a unit of area, the mean squared distance of the kth nearest is k / (pi r).
        area = len(points) * np.pi * np.square(distances[:, 8]).mean() / 8
        count = int(np.clip(area / self.spacing**2, 20, 10 * len(points)))
        chosen = np.resize(self.rng.permutation(len(points)), count)
        others = near[chosen[:, None], self.rng.integers(1, 9, (count, 2))]
        weights = self.rng.dirichlet([1, 1, 1], count) if count > len(points) else [1, 0, 0]
        triangles = points[np.column_stack([chosen, others])]
        return np.einsum("nkd,nk->nd", triangles, np.resize(weights, (count, 3))), colors[chosen]

    def within(self, points: Points, box: Box, degrees: float, z: float) -> Offer:
        """Offer a place anywhere in a box, seen from above, and at a height."""
        points = turned(points, degrees)
        low = box[0] + self.rng.random(3) * (box[1] - box[0] - points.max(0))
        low[2] = z
        return points, low

    def beside(self, points: Points, box: Box, inset: float, share: float, z: float = 0) -> Offer:
        """Offer a place with the back to a side of a box, in by the inset and a share of depth."""
        side = int(self.rng.integers(4))  # the back of a model turned so often: +y, -x, -y, +x
        points, low = self.within(points, box, 90 * side, z)
        axis, depth = 1 - side % 2, points.max(0)[1 - side % 2]
        inset += share * depth
        low[axis] = box[0, axis] + inset if side in (1, 2) else box[1, axis] - depth - inset
        return points, low

    def offer(self, role: str, points: Points) -> Offer:
        """Offer a place that suits a role."""
        rng, height = self.rng, points[:, 2].max()
        top, sill = self.size[2] - height, 0.1 if height > 1.5 else rng.uniform(0.8, 1)
        z = {"beam": top, "light": top, "board": 0.85, "window": sill}.get(role, 0)
        if role in AT_WALL:
            return self.beside(points, self.box, rng.uniform(0.02, 0.05), 0)
        if role in BUILT or role in OPENINGS:
            return self.beside(points, self.box, 0, -0.5 if role in OPENINGS else 0, z)
        degrees = 90 * int(rng.integers(4)) if "table" in role else rng.uniform(0, 360)
        if role in ("chair", "top") and self.tables:
            table = self.tables[rng.integers(len(self.tables))]
            if role == "chair":
                return self.beside(turned(points, rng.normal(0, 12)), table, -0.08, -1)
            middle = table + np.array([[0.15], [-0.15]]) * (table[1] - table[0])  # may be round
            return self.within(points, middle, degrees, table[1, 2])
        return self.within(points, self.box, degrees, z)

    def furnish(self, role: str) -> None:
        """Place a random model of a role, or something built, if a free place is found."""
        if role in BUILT:
            extent = self.rng.uniform(*BUILT[role]).clip(max=self.size)
            model = Instance(role, np.stack([np.zeros(3), extent]), np.empty((0, 3), np.uint8))
        else:
            model = self.models[role][self.rng.integers(len(self.models[role]))]
        taken = np.array(self.taken).reshape(-1, 2, 3)
        for points, low in (self.offer(role, model.points) for _ in range(TRIES)):
            box = np.stack([low, low + points.max(0)])
            outside = ((box < -EPSILON) | (box > self.size + EPSILON)).any()
            near = (box[0] < taken[:, 1] + GAP) & (taken[:, 0] < box[1] + GAP)
            if not near.all(1).any() and (role in OPENINGS or not outside):
                self.keep(role, model, points + low, box)
                break

    def keep(self, role: str, model: Instance, points: Points, box: Box) -> None:
        """Keep a model where it stands, and its box as taken."""
        if role in BUILT:
            self.add(role, np.concatenate([*self.faces(box)]), self.paint[role])
        else:
            self.add(model.class_name, *self.dense(points, model.colors), model.model_id)
        if role in BUILT or role in OPENINGS:
            self.hiding.append(box.copy())
        if role == "door":  # the way to it is taken too
            box[:, np.ptp(box, axis=0)[:2].argmin()] += [-DOORWAY, DOORWAY]
        if model.class_name == "table" and box[1, 2] < 1.04:  # taller ones have shelves
            self.tables.append(box.copy())
            box[1, 2] -= 2 * GAP  # but not what it carries
        self.taken.append(box)


def compose_room(seed: int, area: int, index: int, spacing: float) -> tuple[str, list[Instance]]:
    """Compose a room, which depends on the arguments alone; return its name and parts."""
    rng = np.random.default_rng([seed, area, index])
    kind = str(rng.choice([*RECIPES]))
    room = Room(load_catalog("test" if area == HELD_OUT else "train"), spacing, rng)
    for role, fewest, most in FIRST + RECIPES[kind] + EVERYWHERE:
        for _ in range(rng.integers(fewest, most + 1)):
            room.furnish(role)
    low, high = np.array(room.hiding).reshape(-1, 2, 1, 3).swapaxes(0, 1)
    for face, points in zip(SHELL, room.faces(room.box), strict=True):
        hidden = (points > low - EPSILON) & (points < high + EPSILON)
        room.add(face, points[~hidden.all(2).any(0)], room.paint[face])
    return f"{kind}_{index}", room.parts


def write_room(area: Path, name: str, parts: Sequence[Instance]) -> Path:
    """Write a room beside its place, move it there when it is whole and return the place."""
    draft, numbers = area / f".{name}.unfinished", Counter[str]()
    shutil.rmtree(draft, ignore_errors=True)
    (draft / "Annotations").mkdir(parents=True)
    with (draft / f"{name}.txt").open("wb") as whole:
        for part in parts:
            numbers[part.class_name] += 1
            metres = METER_STRINGS[np.rint(part.points * 1000).astype(int) - LOWEST]
            columns = metres, BYTES[part.colors[:, :2]], LAST[part.colors[:, 2:]]
            text = np.concatenate(columns, axis=1).tobytes().translate(None, b"\0")
            (
                draft / "Annotations" / f"{part.class_name}_{numbers[part.class_name]}.txt"
            ).write_bytes(text)
            whole.write(text)
    return draft.rename(area / name)


def compose_rooms(out: Path, rooms: int, areas: int, seed: int, spacing: float) -> str:
    """Write the rooms that are missing; return what there is then."""
    if rooms < 1 or areas < 1 or seed < 0 or not 0.01 <= spacing <= 0.5:
        raise ValueError("give 1 or more --rooms and --areas, --seed >= 0, --spacing 0.01 to 0.5")
    note = out / f"seed_{seed}_spacing_{spacing}"
    if not note.exists() and out.exists() and (out.is_file() or any(out.iterdir())):
        raise ValueError(f"{out} is a file or holds other files, seeds or spacings: give a new one")
    out.mkdir(parents=True, exist_ok=True)
    note.touch()
    points, todo = Counter[str](), [*np.ndindex(areas, rooms)]
    for area, index in track(todo, "rooms"):
        folder = out / f"Area_{area + 1}"
        room = next(folder.glob(f"[!.]*_{index + 1}"), None)
        room = room or write_room(folder, *compose_room(seed, area + 1, index + 1, spacing))
        for path in room.glob("Annotations/*.txt"):
            points[path.stem.rsplit("_", 1)[0]] += path.read_bytes().count(b"\n")
    table = ", ".join(f"{kind} {points[kind]:,}" for kind in CLASSES.split())
    return f"{len(todo)} rooms, {points.total():,} points: {table}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Compose as the command line says; wrong input ends in one line."""
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
