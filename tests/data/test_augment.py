from __future__ import annotations

import warnings
from typing import get_args

import albumentations as A
import cv2
import numpy as np
import pytest

from harness.config import IGNORE, POLICIES
from harness.config import augmentation as sections
from harness.data.augment import augment, build_augmentation, needs_native
from harness.errors import ConfigError

SIZE = (64, 96)
POLICY_NAMES = sorted(POLICIES)
#: every kind of step that an Experiment can name, but for those that `train_batches` applies
STEP_KINDS = [kind for kind in get_args(get_args(sections.Step)[0]) if kind not in (sections.CutMix, sections.Fourier)]
#: of them, those that move pixels, so that the mask goes with the image
MOVING = (
    sections.HorizontalFlip, sections.VerticalFlip, sections.ShiftScaleRotate,
    sections.RandomResizedCrop, sections.RandomCrop,
)  # fmt: skip
each_kind = pytest.mark.parametrize("kind", STEP_KINDS, ids=lambda kind: kind.model_fields["kind"].default)


def frame(height: int = 64, width: int = 96, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A frame that nobody may write to, as those of the cache; classes 1 to 9, so that a 0 can only be a fill."""
    rng = np.random.default_rng(seed)
    # of low contrast: on evenly spread noise the limit of CLAHE changes nothing
    image = rng.normal(128, 20, (height, width, 3)).clip(30, 225).astype(np.uint8)
    mask = rng.integers(1, 10, (height, width)).astype(np.uint8)
    for array in (image, mask):
        array.setflags(write=False)
    return image, mask


def always(kind: type, **fields) -> sections.Step:
    return kind(**fields, **({"probability": 1.0} if "probability" in kind.model_fields else {}))


def same(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("name", POLICY_NAMES)
def test_every_policy_keeps_shapes_and_types(name):
    steps = POLICIES[name]
    image, mask = augment(build_augmentation(steps, SIZE), *frame(), seed=3)
    height, width = (512, 512) if any(isinstance(s, sections.RandomCrop) for s in steps) else SIZE
    assert image.shape == (height, width, 3) and image.dtype == np.uint8
    assert mask.shape == (height, width) and mask.dtype == np.uint8


@pytest.mark.parametrize("name", POLICY_NAMES)
def test_every_policy_is_a_function_of_the_seed(name):
    compose, again = build_augmentation(POLICIES[name], SIZE), build_augmentation(POLICIES[name], SIZE)
    first = [augment(compose, *frame(), seed=s) for s in range(12)]
    # another pipeline, in another order, after other draws
    second = [augment(again, *frame(), seed=s) for s in reversed(range(12))][::-1]
    assert all(same(a, b) for a, b in zip(first, second, strict=True))
    changed = any(not same(first[0], other) for other in first[1:])
    # this crop cannot move in a frame that is smaller, but the flip can
    assert changed == (name != "none")


@pytest.mark.parametrize("name", POLICY_NAMES)
def test_no_policy_invents_a_class_and_what_it_uncovers_is_ignored(name):
    compose = build_augmentation(POLICIES[name], SIZE)
    found = set()
    for seed in range(40):
        found |= set(np.unique(augment(compose, *frame(), seed=seed)[1]).tolist())
    moves = any(isinstance(s, sections.ShiftScaleRotate | sections.RandomCrop) for s in POLICIES[name])
    assert found == set(range(1, 10)) | ({IGNORE} if moves else set())


def test_the_border_of_a_turned_frame_is_black_and_ignored():
    step = always(sections.ShiftScaleRotate, shift=0.0, scale=0.0, degrees=45.0)
    image, mask = augment(build_augmentation([step], SIZE), *frame(), seed=1)
    border = mask == IGNORE
    assert 0.05 < border.mean() < 0.7
    # away from the edge, where the bilinear image blends, fill and ignore are the same pixels
    inner = cv2.erode(border.astype(np.uint8), np.ones((5, 5))).astype(bool)
    outer = cv2.dilate(border.astype(np.uint8), np.ones((5, 5))).astype(bool)
    assert (image[inner] == 0).all() and (image[~outer] >= 30).all()


def test_a_vertical_flip_does_not_follow_the_horizontal_one():
    # one seed handed to each step, as Compose.set_random_seed does, flips vertically only what is mirrored too
    steps = [sections.HorizontalFlip(probability=0.5), sections.VerticalFlip(probability=0.1)]
    compose, image = build_augmentation(steps, SIZE), np.zeros((2, 2, 3), np.uint8)
    corner = np.array([[1, 2], [3, 4]], np.uint8)
    first = np.array([augment(compose, image, corner, seed)[1][0, 0] for seed in range(1500)])
    share = [(first == value).mean() for value in (1, 2, 3, 4)]
    assert np.allclose(share, [0.45, 0.45, 0.05, 0.05], atol=0.04)

    def by_set_random_seed(seed):
        compose.set_random_seed(seed)
        return compose(image=image, mask=corner)["mask"][0, 0]

    assert 3 not in {by_set_random_seed(seed) for seed in range(300)}


def test_shift_scale_rotate_is_that_of_albumentations_2_0_8():
    step = always(sections.ShiftScaleRotate, shift=0.08, scale=0.15, degrees=20.0)
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        reference = A.ShiftScaleRotate(
            shift_limit=0.08, scale_limit=0.15, rotate_limit=20, border_mode=cv2.BORDER_CONSTANT, fill_mask=IGNORE, p=1
        )
    for seed in range(20):
        expected = augment(A.Compose([reference]), *frame(), seed=seed)
        assert same(augment(build_augmentation([step], SIZE), *frame(), seed=seed), expected)


def test_the_pipelines_of_the_teams_are_reproduced_step_by_step():
    # the call of the phase 3 script, with what 2.0.8 makes of it
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        reference = A.Compose(
            [
                A.HorizontalFlip(p=0.5),
                A.VerticalFlip(p=0.1),
                A.ShiftScaleRotate(
                    shift_limit=0.08, scale_limit=0.15, rotate_limit=20, border_mode=0, fill_mask=IGNORE, p=0.4
                ),
                A.OneOf([A.GaussianBlur(blur_limit=(3, 5), p=1), A.MedianBlur(blur_limit=(3, 5), p=1)], p=0.2),
                A.OneOf(
                    [
                        A.RandomBrightnessContrast(brightness_limit=0.3, contrast_limit=0.3, p=1),
                        A.HueSaturationValue(hue_shift_limit=15, sat_shift_limit=25, val_shift_limit=25, p=1),
                    ],
                    p=0.4,
                ),
                A.RandomShadow(p=0.15),
                A.CLAHE(clip_limit=2.0, p=0.15),
            ]
        )
    ours = build_augmentation(POLICIES["ignitia_phase3"], SIZE)
    for seed in range(60):
        assert same(augment(ours, *frame(), seed=seed), augment(reference, *frame(), seed=seed))


#: our step, with no two fields alike, and the call that its description means
REFERENCES = {
    "gaussian_blur": (
        sections.GaussianBlur(kernel=(5, 9), sigma=(1.0, 2.5), probability=1.0),
        A.GaussianBlur(blur_limit=(5, 9), sigma_limit=(1.0, 2.5), p=1),
    ),
    "brightness_contrast": (
        sections.BrightnessContrast(brightness=(-0.3, 0.1), contrast=(-0.2, 0.4), probability=1.0),
        A.RandomBrightnessContrast(brightness_limit=(-0.3, 0.1), contrast_limit=(-0.2, 0.4), p=1),
    ),
    "hue_saturation_value": (
        sections.HueSaturationValue(hue=5, saturation=30, value=15, probability=1.0),
        A.HueSaturationValue(hue_shift_limit=5, sat_shift_limit=30, val_shift_limit=15, p=1),
    ),
    "colour_jitter": (
        sections.ColourJitter(
            brightness=(0.6, 1.1), contrast=(0.7, 1.2), saturation=(0.8, 1.3), hue=(-0.1, 0.05), probability=1.0
        ),
        A.ColorJitter(brightness=(0.6, 1.1), contrast=(0.7, 1.2), saturation=(0.8, 1.3), hue=(-0.1, 0.05), p=1),
    ),
    "rgb_shift": (
        sections.RgbShift(limit=35, probability=1.0),
        A.RGBShift(r_shift_limit=35, g_shift_limit=35, b_shift_limit=35, p=1),
    ),
    "clahe": (
        sections.Clahe(clip_limit=4.0, tiles=3, probability=1.0),
        A.CLAHE(clip_limit=4.0, tile_grid_size=(3, 3), p=1),
    ),
    "grey": (sections.Grey(probability=1.0), A.ToGray(p=1)),
    "shadow": (sections.Shadow(probability=1.0), A.RandomShadow(p=1)),
    "random_resized_crop": (
        sections.RandomResizedCrop(area=(0.2, 0.6), ratio=(0.8, 2.0)),
        A.RandomResizedCrop(SIZE, scale=(0.2, 0.6), ratio=(0.8, 2.0)),
    ),
}


@pytest.mark.parametrize("kind", REFERENCES)
def test_a_step_is_the_albumentations_call_that_it_describes(kind):
    step, reference = REFERENCES[kind]
    ours, theirs = build_augmentation([step], SIZE), A.Compose([reference])
    # large enough for the tiles of CLAHE to hold more pixels than there are grey levels
    for seed in range(12):
        arrays = frame(128, 192, seed)
        assert same(augment(ours, *arrays, seed=seed), augment(theirs, *arrays, seed=seed))


def test_desertmind_changes_brightness_before_contrast_always():
    brightness, contrast = POLICIES["desertmind_phase2"][1:]
    image, mask = frame()
    for seed in range(5):
        changed, _ = augment(build_augmentation([brightness, contrast], SIZE), image, mask, seed)
        assert not np.array_equal(changed, image)


@pytest.mark.parametrize("size", [(64, 96), (37, 53)])
def test_a_resized_crop_has_the_input_size_whatever_the_frame(size):
    compose = build_augmentation([sections.RandomResizedCrop()], size)
    for height, width in ((54, 96), (135, 240), (33, 47)):
        image, mask = augment(compose, *frame(height, width), seed=5)
        assert image.shape[:2] == mask.shape == size
        assert set(np.unique(mask)) <= set(range(1, 10))


def test_a_crop_of_a_larger_frame_is_a_window_of_it():
    image = np.zeros((80, 120, 3), np.uint8)
    mask = np.arange(80 * 120, dtype=np.uint16).reshape(80, 120).astype(np.uint8)
    image[..., 0] = np.arange(80)[:, None]
    image[..., 1] = np.arange(120)[None]
    compose = build_augmentation([sections.RandomCrop(height=32, width=48)], SIZE)
    corners = set()
    for seed in range(20):
        window, truth = augment(compose, image, mask, seed)
        top, left = int(window[0, 0, 0]), int(window[0, 0, 1])
        corners.add((top, left))
        assert np.array_equal(window, image[top : top + 32, left : left + 48])
        assert np.array_equal(truth, mask[top : top + 32, left : left + 48])
    assert len(corners) > 10


def test_a_frame_smaller_than_the_crop_is_padded_with_ignore():
    image, mask = augment(build_augmentation([sections.RandomCrop(height=80, width=128)], SIZE), *frame(), seed=0)
    assert image.shape == (80, 128, 3)
    assert (mask != IGNORE).sum() == 64 * 96 and (image[mask == IGNORE] == 0).all()


def test_the_steps_under_test_are_those_of_the_configuration():
    assert {*MOVING, sections.Clahe, sections.Shadow, sections.Tone} < set(STEP_KINDS)


@each_kind
def test_every_step_at_its_defaults_runs_on_odd_sizes_and_leaves_its_input_alone(kind):
    image, mask = frame(45, 71)
    before = image.copy(), mask.copy()
    compose = build_augmentation([always(kind)], (45, 71))
    changed = [augment(compose, image, mask, seed) for seed in range(8)]
    assert same((image, mask), before)
    assert any(not same(c, before) for c in changed)
    again = build_augmentation([always(kind)], (45, 71))
    assert all(same(augment(again, image, mask, seed), changed[seed]) for seed in reversed(range(8)))


@each_kind
def test_a_step_that_moves_no_pixels_leaves_the_mask_alone_and_no_other_does(kind):
    image, mask = frame()
    compose = build_augmentation([always(kind)], SIZE)
    kept = [np.array_equal(augment(compose, image, mask, seed)[1], mask) for seed in range(4)]
    assert all(kept) == (kind not in MOVING)


def test_a_shadow_darkens_the_lower_half_only():
    image, mask = frame()
    shadowed, _ = augment(build_augmentation([always(sections.Shadow)], SIZE), image, mask, 2)
    assert np.array_equal(shadowed[:30], image[:30])
    assert (shadowed[34:] <= image[34:]).all() and (shadowed[34:] < image[34:]).any()


def test_every_limit_of_every_field_is_taken_by_albumentations():
    extreme = [
        sections.ShiftScaleRotate(shift=1.0, scale=0.99, degrees=180.0, probability=1.0),
        sections.Blur(gaussian=(31, 31), median=(31, 31), probability=1.0),
        sections.GaussianBlur(kernel=(3, 31), sigma=(0.01, 10.0), probability=1.0),
        sections.BrightnessContrast(brightness=(-1.0, 1.0), contrast=(1.0, 1.0), probability=1.0),
        sections.HueSaturationValue(hue=180, saturation=255, value=255, probability=1.0),
        sections.ColourJitter(brightness=(0.0, 10.0), contrast=(0.0, 0.0), hue=(-0.5, 0.5), probability=1.0),
        sections.RgbShift(limit=255, probability=1.0),
        sections.Clahe(clip_limit=40.0, tiles=64, probability=1.0),
        sections.RandomResizedCrop(area=(0.001, 1.0), ratio=(0.01, 10.0)),
    ]
    for step in extreme:
        compose = build_augmentation([step], SIZE)
        for seed in range(10):
            image, mask = augment(compose, *frame(), seed=seed)
            assert image.shape == (*SIZE, 3) and set(np.unique(mask)) <= {*range(1, 10), IGNORE}


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (sections.Blur(gaussian=(5, 3)), r"steps\.1 \(blur\): gaussian \(5, 3\): low is above high; use \(3, 5\)"),
        (sections.Blur(median=(3, 4)), r"steps\.1 \(blur\): median 4 is even.*use 3 or 5"),
        (sections.GaussianBlur(kernel=(4, 5)), r"\(gaussian_blur\): kernel 4 is even"),
        (sections.GaussianBlur(sigma=(2.0, 1.0)), r"\(gaussian_blur\): sigma .*use \(1.0, 2.0\)"),
        (sections.GaussianBlur(sigma=(0.0, 1.0)), r"\(gaussian_blur\): sigma starts at 0.*at 0.1 or more"),
        (sections.BrightnessContrast(contrast=(0.2, -0.2)), r"\(brightness_contrast\): contrast .*low is above"),
        (sections.ColourJitter(hue=(0.1, -0.1)), r"\(colour_jitter\): hue "),
        (sections.RandomResizedCrop(area=(1.0, 0.5)), r"\(random_resized_crop\): area "),
        (sections.RandomResizedCrop(ratio=(2.0, 1.0)), r"\(random_resized_crop\): ratio "),
    ],
)
def test_a_range_that_cannot_be_drawn_from_is_refused_with_the_step(step, words):
    with pytest.raises(ConfigError, match=words):
        build_augmentation([sections.HorizontalFlip(), step], SIZE)


def test_only_policies_with_a_crop_need_native_frames():
    crop = {name for name, steps in POLICIES.items() if any("crop" in step.kind for step in steps)}
    assert {name for name, steps in POLICIES.items() if needs_native(steps)} == crop
    assert {"codecrunch_moderate", "desertmind_phase3"} <= crop
