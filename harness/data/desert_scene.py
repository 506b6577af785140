"""Geometry of the synthetic desert: where things stand, and the one canvas that both image and mask are read from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

SHADES = 16
"""Tones per kind: a canvas value is 1 + kind * SHADES + shade, dark to light; 0 is not drawn yet."""

_SUBPIXEL_BITS = 4
_CAMERA_HEIGHT = 1.6  # metres
_STEPS = 56


@dataclass(frozen=True)
class Camera:
    """A level pinhole camera 1.6 m above a flat ground; `horizon` is a row, lengths are in pixels."""

    height: int
    width: int
    horizon: float

    def row(self, nearness: float) -> float:
        """Row of the ground at `nearness`: 0 the horizon, 1 the bottom edge of the frame."""
        return self.horizon + nearness * (self.height - self.horizon)

    def unit(self, row: np.ndarray | float) -> np.ndarray | float:
        """Pixels per metre for what stands on the ground at `row`."""
        return (row - self.horizon) / _CAMERA_HEIGHT

    def world(self, x: np.ndarray | float, row: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        """Ground position in metres: to the right of the camera, and ahead of it."""
        unit = np.maximum(self.unit(row), 0.05)
        return (x - 0.5 * self.width) / unit, 0.9 * self.width / unit


@dataclass(frozen=True)
class Trail:
    """A winding track that plants and rocks mostly leave free."""

    offset: float
    swing: float
    phase: float

    def distance(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Metres sideways from the middle of the trail."""
        return x - self.offset - self.swing * np.sin(0.09 * z + self.phase)


@dataclass(frozen=True)
class Spot:
    """Where one object stands: base point and pixels per metre; `sun` is -1 (light from the left) or 1."""

    x: float
    y: float
    unit: float
    sun: int


