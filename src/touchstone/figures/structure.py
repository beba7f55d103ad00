"""A graph in layers as SVG whose text stays text."""

from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch, PathPatch
from matplotlib.path import Path as Curve

from touchstone.vocabulary import Structure

type Point = str | tuple[str, str, int]  # a node, or where an edge passes through a layer

_COLOURS = {
    "given": "#dbe9f6", "inferred": "#fde7c8", "computed": "#ffffff", "observed": "#d9d9d9",
    "set": "#f2b5a7", "responds": "#fbeeb0", "kept": "#eeeeee",
}  # fmt: skip
_CUT = "#cc3311"
_LETTER, _LINE = 0.085, 0.19  # inches, of text of 9 pt
_PAD, _GAP = 0.16, 0.22  # inches, about the text of a node and between nodes
_BETWEEN, _LEGEND = 0.6, 0.35  # inches between layers, and below them
_SPREAD = 0.7  # part of a side of a node that its edges take up
_SWEEPS = 4
# Text stays text, in the first of matplotlib's fonts without serifs that the reader's machine has;
# the same drawing has the same bytes.
_STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "structure"}


def save_structure(file: Path, structure: Structure) -> None:
    """Write the drawing of a structure as SVG."""
    with plt.rc_context(_STYLE):
        figure, ax = plt.subplots()
        size = structure_on(ax, structure)
        figure.set_size_inches(size)
        figure.subplots_adjust(0, 0, 1, 1)
        figure.savefig(file, format="svg", metadata={"Date": None})
        plt.close(figure)


def structure_on(ax: Axes, structure: Structure) -> tuple[float, float]:
    """Draw a structure on axes that are as large as what is returned, in inches.

    Layers follow each other downwards, or to the right where they are fewer than what is in one.
    """
    layers = layered(structure)
    down = len(layers) > max(map(len, layers))
    boxes = _placed(layers, structure, down)
    length, breadth = (max(box.u + box.along / 2 for box in boxes.values()) + _GAP,
                       max(box.v + box.across / 2 for box in boxes.values()) + _GAP)  # fmt: skip
    width, height = (breadth, length) if down else (length, breadth)
    height += _LEGEND

    def at(u: float, v: float) -> tuple[float, float]:
        return (v, height - u) if down else (u, height - v)

    for edge in structure.edges:
        course = [at(*end) for end in _course(edge, layers, boxes, structure.edges)]
        _draw_edge(ax, course, down, edge in structure.cut)
    for name, text in structure.nodes.items():
        box = boxes[name]
        size = (box.across, box.along) if down else (box.along, box.across)
        _draw_node(ax, at(box.u, box.v), size, text, _COLOURS[structure.kinds[name]])
    shown = [kind for kind in _COLOURS if kind in structure.kinds.values()]
    patches: list[Artist] = [
        Patch(fc=_COLOURS[kind], ec="black", lw=0.8, label=kind) for kind in shown
    ]
    if structure.cut:
        patches.append(Line2D([], [], color=_CUT, ls=":", lw=1.5, label="cut"))
    ax.legend(handles=patches, loc="lower left", ncols=len(patches), fontsize=9, frameon=False)
    ax.set(xlim=(0, width), ylim=(0, height))
    ax.axis("off")
    return width, height


class _Box(NamedTuple):
    """Where a point stands, in inches: along the layers and across them.

    Attributes:
        u, v: Of its centre.
        along, across: Its size.
    """

    u: float
    v: float
    along: float
    across: float


def _placed(layers: list[list[Point]], structure: Structure, down: bool) -> dict[Point, _Box]:
    """Boxes of all points: those of a layer have one extent along the layers."""
    size: dict[Point, tuple[float, ...]] = {
        name: _size(text)[:: -1 if down else 1] for name, text in structure.nodes.items()
    }
    size |= {p: (0.0, 0.0) for layer in layers for p in layer if not isinstance(p, str)}
    along = [max(size[point][0] for point in layer) for layer in layers]
    across = [sum(size[point][1] + _GAP for point in layer) for layer in layers]
    boxes, u = {}, _GAP
    for layer, extent, needed in zip(layers, along, across, strict=True):
        v = (max(across) - needed) / 2 + _GAP
        for point in layer:
            boxes[point] = _Box(u + extent / 2, v + size[point][1] / 2, extent, size[point][1])
            v += size[point][1] + _GAP
        u += extent + _BETWEEN
    return boxes


def _course(
    edge: tuple[str, str], layers: list[list[Point]], boxes: dict[Point, _Box], edges: list
) -> list[tuple[float, float]]:
    """Where an edge leaves its first node, passes through layers, and arrives at its second."""
    first, *passed, last = _route(*edge, layers)
    points = [
        (boxes[first].u + boxes[first].along / 2, _port(first, edge, boxes, edges, layers, 0))
    ]
    for point in passed:
        box = boxes[point]
        points += [(box.u - box.along / 2, box.v), (box.u + box.along / 2, box.v)]
    arrives = _port(last, edge, boxes, edges, layers, 1)
    return [*points, (boxes[last].u - boxes[last].along / 2, arrives)]


