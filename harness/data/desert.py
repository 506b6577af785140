"""Procedural desert frames with exact masks, for trying a pipeline where the Falcon frames are not at hand.

Two environments share the classes but little else: *train* is bright sand with green bushes and round
boulders, *test* is brown, hazy and strewn with slabs in the colour of the ground, so that the domain gap is
real. The shares of the classes are those of the official data set.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from harness.data import desert_scene as draw
from harness.data.desert_scene import SHADES, Kind, Scene
from harness.errors import DataError

EnvironmentName = Literal["train", "test"]
Colour = tuple[int, int, int]

LANDSCAPE_ID = 7100
SKY_ID = 10000
SMALLEST_SIDE = 32
_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Environment:
    """What a place looks like: its kinds with their colour ramps (dark, middle, light), ground, sky, light.

    Colours are 8-bit RGB; `haze` is the share of haze at the horizon, `clouds` about how much of the sky is
    covered, `shade` how much light a shadow takes, `trail` the contrast of the track, `light` the range of
    exposure; `ruggedness` scales the hills.
    """

    kinds: tuple[Kind, ...]
    ramps: tuple[tuple[Colour, Colour, Colour], ...]
    ground: tuple[Colour, Colour, Colour]
    hills: Colour
    zenith: Colour
    skyline: Colour
    sky_share: float
    ruggedness: float
    clouds: float
    haze: float
    shade: float
    trail: float
    light: tuple[float, float]


_TRAIN = Environment(
    kinds=(
        Kind(100, draw.draw_umbrella_tree, 0.035, near=0.17, far=0.03, shadow=1.0),
        Kind(200, draw.draw_lush_bush, 0.059, near=0.95, far=0.05, shadow=0.5),
        Kind(300, draw.draw_dry_grass, 0.189, spread=0.2, shadow=0.12),
        Kind(500, draw.draw_dry_bush, 0.011, near=0.85, far=0.05, shadow=0.4),
        Kind(550, draw.draw_clutter, 0.044, near=1.1, far=0.05),
        Kind(600, draw.draw_flowers, 0.028, presence=0.85, near=1.05, far=0.06),
        Kind(700, draw.draw_log, 0.0008, presence=0.8, spread=0.2, near=0.8, far=0.04, shadow=0.4),
        Kind(800, draw.draw_boulders, 0.012, near=0.9, far=0.04, shadow=0.25),
    ),
    ramps=(
        ((42, 38, 22), (84, 98, 50), (150, 162, 92)),
        ((34, 52, 22), (82, 112, 46), (158, 180, 92)),
        ((112, 84, 44), (186, 150, 88), (232, 206, 146)),
        ((62, 46, 32), (122, 94, 66), (178, 148, 112)),
        ((82, 60, 40), (142, 108, 76), (206, 172, 130)),
        ((74, 92, 44), (226, 176, 60), (252, 226, 120)),
        ((58, 40, 28), (122, 88, 60), (190, 152, 112)),
        ((78, 77, 78), (138, 135, 133), (204, 200, 194)),
    ),
    ground=((166, 124, 84), (206, 166, 118), (232, 200, 156)),
    hills=(150, 116, 104),
    zenith=(70, 128, 196),
    skyline=(206, 222, 234),
    sky_share=0.376,
    ruggedness=1.6,
    clouds=0.4,
    haze=0.4,
    shade=0.5,
    trail=0.13,
    light=(0.72, 1.12),
)

_TEST = Environment(
    kinds=(
        Kind(100, draw.draw_joshua_tree, 0.0027, near=0.16, far=0.02, shadow=0.6),
        Kind(200, draw.draw_lush_bush, 0.000015, presence=0.3, near=0.3, far=0.02),
        Kind(300, draw.draw_dry_grass, 0.174, spread=0.2, shadow=0.16),
        Kind(500, draw.draw_dry_bush, 0.0305, near=0.95, far=0.03, shadow=0.4),
        Kind(800, draw.draw_slabs, 0.181, spread=0.2, shadow=0.1),
    ),
    ramps=(
        ((34, 34, 34), (72, 70, 62), (116, 112, 92)),
        ((36, 42, 24), (72, 72, 44), (112, 110, 74)),
        ((50, 34, 24), (104, 74, 50), (160, 122, 82)),
        ((36, 26, 20), (78, 58, 44), (136, 108, 82)),
        ((62, 44, 36), (124, 90, 70), (170, 128, 102)),
    ),
    ground=((84, 62, 50), (128, 95, 75), (164, 126, 102)),
    hills=(142, 122, 116),
    zenith=(150, 180, 208),
    skyline=(208, 214, 216),
    sky_share=0.180,
    ruggedness=0.5,
    clouds=0.75,
    haze=0.3,
    shade=0.5,
    trail=0.04,
    light=(0.9, 1.12),
)

ENVIRONMENTS: dict[str, Environment] = {"train": _TRAIN, "test": _TEST}


def render_frame(environment: EnvironmentName, seed: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Renders one desert frame and its exact mask; the same arguments give the same arrays.

    Returns:
        RGB image, uint8 (H W 3), and mask of raw Falcon ids, uint16 (H W).

    Raises:
        DataError: unknown environment, negative seed, or a side below 32 pixels.
    """
    _check(environment, seed, height, width)
    place = ENVIRONMENTS[environment]
    rng = np.random.default_rng(np.random.SeedSequence([list(ENVIRONMENTS).index(environment), seed]))
    scene = draw.lay_out(place.kinds, place.sky_share, place.ruggedness, height, width, rng)
    return _colour(scene, place, rng), _mask(scene, place)