class Pen:
    """Draws one object of one kind into a scratch layer and keeps the rectangle it touched."""

    def __init__(self, height: int, width: int, rng: np.random.Generator) -> None:
        self.layer = np.zeros((height, width), np.uint8)
        self.rng = rng
        self.begin(0)

    def begin(self, kind: int) -> None:
        height, width = self.layer.shape
        self._first = 1 + int(kind) * SHADES
        self._low = np.array([width, height])
        self._high = np.array([0, 0])

    def fill(self, points: np.ndarray, shade: float) -> None:
        """Fills a convex polygon; points (K 2) as x, y in pixels; shade in 0..1, dark to light."""
        self._touch(points, 1)
        cv2.fillConvexPoly(self.layer, self._fixed(points), self._value(shade), shift=_SUBPIXEL_BITS)

    def lines(self, points: np.ndarray, shade: float, thickness: float = 1.0) -> None:
        """Draws open lines; points (P K 2) as x, y in pixels; at least one pixel thick."""
        thick = max(1, round(thickness))
        self._touch(points.reshape(-1, 2), thick)
        cv2.polylines(self.layer, list(self._fixed(points)), False, self._value(shade), thick, shift=_SUBPIXEL_BITS)

    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the layer that were touched since `begin`."""
        return slice(self._low[1], max(self._high[1], self._low[1])), slice(self._low[0], max(self._high[0], self._low[0]))

    def _value(self, shade: float) -> int:
        jittered = shade + self.rng.uniform(-0.06, 0.06)
        return self._first + min(SHADES - 1, max(0, int(jittered * SHADES)))

    def _fixed(self, points: np.ndarray) -> np.ndarray:
        return np.round(points * (1 << _SUBPIXEL_BITS)).astype(np.int32)

    def _touch(self, points: np.ndarray, margin: int) -> None:
        size = self.layer.shape[::-1]
        low = np.floor(points.min(axis=0)).astype(int) - margin
        high = np.ceil(points.max(axis=0)).astype(int) + margin + 1
        self._low = np.minimum(self._low, np.clip(low, 0, size))
        self._high = np.maximum(self._high, np.clip(high, 0, size))


Draw = Callable[[Pen, Spot], None]


def _ring(corners: int, rng: np.random.Generator, jitter: float) -> np.ndarray:
    """Corners of a near-convex blob of radius about 1, (K 2)."""
    angle = (np.arange(corners) + rng.uniform(-0.3, 0.3, corners) + rng.random()) * (2 * np.pi / corners)
    radius = 1 - jitter * rng.random(corners)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _fan(pen: Pen, roots: np.ndarray, lean: np.ndarray, tall: np.ndarray, shades: tuple[float, float], thick: float) -> None:
    """Blades that bend outwards: dark as a whole, then light from the middle to the tip, in three tones."""
    middle = roots + np.stack([0.35 * lean, -0.6 * tall], axis=1)
    tip = roots + np.stack([lean, -tall], axis=1)
    blades = np.stack([roots, middle, tip], axis=1)
    for part in range(3):
        some = blades[part::3]
        if len(some):
            pen.lines(some, shades[0] + 0.09 * part, thick)
            pen.lines(some[:, 1:], shades[1] + 0.09 * part, thick)


def draw_dry_grass(pen: Pen, spot: Spot) -> None:
    rng = pen.rng
    tall = spot.unit * rng.uniform(0.22, 0.5)
    thick = max(1.0, 0.009 * spot.unit)
    spread = max(spot.unit * rng.uniform(0.2, 0.7), 0.03 * pen.layer.shape[1])
    tufts = int(np.clip(1.6 * spread / (tall + 1), 1, 10))
    blades = int(np.clip(0.8 * tall / thick, 2, 110))
    centre = np.repeat(rng.uniform(-spread, spread, tufts), blades)
    across = rng.normal(0, 1, tufts * blades)
    depth = rng.uniform(-0.12, 0.12, tufts * blades) * tall
    roots = np.stack([spot.x + centre + 0.3 * tall * across, spot.y + depth], axis=1)
    lean = tall * (0.3 * across + rng.normal(0, 0.18, len(across)))
    _fan(pen, roots, lean, tall * rng.uniform(0.45, 1.0, len(across)), (0.2, 0.55), thick)


def draw_dry_bush(pen: Pen, spot: Spot) -> None:
    rng = pen.rng
    radius = spot.unit * rng.uniform(0.28, 0.6)
    thick = max(1.0, 0.012 * spot.unit)
    twigs = int(np.clip(2.2 * radius / thick, 4, 220))
    angle = np.clip(rng.normal(0, 0.62, twigs), -1.45, 1.45)
    length = radius * rng.uniform(0.45, 1.0, twigs)
    roots = np.stack([spot.x + 0.16 * radius * rng.normal(0, 1, twigs), np.full(twigs, spot.y)], axis=1)
    _fan(pen, roots, length * np.sin(angle) * 1.15, length * np.cos(angle), (0.1, 0.45), thick)


def _leaves(pen: Pen, middle: np.ndarray, size: np.ndarray, count: int, sun: int) -> None:
    """A crown of overlapping leaf blobs in the ellipse `size` round `middle`, lit from above and from the sun's side."""
    rng = pen.rng
    inside = rng.normal(0, 0.42, (count, 2)).clip(-0.85, 0.85)
    light = 0.42 - 0.38 * inside[:, 1] + 0.22 * sun * inside[:, 0] + rng.normal(0, 0.09, count)
    radius = max(0.7, 1.5 * float(size.min()) / count**0.5)
    for i in np.argsort(light):
        blob = _ring(6, rng, 0.45) * (radius * rng.uniform(0.6, 1.1))
        pen.fill(middle + inside[i] * size + blob, light[i])


def draw_lush_bush(pen: Pen, spot: Spot) -> None:
    rng = pen.rng
    wide, tall = spot.unit * rng.uniform(0.3, 0.6), spot.unit * rng.uniform(0.22, 0.42)
    count = int(np.clip(wide * tall / 10, 4, 90))
    middle = np.array([spot.x, spot.y - 0.75 * tall])
    pen.fill(middle + [0, 0.2 * tall] + _ring(9, rng, 0.3) * [0.8 * wide, 0.55 * tall], 0.08)
    _leaves(pen, middle, np.array([wide, tall]), count, spot.sun)


