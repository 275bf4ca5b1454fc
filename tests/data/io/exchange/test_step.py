"""STEP files give their parts in meters, with their colors."""

from pathlib import Path

import numpy as np
import pytest

from data.io.exchange.content import collect, compute_normals, measure, read
from recon.data.io.meshes.exchange import step
from recon.data.io.shape import read_shape

pytest.importorskip("cascadio")

UNITS = {
    "mm": "(LENGTH_UNIT()NAMED_UNIT(*)SI_UNIT(.MILLI.,.METRE.))",
    "m": "(LENGTH_UNIT()NAMED_UNIT(*)SI_UNIT($,.METRE.))",
}
LOOPS = (0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (2, 6, 7, 3), (0, 4, 6, 2), (1, 3, 7, 5)
"""Corners of the faces of a box, seen from outside."""


def scale(vector: np.ndarray) -> np.ndarray:
    return vector / np.abs(vector).max()


class _Part21:
    """Number the entities of a STEP file."""

    def __init__(self) -> None:
        self.lines = list[str]()

    def add(self, text: str) -> str:
        self.lines.append(f"#{len(self.lines) + 1}={text};")
        return f"#{len(self.lines)}"

    def add_place(self, point: np.ndarray, axis: np.ndarray, across: np.ndarray) -> str:
        names = [
            self.add(f"{kind}('',({','.join(f'{value:.6f}' for value in values)}))")
            for kind, values in (
                ("CARTESIAN_POINT", point),
                ("DIRECTION", axis),
                ("DIRECTION", across),
            )
        ]
        return self.add(f"AXIS2_PLACEMENT_3D('',{','.join(names)})")

    def add_box(self, size: np.ndarray) -> str:
        corners = [np.array([i & 1, i >> 1 & 1, i >> 2]) * size for i in range(8)]
        points = [
            self.add(f"CARTESIAN_POINT('',({c[0]:.6f},{c[1]:.6f},{c[2]:.6f}))") for c in corners
        ]
        vertices = [self.add(f"VERTEX_POINT('',{point})") for point in points]
        edges: dict[tuple[int, int], str] = {}
        faces = []
        for loop in (
            (0, 2, 3, 1),
            (4, 5, 7, 6),
            (0, 1, 5, 4),
            (2, 6, 7, 3),
            (0, 4, 6, 2),
            (1, 3, 7, 5),
        ):
            oriented = []
            for start, end in zip(loop, (*loop[1:], loop[0]), strict=True):
                low, high = min(start, end), max(start, end)
                if (low, high) not in edges:
                    along = (corners[high] - corners[low]) / np.abs(
                        corners[high] - corners[low]
                    ).max()
                    direction = self.add(f"DIRECTION('',({along[0]},{along[1]},{along[2]}))")
                    vector = self.add(f"VECTOR('',{direction},1.)")
                    line = self.add(f"LINE('',{points[low]},{vector})")
                    edges[low, high] = self.add(
                        f"EDGE_CURVE('',{vertices[low]},{vertices[high]},{line},.T.)"
                    )
                sense = ".T." if start == low else ".F."
                oriented.append(self.add(f"ORIENTED_EDGE('',*,*,{edges[low, high]},{sense})"))
            first, second, third = (corners[i].astype(float) for i in loop[:3])
            normal = np.cross(second - first, third - second)
            place = self.add_place(
                first,
                normal / np.abs(normal).max(),
                (second - first) / np.abs(second - first).max(),
            )
            plane = self.add(f"PLANE('',{place})")
            ring = self.add(f"EDGE_LOOP('',({','.join(oriented)}))")
            bound = self.add(f"FACE_OUTER_BOUND('',{ring},.T.)")
            faces.append(self.add(f"ADVANCED_FACE('',({bound}),{plane},.T.)"))
        shell = self.add(f"CLOSED_SHELL('',({','.join(faces)}))")
        return self.add(f"MANIFOLD_SOLID_BREP('',{shell})")

    def add_color(self, solid: str, context: str, color: tuple[float, ...]) -> None:
        name = self.add(f"COLOUR_RGB('',{','.join(map(str, color))})")
        for template in (
            "FILL_AREA_STYLE_COLOUR('',{})", "FILL_AREA_STYLE('',({}))",
            "SURFACE_STYLE_FILL_AREA({})", "SURFACE_SIDE_STYLE('',({}))",
            "SURFACE_STYLE_USAGE(.BOTH.,{})", "PRESENTATION_STYLE_ASSIGNMENT(({}))",
        ):  # fmt: skip
            name = self.add(template.format(name))
        item = self.add(f"STYLED_ITEM('color',({name}),{solid})")
        self.add(f"MECHANICAL_DESIGN_GEOMETRIC_PRESENTATION_REPRESENTATION('',({item}),{context})")


def write(path: Path, unit: str, size: tuple[int, int, int], color: tuple[float, ...]) -> Path:
    """Write a colored box."""
    part = _Part21()
    length = part.add(UNITS[unit])
    angle = part.add("(NAMED_UNIT(*)PLANE_ANGLE_UNIT()SI_UNIT($,.RADIAN.))")
    solid_angle = part.add("(NAMED_UNIT(*)SI_UNIT($,.STERADIAN.)SOLID_ANGLE_UNIT())")
    accuracy = part.add(
        f"UNCERTAINTY_MEASURE_WITH_UNIT(LENGTH_MEASURE(1.E-05),{length},'distance','')"
    )
    context = part.add(
        f"(GEOMETRIC_REPRESENTATION_CONTEXT(3)GLOBAL_UNCERTAINTY_ASSIGNED_CONTEXT(({accuracy}))"
        f"GLOBAL_UNIT_ASSIGNED_CONTEXT(({length},{angle},{solid_angle}))REPRESENTATION_CONTEXT('',''))"
    )
    solid = part.add_box(np.array(size))
    origin = part.add_place(np.zeros(3), np.eye(3)[2], np.eye(3)[0])
    shape = part.add(f"ADVANCED_BREP_SHAPE_REPRESENTATION('',({origin},{solid}),{context})")
    application = part.add("APPLICATION_CONTEXT('automotive design')")
    part.add(
        "APPLICATION_PROTOCOL_DEFINITION('international standard','automotive_design',2000,"
        f"{application})"
    )
    scope = part.add(f"PRODUCT_CONTEXT('',{application},'mechanical')")
    product = part.add(f"PRODUCT('box','box','',({scope}))")
    formation = part.add(f"PRODUCT_DEFINITION_FORMATION('','',{product})")
    stage = part.add(f"PRODUCT_DEFINITION_CONTEXT('part definition',{application},'design')")
    definition = part.add(f"PRODUCT_DEFINITION('design','',{formation},{stage})")
    described = part.add(f"PRODUCT_DEFINITION_SHAPE('','',{definition})")
    part.add(f"SHAPE_DEFINITION_REPRESENTATION({described},{shape})")
    part.add_color(solid, context, color)
    body = "\n".join(part.lines)
    path.write_text(
        "ISO-10303-21;\nHEADER;\nFILE_DESCRIPTION((''),'2;1');\n"
        "FILE_NAME('a','2026-01-01T00:00:00',(''),(''),'','','');\n"
        "FILE_SCHEMA(('AUTOMOTIVE_DESIGN { 1 0 10303 214 1 1 1 1 }'));\nENDSEC;\n"
        f"DATA;\n{body}\nENDSEC;\nEND-ISO-10303-21;\n"
    )
    return path


@pytest.mark.parametrize(("unit", "meters"), [("mm", 1e-3), ("m", 1)])
def test_a_box_is_read_in_meters_with_its_color(unit: str, meters: float, tmp_path: Path) -> None:
    content = read(write(tmp_path / "a.step", unit, (2, 3, 4), (1, 0.5, 0.25)))
    assert (content.up, content.unit_meters) == ("z", 1)
    corners = collect(content)
    np.testing.assert_allclose(corners.min((0, 1)), 0, atol=1e-7)
    np.testing.assert_allclose(corners.max((0, 1)), np.array([2, 3, 4]) * meters, rtol=1e-6)
    assert measure(content) == pytest.approx(52 * meters**2, rel=1e-6)
    outward = ((corners.mean(1) - corners.mean((0, 1))) * compute_normals(content)).sum(1)
    assert (outward > 0).all()
    (surface,) = content.surfaces
    assert surface.base_color is not None
    np.testing.assert_allclose(surface.base_color, [1, 0.5, 0.25], atol=1e-3)


@pytest.mark.parametrize(
    ("content", "reason"),
    [("solid a", "no header of STEP"), ("ISO-10303-21;\nHEADER;\n", "finds no shapes")],
)
def test_wrong_files_are_refused_without_messages(
    content: str, reason: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.stp").write_text(content)
    with pytest.raises(ValueError, match=rf"a\.stp: .*{reason}"):
        read_shape(tmp_path / "a.stp")
    assert capfd.readouterr() == ("", "")


def test_the_time_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.step", "mm", (1, 1, 1), (1, 1, 1))
    monkeypatch.setattr(step, "MAX_SECONDS", 0.001)
    with pytest.raises(ValueError, match=r"a\.step: .*takes more than 0\.001 s: split it"):
        read_shape(path)