def _port(
    node: Point, edge: tuple[str, str], boxes: dict, edges: list, layers: list, end: int
) -> float:
    """Where on the side of a node an edge has its end: all of a side stand apart, in order."""
    at_side = [each for each in edges if each[end] == node]

    def beyond(each: tuple[str, str]) -> float:
        return boxes[_route(*each, layers)[-2 if end else 1]].v

    place = sorted(at_side, key=beyond).index(edge)
    box = boxes[node]
    return box.v + box.across * _SPREAD * ((place + 0.5) / len(at_side) - 0.5)


def layered(structure: Structure) -> list[list[Point]]:
    """Nodes by layer, each after all that it depends on, with few crossings (Sugiyama et al. 1981).

    An edge that skips layers has a point in each of them, so that it passes between nodes.
    """
    before = {name: [a for a, b in structure.edges if b == name] for name in structure.nodes}
    after = {name: [b for a, b in structure.edges if a == name] for name in structure.nodes}
    depth: dict[str, int] = {}
    for name in TopologicalSorter(before).static_order():
        depth[name] = 1 + max((depth[each] for each in before[name]), default=-1)
    for name in structure.nodes:  # what depends on nothing stands beside what depends on it
        if not before[name] and after[name]:
            depth[name] = min(depth[each] for each in after[name]) - 1
    layers: list[list[Point]] = [[] for _ in range(max(depth.values()) + 1)]
    for name in structure.nodes:
        layers[depth[name]].append(name)
    for a, b in structure.edges:
        for number in range(depth[a] + 1, depth[b]):
            layers[number].append((a, b, number))
    for sweep in range(_SWEEPS):
        pairs = list(pairwise(layers))
        for fixed, moved in pairs if sweep % 2 == 0 else [(b, a) for a, b in reversed(pairs)]:
            _order(moved, fixed, structure.edges)
    return layers


def _order(layer: list[Point], beside: list[Point], edges: list[tuple[str, str]]) -> None:
    """Sort a layer by where its neighbours in the layer beside it stand on average."""
    ends = {edge: {point for point in beside if _is_on(point, edge)} for edge in edges}

    def centre(point: Point) -> float:
        found = [beside.index(end) for edge in edges if _is_on(point, edge) for end in ends[edge]]
        return float(np.mean(found)) if found else (len(beside) - 1) / 2

    centres = {point: centre(point) for point in layer}
    layer.sort(key=lambda point: centres[point])


def _is_on(point: Point, edge: tuple[str, str]) -> bool:
    """Whether an edge begins, ends or passes there."""
    return point in edge if isinstance(point, str) else point[:2] == edge


def _route(a: str, b: str, layers: list[list[Point]]) -> list[Point]:
    """Points of an edge, from its first node to its second."""
    passed = [p for layer in layers for p in layer if not isinstance(p, str) and p[:2] == (a, b)]
    return [a, *passed, b]


def _size(text: str) -> tuple[float, float]:
    """Width and height of the box of a node, in inches."""
    lines = text.split("\n")
    return max(map(len, lines)) * _LETTER + 2 * _PAD, len(lines) * _LINE + 2 * _PAD


def _draw_node(ax: Axes, place: tuple, size: tuple, text: str, colour: str) -> None:
    (x, y), (width, height) = place, size
    corner, style = (x - width / 2, y - height / 2), "round,pad=0,rounding_size=0.08"
    ax.add_patch(
        FancyBboxPatch(corner, width, height, boxstyle=style, fc=colour, ec="black", lw=0.8)
    )
    heading, *lines = text.split("\n")
    top = y + len(lines) * _LINE / 2
    ax.text(x, top, heading, ha="center", va="center", fontsize=9, weight="bold")
    for number, line in enumerate(lines, 1):
        ax.text(x, top - number * _LINE, line, ha="center", va="center", fontsize=9)


def _draw_edge(ax: Axes, points: list[tuple[float, float]], down: bool, cut: bool) -> None:
    """A curve through points, which is parallel to the direction of the layers at each of them; of
    an edge that is cut, a dotted one without a head."""
    places, codes = [points[0]], [Curve.MOVETO]
    for (x0, y0), (x1, y1) in pairwise(points):
        x, y = (x0 + x1) / 2, (y0 + y1) / 2
        places += [(x0, y), (x1, y), (x1, y1)] if down else [(x, y0), (x, y1), (x1, y1)]
        codes += [Curve.CURVE4] * 3
    path = Curve(places, codes)
    if cut:
        ax.add_patch(PathPatch(path, fc="none", ec=_CUT, ls=":", lw=1.5))
        return
    arrow = FancyArrowPatch(path=path, arrowstyle="-|>", mutation_scale=11, lw=0.9, fc="black")
    ax.add_patch(arrow)
