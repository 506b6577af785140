"""Geometry of the synthetic desert: where things stand, on the one canvas that image and mask are read from.

Top to bottom: camera and places, the pen, a drawing for each kind of object, and the layout of a frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

Reals = float | np.ndarray
SHADES = 16
"""Tones per kind: a canvas value is 1 + kind * SHADES + shade, dark to light; 0 is not drawn yet."""

_SUBPIXEL_BITS = 4
_CAMERA_HEIGHT = 1.6  # metres
_NEAREST, _FARTHEST, _STEPS, _TRIES = 1.15, 0.02, 36, 9
_TREE_LINE = 0.3
_TRAIL_HALF_WIDTH = 1.1  # metres
_ENOUGH = 0.98  # of a quota: the last few pixels would cost many tries


@dataclass(frozen=True)
class Camera:
    """A level pinhole camera 1.6 m above a flat ground; `horizon` is a row, lengths are in pixels."""

    height: int
    width: int
    horizon: float

    def row(self, nearness: float) -> float:
        """Row of the ground at `nearness`: 0 the horizon, 1 the bottom edge of the frame."""
        return self.horizon + nearness * (self.height - self.horizon)

    def unit(self, row: Reals) -> Reals:
        """Pixels per metre for what stands on the ground at `row`."""
        return (row - self.horizon) / _CAMERA_HEIGHT

    def world(self, x: Reals, row: Reals) -> tuple[Reals, Reals]:
        """Ground position in metres, right of the camera and ahead of it, for rows below the horizon."""
        unit = self.unit(row)
        return (x - 0.5 * self.width) / unit, 0.9 * self.width / unit


@dataclass(frozen=True)
class Trail:
    """A winding track that plants and rocks mostly leave free."""

    offset: float
    swing: float
    phase: float

    def distance(self, x: Reals, z: Reals) -> Reals:
        """Metres sideways from the middle of the trail."""
        return x - self.offset - self.swing * np.sin(0.09 * z + self.phase)


@dataclass(frozen=True)
class Patches:
    """Where a kind likes to grow: a sum of waves on the ground, each (1/m across, 1/m ahead, phase)."""

    waves: list[tuple[float, float, float]]

    def density(self, x: float, z: float) -> float:
        return sum(math.cos(across * x + ahead * z + phase) for across, ahead, phase in self.waves)


@dataclass(frozen=True)
class Spot:
    """Where one object stands: base point and pixels per metre; `sun` is -1 (light from the left) or 1."""

    x: float
    y: float
    unit: float
    sun: int


class Pen:
    """Draws one object of one kind at a time into a scratch layer, uint8 (H W), that is empty in between.

    Points are x, y in pixels; shades run from 0 (dark) to 1 (light).
    """

    def __init__(self, height: int, width: int, rng: np.random.Generator) -> None:
        self.layer = np.zeros((height, width), np.uint8)
        self.rng = rng
        self.kind = 0

    def fill(self, polygons: np.ndarray, shades: np.ndarray | float) -> None:
        """Fills convex polygons (P K 2), the later ones over the earlier ones; shades (P,) or one for all."""
        jittered = shades + 0.12 * (self.rng.random(len(polygons)) - 0.5)
        for points, shade in zip(_fixed(polygons), jittered.tolist(), strict=True):
            cv2.fillConvexPoly(self.layer, points, self._value(shade), shift=_SUBPIXEL_BITS)

    def lines(self, lines: np.ndarray, shade: float, thickness: float = 1.0) -> None:
        """Draws open lines (P K 2) in one shade, at least one pixel thick."""
        thick = max(1, round(thickness))
        value = self._value(shade + 0.12 * (self.rng.random() - 0.5))
        cv2.polylines(self.layer, list(_fixed(lines)), False, value, thick, shift=_SUBPIXEL_BITS)

    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the layer that hold the object."""
        x, y, width, height = cv2.boundingRect(self.layer)
        return slice(y, y + height), slice(x, x + width)

    def _value(self, shade: float) -> int:
        return 1 + self.kind * SHADES + min(SHADES - 1, max(0, int(shade * SHADES)))