def _limbs(spot: Spot, tall: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Trunk (1 3 2) and limbs (P 3 2) of a tree, from the base upwards."""
    base = np.array([spot.x, spot.y])
    fork = base + [0.08 * tall * rng.normal(), -tall * rng.uniform(0.3, 0.45)]
    trunk = np.stack([base, (base + fork) / 2 + [0.03 * tall * rng.normal(), 0], fork])[None]
    count = int(rng.integers(3, 6))
    side = np.linspace(-1, 1, count) + rng.normal(0, 0.12, count)
    tip = fork + np.stack([0.42 * tall * side, -tall * (0.5 - 0.2 * side**2 + rng.normal(0, 0.05, count))], axis=1)
    elbow = fork + (tip - fork) * [0.7, 0.4]
    return trunk, np.stack([np.repeat(fork[None], count, axis=0), elbow, tip], axis=1)


def draw_umbrella_tree(pen: Pen, spot: Spot) -> None:
    rng = pen.rng
    tall = spot.unit * rng.uniform(2.2, 4.2)
    trunk, limbs = _limbs(spot, tall, rng)
    pen.lines(trunk, 0.06, 0.06 * tall)
    pen.lines(limbs, 0.1, 0.03 * tall)
    count = int(np.clip(tall * tall / 90, 3, 34))
    for tip in limbs[:, 2]:
        _leaves(pen, tip, tall * np.array([rng.uniform(0.2, 0.3), rng.uniform(0.1, 0.16)]), count, spot.sun)


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
        _fan(pen, np.repeat(tip[None], spikes, axis=0), length * np.sin(angle), length * np.cos(angle), (0.3, 0.6), 0.012 * tall)


def draw_boulders(pen: Pen, spot: Spot) -> None:
    rng = pen.rng
    for _ in range(int(rng.integers(1, 4))):
        size = spot.unit * rng.uniform(0.06, 0.3) * np.array([1.0, rng.uniform(0.6, 0.85)])
        middle = np.array([spot.x + 0.5 * spot.unit * rng.normal(), spot.y - 0.7 * size[1]])
        outline = _ring(11, rng, 0.12)
        outline[:, 1] = np.minimum(outline[:, 1], 0.75)
        for scale, shade in ((1.0, 0.15), (0.82, 0.42), (0.6, 0.65), (0.32, 0.85)):
            shift = (1 - scale) * size * [0.55 * spot.sun, -0.6]
            pen.fill(middle + shift + outline * size * scale, shade)


def draw_slabs(pen: Pen, spot: Spot) -> None:
    rng = pen.rng
    largest = spot.unit * rng.choice([0.14, 0.22, 0.5], p=[0.5, 0.38, 0.12])
    spread = max(1.1 * spot.unit, 0.06 * pen.layer.shape[1])
    count = int(np.clip(0.9 * spread / (largest + 1), 2, 14))
    places = np.stack([rng.normal(0, 0.6 * spread, count), rng.normal(0, 0.14 * spot.unit, count)], axis=1)
    for place in places[np.argsort(places[:, 1])]:
        size = largest * rng.uniform(0.45, 1.0) * np.array([1.0, rng.uniform(0.35, 0.6)])
        top = place + [spot.x, spot.y] + _ring(int(rng.integers(4, 7)), rng, 0.3) * size
        edge = [0, max(0.8, 0.35 * size[1])]
        pen.fill(top + edge, 0.08)
        pen.fill(top, rng.uniform(0.45, 0.8))
        if size[0] > 8:
            split = top[[0, 2]] * [[0.8, 0.8], [0.8, 0.8]] + top.mean(axis=0) * 0.2
            pen.lines(split[None], 0.3, 0.03 * size[0])


def draw_log(pen: Pen, spot: Spot) -> None:
    rng = pen.rng
    length, radius = spot.unit * rng.uniform(0.8, 1.5), spot.unit * rng.uniform(0.07, 0.11)
    slope = rng.uniform(-0.25, 0.25)
    along = np.array([1.0, slope]) * 0.5 * length * rng.choice([-1, 1])
    middle = np.array([spot.x, spot.y - radius])
    ends = np.stack([middle - along, middle + along])
    pen.lines(ends[None], 0.12, 2.0 * radius)
    pen.lines(ends[None] - [0, 0.35 * radius], 0.4, 1.1 * radius)
    pen.lines(ends[None] - [0, 0.6 * radius], 0.62, 0.3 * radius)
    pen.fill(ends[1] + _ring(8, rng, 0.1) * [0.6 * radius, radius], 0.9)
    branch = middle + 0.3 * along
    pen.lines(np.stack([branch, branch + [0.12 * length, -0.22 * length]])[None], 0.3, 0.5 * radius)


def draw_flowers(pen: Pen, spot: Spot) -> None:
    rng = pen.rng
    spread = max(spot.unit * rng.uniform(0.25, 0.6), 0.03 * pen.layer.shape[1])
    bloom = max(0.7, 0.032 * spot.unit)
    tall = 0.2 * spot.unit
    count = int(np.clip(1.3 * spread / bloom, 3, 34))
    roots = np.stack([spot.x + rng.normal(0, 0.5 * spread, count), spot.y + rng.normal(0, 0.35 * tall, count)], axis=1)
    heads = roots + np.stack([rng.normal(0, 0.25 * tall, count), -tall * rng.uniform(0.5, 1.2, count)], axis=1)
    pen.lines(np.stack([roots, (roots + heads) / 2 + [0.05 * tall, 0], heads], axis=1), 0.08, 0.008 * spot.unit)
    for head in heads[np.argsort(roots[:, 1])]:
        petals = head + _ring(7, rng, 0.4) * [bloom, 0.75 * bloom]
        pen.fill(petals, rng.uniform(0.5, 0.85))
        if bloom > 2:
            pen.fill(head + _ring(5, rng, 0.1) * 0.3 * bloom, 0.97)


def draw_clutter(pen: Pen, spot: Spot) -> None:
    rng = pen.rng
    spread = max(0.6 * spot.unit, 0.04 * pen.layer.shape[1])
    piece = max(1.0, spot.unit * rng.uniform(0.05, 0.12))
    thick = max(1.0, 0.014 * spot.unit)
    count = int(np.clip(2.4 * spread / piece, 4, 40))
    middle = np.array([spot.x, spot.y]) + rng.normal(0, 1, (count, 2)) * [0.5 * spread, 0.16 * spread]
    angle = rng.uniform(0, np.pi, count)
    half = piece * np.stack([np.cos(angle), 0.45 * np.sin(angle)], axis=1) * rng.uniform(0.4, 1.0, (count, 1))
    twigs = np.stack([middle - half, middle + half], axis=1)
    for part in range(3):
        pen.lines(twigs[part::3], 0.15 + 0.22 * part, thick)
    for chip in middle[: count // 3]:
        pen.fill(chip + _ring(4, rng, 0.5) * piece * [0.5, 0.3], rng.uniform(0.3, 0.9))


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
    """One laid-out frame: `canvas` uint8 (H W) holds kind and shade, `nearness` and `shadow` float32 / uint8 (H W)."""

    camera: Camera
    trail: Trail
    sun: int
    canvas: np.ndarray
    nearness: np.ndarray
    shadow: np.ndarray
    sky: np.ndarray


def lay_out(kinds: tuple[Kind, ...], sky_share: float, ruggedness: float, height: int, width: int,
            rng: np.random.Generator) -> Scene:
    """Lays out one frame: objects from near to far until each kind has its pixels, then hills, then sky.

    Near to far (each object takes only what is still free) looks like painting far to near, but nothing drawn later
    can eat into what was counted, so that the shares hold at every size.
    """
    quotas = np.array([_quota(kind, height * width, rng) for kind in kinds])
    sky_quota = round(sky_share * rng.normal(1, 0.06) * height * width)
    trees = sum(quota for kind, quota in zip(kinds, quotas, strict=True) if kind.near < 0.3)
    horizon = (sky_quota + 0.75 * trees) / width + (0.012 + 0.02 * ruggedness) * height
    camera = Camera(height, width, float(horizon))
    trail = Trail(float(rng.normal(0, 1.2)), float(rng.uniform(0.5, 2.5)), float(rng.uniform(0, 6.3)))
    shape = (height, width)
    scene = Scene(camera, trail, int(rng.choice([-1, 1])), np.zeros(shape, np.uint8), np.zeros(shape, np.float32),
                  np.zeros(shape, np.uint8), np.zeros(shape, bool))
    _place_all(scene, kinds, quotas, rng)
    scene.sky = _sky(scene, sky_quota, ruggedness, rng)
    return scene


def _quota(kind: Kind, pixels: int, rng: np.random.Generator) -> int:
    """This frame's pixels of a kind: mean `share`, log-normal round it, none in some frames."""
    present = rng.random() < kind.presence
    jitter = float(np.exp(kind.spread * rng.normal() - 0.5 * kind.spread**2))
    return int(present * jitter * kind.share / kind.presence * pixels + rng.random())


def _place_all(scene: Scene, kinds: tuple[Kind, ...], quotas: np.ndarray, rng: np.random.Generator) -> None:
    pen = Pen(*scene.canvas.shape, rng)
    waves = rng.normal(0, 0.5, (len(kinds), 3, 2)), rng.uniform(0, 6.3, (len(kinds), 3))
    done = np.zeros(len(kinds), int)
    for nearness in np.geomspace(1.15, 0.02, _STEPS):
        for index in rng.permutation(len(kinds)):
            kind = kinds[index]
            wanted = quotas[index] * np.clip((kind.near - nearness) / (kind.near - kind.far), 0, 1)
            tries = 60 if nearness * 0.93 < kind.far else 9
            while done[index] < wanted and tries:
                tries -= 1
                room = 1.15 * (quotas[index] - done[index]) + 1
                done[index] += _place(scene, pen, index, kind, nearness, room, (waves[0][index], waves[1][index]))


def _place(scene: Scene, pen: Pen, index: int, kind: Kind, nearness: float, room: float,
           waves: tuple[np.ndarray, np.ndarray]) -> int:
    """Draws one object of a kind unless it would need more than `room` pixels; returns the pixels it got."""
    nearness = nearness * pen.rng.uniform(0.93, 1.0)
    row = scene.camera.row(nearness)
    spot = Spot(_column(scene, row, waves, pen.rng), row, float(scene.camera.unit(row)), scene.sun)
    pen.begin(index)
    kind.draw(pen, spot)
    window = pen.window()
    layer, taken = pen.layer[window], scene.canvas[window]
    layer[taken > 0] = 0
    gained = int(np.count_nonzero(layer))
    if 0 < gained <= room:
        scene.nearness[window][layer > 0] = nearness
        taken += layer
        _cast_shadow(scene, spot, kind.shadow)
    layer[:] = 0
    return gained if gained <= room else 0


def _column(scene: Scene, row: float, waves: tuple[np.ndarray, np.ndarray], rng: np.random.Generator) -> float:
    """The best of four random columns: kinds gather in patches of their own and keep off the trail."""
    columns = rng.uniform(-0.04, 1.04, 4) * scene.camera.width
    x, z = scene.camera.world(columns, row)
    waviness = np.cos(np.outer(x, waves[0][:, 0]) + z * waves[0][0, 1] + waves[1]).sum(axis=1)
    on_trail = np.abs(scene.trail.distance(x, z)) < 1.1
    return float(columns[np.argmax(waviness - 9 * on_trail)])


def _cast_shadow(scene: Scene, spot: Spot, half_width: float) -> None:
    if half_width * spot.unit < 0.7:
        return
    size = (max(1, round(1.35 * half_width * spot.unit)), max(1, round(0.3 * half_width * spot.unit)))
    centre = (round(spot.x - 0.7 * scene.sun * half_width * spot.unit), round(spot.y))
    cv2.ellipse(scene.shadow, centre, size, 0, 0, 360, 255, -1)


def _sky(scene: Scene, quota: int, ruggedness: float, rng: np.random.Generator) -> np.ndarray:
    """Where the sky shows, bool (H W): the hills are raised or lowered until `quota` free pixels are above them."""
    camera = scene.camera
    x = np.linspace(0, 1, camera.width)
    waves = sum(rng.normal(0, 1 / k) * np.cos(6.3 * k * 0.6 * x + rng.uniform(0, 6.3)) for k in (1, 2, 3, 5, 8, 13))
    ridge = camera.height * 0.02 * ruggedness * waves
    above = camera.horizon - (np.arange(camera.height)[:, None] + 0.5) - ridge
    free = scene.canvas == 0
    candidates = np.sort(above[free])
    level = candidates[max(0, len(candidates) - quota)] if len(candidates) else 0.0
    return free & (above >= level)
