"""What a check of a data set finds."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from recon.data.dataset import PointCloudDataset
from recon.data.prepared.shard import ShardSummary


class CheckReport:
    """What was found in a data set: errors, which cost samples, and remarks, which do not."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.warnings: dict[str, None] = {}
        self.splits: dict[str, dict[str, Any]] = {}
        self._prints: dict[int, tuple[str, str]] = {}

    def add_warning(self, line: str) -> None:
        self.warnings[line] = None

    def add_split(
        self,
        name: str,
        data: PointCloudDataset,
        shards: Sequence[ShardSummary],
        published_size: int | None,
    ) -> None:
        """Add what was found in one split."""
        rows = [row for shard in shards for row in shard.rows]
        for shard in shards:
            self.errors += shard.errors
        if published_size is not None and len(data) != published_size:
            self.add_warning(f"{name}: has {len(data):,} clouds, {published_size:,} were published")
        counts = [int(count) for shard in shards for count in shard.point_counts]
        reach = [float(value) for shard in shards for value in shard.max_abs_coords]
        labels = Counter(data.labels[rows].tolist() if len(data.labels) else [])
        empty = [c for number, c in enumerate(data.classes) if labels and not labels[number]]
        if empty:
            self.add_warning(f"{name}: has no cloud of {len(empty)} classes, among them {empty[0]}")
        if len(set(data.ids)) < len(data.ids):
            twice = [i for i, count in Counter(data.ids).items() if count > 1]
            self.add_warning(
                f"{name}: lists {len(twice)} ids more than once, among them {twice[0]}"
            )
        self.splits[name] = {
            "clouds": len(data),
            "read": len(rows),
            "points": [min(counts, default=0), max(counts, default=0)],
            "largest_coordinate": [min(reach, default=0.0), max(reach, default=0.0)],
            "carried": sorted({field for shard in shards for field in shard.point_fields}),
            "pictures": sum(shard.num_images for shard in shards),
            "classes": sum(count > 0 for count in labels.values()),
        }
        self._compare(name, [data.ids[row] for row in rows], shards)
        for line in data.file_warnings():
            self.add_warning(line)

    def _compare(self, name: str, ids: list[str], shards: Sequence[ShardSummary]) -> None:
        """Look for clouds that an earlier split, or this one, holds already."""
        prints = [int(value) for shard in shards for value in shard.fingerprints]
        shared = Counter[str]()
        for ident, value in zip(ids, prints, strict=True):
            other = self._prints.setdefault(value, (name, ident))
            if other[0] != name and other[1] == ident:
                shared[other[0]] += 1
            elif other[0] != name:
                self.add_warning(
                    f"the same points in two splits: {other[0]} {other[1]}, {name} {ident}"
                )
            elif other[1] != ident:
                self.add_warning(f"{name}: the same points twice: {other[1]}, {ident}")
        for other_name, count in shared.items():
            self.add_warning(f"{count:,} clouds are both in {other_name} and in {name}")

    def to_dict(self) -> dict[str, Any]:
        return {"splits": self.splits, "errors": self.errors, "remarks": list(self.warnings)}