def _fixed(points: np.ndarray) -> np.ndarray:
    return np.rint(points * (1 << _SUBPIXEL_BITS)).astype(np.int32, order="C")


Draw = Callable[[Pen, Spot], None]


def _xy(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Points (P 2) from two columns; np.stack costs several times as much on arrays this small."""
    points = np.empty((len(x), 2))
    points[:, 0] = x
    points[:, 1] = y
    return points


def _blobs(count: int, corners: int, rng: np.random.Generator, jitter: float) -> np.ndarray:
    """Outlines of near-convex blobs of radius about 1 round the origin, (count corners 2)."""
    shape = (count, corners)
    angle = (np.arange(corners) + rng.uniform(-0.3, 0.3, shape) + rng.random((count, 1))) * (2 * np.pi / corners)
    radius = 1 - jitter * rng.random(shape)
    outlines = np.empty((*shape, 2))
    outlines[..., 0] = radius * np.cos(angle)
    outlines[..., 1] = radius * np.sin(angle)
    return outlines


def _fan(
    pen: Pen, roots: np.ndarray, lean: np.ndarray, tall: np.ndarray, shades: tuple[float, float], thick: float
) -> None:
    """Blades that bend outwards: dark as a whole, then light from middle to tip, in up to three tones."""
    blades = np.empty((len(roots), 3, 2))
    blades[:, 0] = roots
    blades[:, 1] = roots + _xy(0.35 * lean, -0.6 * tall)
    blades[:, 2] = roots + _xy(lean, -tall)
    tones = min(3, 1 + len(blades) // 40)
    for part in range(tones):
        some = blades[part::tones]
        pen.lines(some, shades[0] + 0.09 * part, thick)
        pen.lines(some[:, 1:], shades[1] + 0.09 * part, thick)


def draw_dry_grass(pen: Pen, spot: Spot) -> None:
    rng = pen.rng
    tall = spot.unit * rng.uniform(0.22, 0.5)
    thick = max(1.0, 0.006 * spot.unit)
    spread = max(spot.unit * rng.uniform(0.5, 1.3), 0.09 * pen.layer.shape[1])
    tufts = int(np.clip(3.0 * spread / (tall + 1), 1, 24))
    blades = int(np.clip(0.8 * tall / thick, 2, 90))
    centre = np.repeat(rng.uniform(-spread, spread, tufts), blades)
    across = rng.normal(0, 1, tufts * blades)
    depth = np.repeat(rng.uniform(-0.4, 0.0, tufts), blades) + rng.uniform(-0.12, 0.12, tufts * blades)
    roots = _xy(spot.x + centre + 0.3 * tall * across, spot.y + depth * tall)
    lean = tall * (0.3 * across + rng.normal(0, 0.18, len(across)))
    _fan(pen, roots, lean, tall * rng.uniform(0.45, 1.0, len(across)), (0.2, 0.55), thick)


def draw_dry_bush(pen: Pen, spot: Spot) -> None:
    rng = pen.rng
    radius = spot.unit * rng.uniform(0.28, 0.6)
    thick = max(1.0, 0.012 * spot.unit)
    twigs = int(np.clip(2.2 * radius / thick, 4, 220))
    angle = np.clip(rng.normal(0, 0.62, twigs), -1.45, 1.45)
    length = radius * rng.uniform(0.45, 1.0, twigs)
    roots = _xy(spot.x + 0.16 * radius * rng.normal(0, 1, twigs), np.full(twigs, spot.y))
    _fan(pen, roots, length * np.sin(angle) * 1.15, length * np.cos(angle), (0.1, 0.45), thick)


def _leaves(pen: Pen, middles: np.ndarray, sizes: np.ndarray, count: int, sun: int) -> None:
    """Crowns of overlapping leaf blobs in ellipses `sizes` (M 2) round `middles` (M 2), lit by the sun."""
    rng = pen.rng
    inside = rng.normal(0, 0.42, (len(middles), count, 2)).clip(-0.85, 0.85)
    light = 0.42 - 0.38 * inside[..., 1] + 0.22 * sun * inside[..., 0] + rng.normal(0, 0.11, inside.shape[:2])
    order = np.argsort(light, axis=None)
    places = (middles[:, None] + inside * sizes[:, None]).reshape(-1, 1, 2)
    radius = max(0.7, 1.4 * float(sizes.min()) / count**0.5) * rng.uniform(0.5, 1.1, (len(places), 1, 1))
    pen.fill((places + radius * _blobs(len(places), 6, rng, 0.45))[order], light.ravel()[order])


def draw_lush_bush(pen: Pen, spot: Spot) -> None:
    rng = pen.rng
    wide, tall = spot.unit * rng.uniform(0.35, 0.75), spot.unit * rng.uniform(0.25, 0.5)
    count = int(np.clip(wide * tall / 13, 4, 260))
    middle = np.array([spot.x, spot.y - 0.75 * tall])
    pen.fill(middle + [0, 0.2 * tall] + _blobs(1, 9, rng, 0.3) * [0.8 * wide, 0.55 * tall], 0.08)
    _leaves(pen, middle[None], np.array([[wide, tall]]), count, spot.sun)


def _limbs(spot: Spot, tall: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Trunk (1 3 2) and limbs (P 3 2) of a tree, from the base upwards."""
    base = np.array([spot.x, spot.y])
    fork = base + [0.08 * tall * rng.normal(), -tall * rng.uniform(0.3, 0.45)]
    trunk = np.stack([base, (base + fork) / 2 + [0.03 * tall * rng.normal(), 0], fork])[None]
    count = int(rng.integers(3, 6))
    side = np.linspace(-1, 1, count) + rng.normal(0, 0.12, count)
    tip = fork + _xy(0.42 * tall * side, -tall * (0.5 - 0.2 * side**2 + rng.normal(0, 0.05, count)))
    elbow = fork + (tip - fork) * [0.7, 0.4]
    return trunk, np.stack([np.repeat(fork[None], count, axis=0), elbow, tip], axis=1)


def draw_umbrella_tree(pen: Pen, spot: Spot) -> None:
    rng = pen.rng
    tall = spot.unit * rng.uniform(2.8, 4.8)
    trunk, limbs = _limbs(spot, tall, rng)
    pen.lines(trunk, 0.06, 0.06 * tall)
    pen.lines(limbs, 0.1, 0.03 * tall)
    count = int(np.clip(tall * tall / 160, 2, 90))
    crowns = tall * rng.uniform([0.2, 0.1], [0.3, 0.16], (len(limbs), 2))
    _leaves(pen, limbs[:, 2], crowns, count, spot.sun)


def draw_joshua_tree(pen: Pen, spot: Spot) -> None:
    rng = pen.rng
    tall = spot.unit * rng.uniform(1.6, 3.0)
    trunk, limbs = _limbs(spot, tall, rng)
    pen.lines(trunk, 0.2, 0.1 * tall)
    pen.lines(limbs, 0.25, 0.07 * tall)
    spikes = int(np.clip(0.9 * tall, 4, 60))
    for tip in limbs[:, 2]:
        angle = rng.uniform(-2.2, 2.2, spikes)
        length = tall * rng.uniform(0.1, 0.2, spikes)
        roots = np.repeat(tip[None], spikes, axis=0)
        _fan(pen, roots, length * np.sin(angle), length * np.cos(angle), (0.3, 0.6), 0.012 * tall)


def draw_boulders(pen: Pen, spot: Spot) -> None:
    rng = pen.rng
    count = int(rng.integers(2, 5))
    size = spot.unit * rng.uniform(0.08, 0.36, (count, 1, 1, 1)) * [1.0, rng.uniform(0.6, 0.85)]
    middle = np.array([spot.x, spot.y]) + rng.normal(0, [0.5 * spot.unit, 0], (count, 1, 1, 2)) - 0.7 * size * [0, 1]
    outline = _blobs(count, 11, rng, 0.12)[:, None]
    outline[..., 1] = np.minimum(outline[..., 1], 0.75)
    scale = np.array([1.0, 0.82, 0.6, 0.32])[:, None, None]
    towards_sun = (1 - scale) * size * [0.55 * spot.sun, -0.6]
    layers = middle + towards_sun + outline * size * scale
    pen.fill(layers.reshape(-1, 11, 2), np.tile([0.15, 0.42, 0.65, 0.85], count))


def draw_slabs(pen: Pen, spot: Spot) -> None:
    rng = pen.rng
    largest = spot.unit * rng.choice((0.14, 0.22, 0.5), p=(0.5, 0.38, 0.12))
    spread = max(1.1 * spot.unit, 0.08 * pen.layer.shape[1])
    count = int(np.clip(0.9 * spread / (largest + 1), 2, 18))
    places = rng.normal(0, 1, (count, 2)) * [0.6 * spread, 0.14 * spot.unit]
    places = (places[np.argsort(places[:, 1])] + [spot.x, spot.y])[:, None]
    size = largest * rng.uniform(0.45, 1.0, (count, 1, 1)) * rng.uniform([1.0, 0.35], [1.0, 0.6], (count, 1, 2))
    tops = places + size * _blobs(count, int(rng.integers(4, 7)), rng, 0.3)
    sides = tops + [0, 1] * np.maximum(0.8, 0.35 * size)
    shades = _xy(np.full(count, 0.08), rng.uniform(0.4, 0.8, count))
    pen.fill(np.stack([sides, tops], axis=1).reshape(2 * count, -1, 2), shades.ravel())
    if largest > 12:
        cracks = 0.75 * tops[:, [0, 2]] + 0.25 * tops.mean(axis=1, keepdims=True)
        pen.lines(cracks[::2], 0.3, 0.02 * largest)


def draw_log(pen: Pen, spot: Spot) -> None:
    rng = pen.rng
    length, radius = spot.unit * rng.uniform(0.8, 1.5), spot.unit * rng.uniform(0.07, 0.11)
    along = np.array([1.0, rng.uniform(-0.25, 0.25)]) * 0.5 * length * rng.choice((-1, 1))
    middle = np.array([spot.x, spot.y - radius])
    ends = np.stack([middle - along, middle + along])[None]
    branch = middle + 0.3 * along
    pen.lines(np.stack([branch, branch + [0.12 * length, -0.22 * length]])[None], 0.3, 0.5 * radius)
    pen.lines(ends, 0.12, 2.0 * radius)
    pen.lines(ends - [0, 0.35 * radius], 0.4, 1.1 * radius)
    pen.lines(ends - [0, 0.6 * radius], 0.62, 0.3 * radius)
    pen.fill(ends[:, 1:] + _blobs(1, 8, rng, 0.1) * [0.6 * radius, radius], 0.9)


def draw_flowers(pen: Pen, spot: Spot) -> None:
    rng = pen.rng
    spread = max(spot.unit * rng.uniform(0.3, 0.9), 0.045 * pen.layer.shape[1])
    bloom = max(0.7, 0.032 * spot.unit)
    tall = 0.2 * spot.unit
    count = int(np.clip(1.5 * spread / bloom, 3, 50))
    roots = rng.normal(0, 1, (count, 2)) * [0.5 * spread, 0.35 * tall]
    roots = roots[np.argsort(roots[:, 1])] + [spot.x, spot.y]
    heads = roots + _xy(rng.normal(0, 0.25 * tall, count), -tall * rng.uniform(0.5, 1.2, count))
    pen.lines(np.stack([roots, (roots + heads) / 2 + [0.05 * tall, 0], heads], axis=1), 0.08, 0.008 * spot.unit)
    pen.fill(heads[:, None] + _blobs(count, 7, rng, 0.4) * [bloom, 0.75 * bloom], rng.uniform(0.5, 0.85, count))
    if bloom > 2:
        pen.fill(heads[:, None] + _blobs(count, 5, rng, 0.1) * 0.3 * bloom, 0.97)


def draw_clutter(pen: Pen, spot: Spot) -> None:
    rng = pen.rng
    spread = max(0.9 * spot.unit, 0.06 * pen.layer.shape[1])
    piece = max(1.0, spot.unit * rng.uniform(0.05, 0.12))
    thick = max(1.0, 0.014 * spot.unit)
    count = int(np.clip(3.6 * spread / piece, 4, 110))
    middle = np.array([spot.x, spot.y]) + rng.normal(0, 1, (count, 2)) * [0.5 * spread, 0.16 * spread]
    angle = rng.uniform(0, np.pi, count)
    half = piece * _xy(np.cos(angle), 0.45 * np.sin(angle)) * rng.uniform(0.4, 1.0, (count, 1))
    twigs = np.stack([middle - half, middle + half], axis=1)
    for part in range(3):
        pen.lines(twigs[part::3], 0.15 + 0.22 * part, thick)
    chips = count // 3
    outlines = middle[:chips, None] + _blobs(chips, 4, rng, 0.5) * piece * [0.5, 0.3]
    pen.fill(outlines, rng.uniform(0.3, 0.9, chips))


@dataclass(frozen=True)
class Kind:
    """One labelled kind of object: raw id, share of the pixels, how often a frame has it at all, and where.

    `near` and `far` bound its nearness (0 the horizon, 1 the bottom edge); `shadow` is metres of half-width.
    """

    raw_id: int
    draw: Draw
    share: float
    presence: float = 1.0
    spread: float = 0.25
    near: float = 1.15
    far: float = 0.03
    shadow: float = 0.0


@dataclass
class Scene:
    """One laid-out frame; all arrays are (H W).

    `canvas` uint8 holds kind and shade, `row` float32 where the thing seen at a pixel meets the ground,
    `shadow` uint8 0..255, `sky` bool. A free pixel of the canvas that is not sky is Landscape.
    """

    camera: Camera
    trail: Trail
    sun: int
    canvas: np.ndarray
    row: np.ndarray
    shadow: np.ndarray
    sky: np.ndarray


def lay_out(
    kinds: tuple[Kind, ...],
    sky_share: float,
    ruggedness: float,
    height: int,
    width: int,
    rng: np.random.Generator,
) -> Scene:
    """Lays out one frame: objects from near to far until each kind has its pixels, then hills, then sky.

    Near to far (each object takes only what is still free) looks like painting far to near, but nothing drawn
    later can eat into what was counted, so that the shares hold at every size.
    """
    shape = (height, width)
    quotas = [_quota(kind, height * width, rng) for kind in kinds]
    sky_quota = round(sky_share * rng.normal(1, 0.06) * height * width)
    skyward = 0.75 * sum(quota for kind, quota in zip(kinds, quotas, strict=True) if kind.near < _TREE_LINE)
    horizon = (sky_quota + skyward) / width + (0.012 + 0.02 * ruggedness) * height
    scene = Scene(
        camera=Camera(height, width, horizon),
        trail=Trail(rng.normal(0, 1.2), rng.uniform(0.5, 2.5), rng.uniform(0, 6.3)),
        sun=int(rng.choice((-1, 1))),
        canvas=np.zeros(shape, np.uint8),
        row=np.broadcast_to(np.arange(height, dtype=np.float32)[:, None] + 0.5, shape).copy(),
        shadow=np.zeros(shape, np.uint8),
        sky=np.zeros(shape, bool),
    )
    _place_all(scene, kinds, quotas, rng)
    scene.sky = _sky(scene, sky_quota, ruggedness, rng)
    return scene


def _quota(kind: Kind, pixels: int, rng: np.random.Generator) -> int:
    """This frame's pixels of a kind: mean `share`, log-normal round it, none in some frames."""
    present = rng.random() < kind.presence
    jitter = float(np.exp(kind.spread * rng.normal() - 0.5 * kind.spread**2))
    return int(present * jitter * kind.share / kind.presence * pixels + rng.random())


def _place_all(scene: Scene, kinds: tuple[Kind, ...], quotas: list[int], rng: np.random.Generator) -> None:
    pen = Pen(*scene.canvas.shape, rng)
    patches = [Patches(rng.normal(0, [0.5, 0.5, 3.0], (2, 3)).tolist()) for _ in kinds]
    done = [0] * len(kinds)
    for nearness in np.geomspace(_NEAREST, _FARTHEST, _STEPS).tolist():
        for index in rng.permutation(len(kinds)).tolist():
            kind, quota = kinds[index], quotas[index]
            wanted = _ENOUGH * quota * min(1.0, (kind.near - nearness) / (kind.near - kind.far))
            for _ in range(_TRIES):
                if done[index] >= wanted:
                    break
                row = scene.camera.row(nearness * rng.uniform(0.89, 1.0))
                spot = Spot(_column(scene, row, patches[index], rng), row, scene.camera.unit(row), scene.sun)
                pen.kind = index
                kind.draw(pen, spot)
                done[index] += _claim(scene, pen, spot, kind.shadow, 1.15 * (quota - done[index]) + 1)


def _claim(scene: Scene, pen: Pen, spot: Spot, shadow: float, room: float) -> int:
    """Moves the drawn object to the free part of the canvas unless it would take over `room` pixels.

    Returns the number of pixels it took.
    """
    window = pen.window()
    layer, taken = pen.layer[window], scene.canvas[window]
    visible = layer * (taken == 0)
    layer[:] = 0
    gained = int(np.count_nonzero(visible))
    if gained > room:
        return 0
    taken += visible
    np.copyto(scene.row[window], spot.y, where=visible > 0)
    _cast_shadow(scene, spot, shadow)
    return gained


def _column(scene: Scene, row: float, patches: Patches, rng: np.random.Generator) -> float:
    """The best of three random columns: kinds gather in patches of their own and keep off the trail."""
    columns = [(1.08 * random - 0.04) * scene.camera.width for random in rng.random(3).tolist()]
    return max(columns, key=lambda column: _liking(scene, column, row, patches))


def _liking(scene: Scene, column: float, row: float, patches: Patches) -> float:
    x, z = scene.camera.world(column, row)
    return patches.density(x, z) - 9 * (abs(scene.trail.distance(x, z)) < _TRAIL_HALF_WIDTH)


def _cast_shadow(scene: Scene, spot: Spot, half_width: float) -> None:
    if half_width * spot.unit < 0.7:
        return
    size = (max(1, round(1.35 * half_width * spot.unit)), max(1, round(0.3 * half_width * spot.unit)))
    centre = (round(spot.x - 0.7 * scene.sun * half_width * spot.unit), round(spot.y))
    cv2.ellipse(scene.shadow, centre, size, 0, 0, 360, 255, -1)


def _sky(scene: Scene, quota: int, ruggedness: float, rng: np.random.Generator) -> np.ndarray:
    """Where the sky shows, bool (H W): the hills rise or sink until `quota` free pixels are above them."""
    camera = scene.camera
    x = np.linspace(0, 1, camera.width)
    waves = sum(rng.normal(0, 1 / k) * np.cos(6.3 * k * 0.6 * x + rng.uniform(0, 6.3)) for k in (1, 2, 3, 5, 8, 13))
    ridge = camera.height * 0.02 * ruggedness * waves
    above_horizon = camera.horizon - (np.arange(camera.height)[:, None] + 0.5)
    above_ridge = above_horizon - ridge
    free = (scene.canvas == 0) & (above_horizon > 0)
    candidates = np.sort(above_ridge[free])
    return free & (above_ridge >= candidates[max(0, len(candidates) - quota)])