def frame_seed(seed: int, split: str, index: int) -> int:
    """Seed that `write_desert` gives to frame `index` of a split; splits never share a stream."""
    return int(np.random.SeedSequence([seed, _SPLITS.index(split), index]).generate_state(1, np.uint64)[0])


def write_desert(root: Path, *, train: int, val: int, test: int, height: int, width: int, seed: int) -> None:
    """Writes a data set in the official layout: 8-bit RGB and 16-bit mask PNGs, numbered from 0000000.

    `train` and `val` show the train environment, `test` the other one; height and width are in pixels.
    The folder appears whole or not at all.

    Raises:
        DataError: `root` exists, a count or the seed is negative, or a side is below 32 pixels.
    """
    counts = dict(zip(_SPLITS, (train, val, test), strict=True))
    for split, count in counts.items():
        if count < 0:
            raise DataError(f"{split}={count} frames: the number of frames cannot be negative; use 0 or more")
    _check("train", seed, height, width)
    if root.exists():
        raise DataError(f"{root} already exists and is never overwritten; choose a new folder or remove this one")
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}.") as unfinished:
        whole = Path(unfinished) / root.name
        for split, count in counts.items():
            _write_split(whole / split, split, count, (height, width), seed)
        whole.rename(root)


def _write_split(folder: Path, split: str, count: int, size: tuple[int, int], seed: int) -> None:
    for name in ("Color_Images", "Segmentation"):
        (folder / name).mkdir(parents=True)
    environment: EnvironmentName = "test" if split == "test" else "train"
    for index in range(count):
        image, mask = render_frame(environment, frame_seed(seed, split, index), *size)
        _write_png(folder / "Color_Images" / f"{index:07d}.png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        _write_png(folder / "Segmentation" / f"{index:07d}.png", mask)


def _write_png(path: Path, array: np.ndarray) -> None:
    if not cv2.imwrite(str(path), array, [cv2.IMWRITE_PNG_COMPRESSION, 1]):
        raise DataError(f"{path} could not be written; check that the disk has room and the folder is writable")


def _check(environment: str, seed: int, height: int, width: int) -> None:
    if environment not in ENVIRONMENTS:
        raise DataError(f"environment {environment!r} is unknown; use 'train' or 'test'")
    if seed < 0:
        raise DataError(f"seed {seed} is negative; use 0 or more")
    for name, side in (("height", height), ("width", width)):
        if side < SMALLEST_SIDE:
            raise DataError(f"{name} {side} is below the smallest desert frame; use {SMALLEST_SIDE} or more")


def _mask(scene: Scene, place: Environment) -> np.ndarray:
    table = np.full(256, LANDSCAPE_ID, np.uint16)
    for index, kind in enumerate(place.kinds):
        table[1 + index * SHADES : 1 + (index + 1) * SHADES] = kind.raw_id
    mask = table[scene.canvas]
    mask[scene.sky] = SKY_ID
    return mask


def _colour(scene: Scene, place: Environment, rng: np.random.Generator) -> np.ndarray:
    """Image uint8 (H W 3) of a scene: colours, light and shadow, haze, tint, lens blur and sensor noise."""
    camera = scene.camera
    noise = _noise_tile(rng)
    rows = np.arange(camera.height, dtype=np.float32)[:, None] + 0.5
    columns = np.arange(camera.width, dtype=np.float32)[None] + 0.5
    ground = scene.canvas == 0
    nearness = (scene.row - camera.horizon) / (camera.height - camera.horizon)
    image = _palette(place, rng)[scene.canvas]
    grain = _blurred(rng.standard_normal(ground.shape, np.float32), 0.7 + camera.height / 1500)
    image *= (1 + 0.16 * grain)[..., None]
    soil = _soil(scene, place, noise, rows, columns) * (1 + 0.09 * grain)[..., None]
    image[ground] = soil[ground]
    image *= (1 - place.shade * _shadow(scene, ground))[..., None]
    haze = place.haze * np.exp(-np.maximum(nearness, 0) / 0.07)[..., None]
    image += haze * (np.float32(place.skyline) * 0.9 - image)
    top = slice(0, int(camera.horizon) + 1)
    image[top][scene.sky[top]] = _heaven(scene, place, noise, rows[top], columns)[scene.sky[top]]
    return _develop(image, place.light, rng)


def _palette(place: Environment, rng: np.random.Generator) -> np.ndarray:
    """Colour of each canvas value, float32 (256 3), with this frame's variation of each kind."""
    palette = np.zeros((256, 3), np.float32)
    shade = np.linspace(0, 1, SHADES)
    for index, ramp in enumerate(place.ramps):
        tint = rng.normal(1, 0.025, 3) * rng.normal(1, 0.06)
        tones = np.stack([np.interp(shade, (0, 0.5, 1), [stop[c] for stop in ramp]) for c in range(3)], axis=1)
        palette[1 + index * SHADES : 1 + (index + 1) * SHADES] = tones * tint
    return palette


def _noise_tile(rng: np.random.Generator, side: int = 128) -> np.ndarray:
    """Smooth noise that repeats without a seam, float32 (side side), mean 0 and deviation 1."""
    white = rng.standard_normal((side, side), np.float32)
    tile = np.zeros_like(white)
    for sigma in (1.2, 3.0, 8.0):
        wrapped = np.pad(white, 32, mode="wrap")
        smooth = cv2.GaussianBlur(wrapped, (0, 0), sigma)[32:-32, 32:-32]
        tile += smooth / smooth.std() * sigma**0.5
    return (tile - tile.mean()) / tile.std()


def _sample(tile: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    side = tile.shape[0]
    x, y = np.broadcast_arrays(np.mod(x, side), np.mod(y, side))
    return cv2.remap(tile, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)


def _soil(scene: Scene, place: Environment, noise: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Colour of the ground and, above the horizon, of the hills, float32 (H W 3)."""
    camera = scene.camera
    x, z = camera.world(columns, np.maximum(rows, camera.horizon + 0.25))
    near = np.clip((rows - camera.horizon) / (camera.height - camera.horizon), 0, 1)
    tone = 0.5 + 0.16 * _sample(noise, 5 * x, 5 * z) * (0.15 + near) + 0.1 * _sample(noise, 60 * x, 60 * z) * near
    track = np.abs(np.abs(scene.trail.distance(x, z)) - 0.55) < 0.22
    lane = np.exp(-((scene.trail.distance(x, z) / 1.0) ** 2))
    tone = np.clip(tone + place.trail * (1.2 * lane - 0.9 * track), 0, 1)
    stops = np.float32(place.ground)
    soil = np.stack([np.interp(tone, (0, 0.5, 1), stops[:, c]) for c in range(3)], axis=2).astype(np.float32)
    hills = np.broadcast_to(rows < camera.horizon, tone.shape)
    relief = 1 + 0.09 * _sample(noise, columns * 120 / camera.width, rows * 420 / camera.height)
    soil[hills] = (np.float32(place.hills) * relief[..., None])[hills]
    return soil


def _shadow(scene: Scene, ground: np.ndarray) -> np.ndarray:
    """Darkness 0..1, float32 (H W): full on the ground, weaker on what stands in the shadow."""
    soft = _blurred(scene.shadow.astype(np.float32) / 255, 0.6 + scene.camera.height / 300)
    return soft * np.where(ground, 1.0, 0.3).astype(np.float32)


def _heaven(scene: Scene, place: Environment, noise: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Colour of the sky, float32 (H W 3): a gradient, and clouds on a plane overhead."""
    camera = scene.camera
    height = np.clip(1 - rows / camera.horizon, 0, 1)
    sky = np.float32(place.skyline) + (height**0.7)[..., None] * (np.float32(place.zenith) - np.float32(place.skyline))
    distance = 1 / (height + 0.18)
    across = (columns / camera.width - 0.5) * distance
    cloud = _sample(noise, 9 * across, 16 * distance) + 0.45 * _sample(noise, 40 * across, 60 * distance)
    cover = np.clip((cloud + 2.6 * (place.clouds - 0.5)) / 1.3, 0, 1) * np.clip(height * 6, 0, 1)
    white = 250 - 22 * np.clip(cloud - 0.8, 0, 1.5)
    return sky + (0.85 * cover)[..., None] * (white[..., None] - sky)


def _develop(image: np.ndarray, exposure: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """This frame's exposure and warmth, the blur of the lens and the noise of the sensor; uint8 (H W 3)."""
    warmth = rng.normal(0, 0.035)
    light = rng.uniform(*exposure) * np.array([1 + warmth, 1, 1 - warmth], np.float32)
    image = _blurred((image * light).astype(np.float32), 0.45)
    image += 3.5 * rng.standard_normal(image.shape, np.float32)
    return np.clip(image, 0, 255).astype(np.uint8)


def _blurred(array: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(array, (0, 0), sigma)
