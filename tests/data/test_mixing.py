from __future__ import annotations

import numpy as np
import pytest

from harness.config.augmentation import CutMix, Fourier, HorizontalFlip
from harness.data.mixing import cut_and_mix, needs_style, restyle, swap_low_frequencies


def picture(height: int, width: int, seed: int, low: int = 60, high: int = 180) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, (height, width, 3)).astype(np.uint8)


def by_hand(image: np.ndarray, style: np.ndarray, beta: float) -> np.ndarray:
    """The recipe of the paper with the whole, centred spectrum, channel by channel, before rounding."""
    changed = np.empty(image.shape)
    height, width = image.shape[:2]
    b, y, x = int(np.floor(min(height, width) * beta)), height // 2, width // 2
    for channel in range(3):
        source, target = (np.fft.fftshift(np.fft.fft2(a[..., channel])) for a in (image, style))
        amplitude, phase = np.abs(source), np.angle(source)
        square = slice(y - b, y + b + 1), slice(x - b, x + b + 1)
        amplitude[square] = np.abs(target)[square]
        changed[..., channel] = np.fft.ifft2(np.fft.ifftshift(amplitude * np.exp(1j * phase))).real
    return changed


@pytest.mark.parametrize("size", [(12, 20), (13, 17), (20, 11)])
@pytest.mark.parametrize("beta", [0.01, 0.09, 0.2, 0.45])
def test_a_styled_image_is_the_recipe_of_the_paper_with_the_whole_spectrum(size, beta):
    image, style = picture(*size, seed=1), picture(*size, seed=2, low=0, high=256)
    changed = swap_low_frequencies(image, style, beta)
    assert changed.dtype == np.uint8 and changed.shape == image.shape
    # half a level by rounding, and what float32 adds to it
    assert np.abs(changed - by_hand(image, style, beta).clip(0, 255)).max() < 0.501


def test_a_styled_image_is_cut_to_the_range_of_a_pixel():
    image, style = picture(16, 16, 3, 0, 256), picture(16, 16, 4, 200, 256)
    outside = by_hand(image, style, 0.05)
    assert (outside > 256).any()
    assert (swap_low_frequencies(image, style, 0.05)[outside > 255] == 255).all()


def test_a_wave_takes_the_height_of_the_other_and_keeps_its_place():
    turns = 2 * np.pi * np.arange(16) / 16
    image, style = (
        np.rint(np.broadcast_to(wave[None, :, None], (16, 16, 3))).astype(np.uint8)
        for wave in (100 + 20 * np.cos(turns) + 9 * np.cos(4 * turns), 120 + 40 * np.cos(turns + 1))
    )
    expected = 120 + 40 * np.cos(turns) + 9 * np.cos(4 * turns)
    changed = swap_low_frequencies(image, style, 1 / 16)
    assert np.abs(changed - expected[None, :, None]).max() < 1.5


def test_the_smallest_square_moves_the_means_alone():
    image, style = picture(24, 40, 5, 90, 110), picture(24, 40, 6, 130, 170)
    change = swap_low_frequencies(image, style, 0.01).astype(int) - image
    expected = style.mean((0, 1)) - image.mean((0, 1))
    assert np.abs(change - expected).max() <= 0.501


def test_an_image_in_its_own_style_stays_as_it_is():
    image = picture(33, 50, 7, 0, 256)
    assert np.array_equal(swap_low_frequencies(image, image, 0.3), image)


def test_styles_of_another_size_are_resized_and_all_of_them_are_drawn():
    image, step = np.full((24, 32, 3), 100, np.uint8), Fourier(beta=0.01, probability=1.0)
    styles = np.stack([np.full((10, 12, 3), level, np.uint8) for level in (20, 90, 200)])
    means = {int(restyle(image, styles, [step], np.random.default_rng(s)).mean()) for s in range(20)}
    assert means == {20, 90, 200}


def test_an_image_is_styled_as_often_as_the_probability_says_and_never_at_0():
    image, styles = np.full((8, 8, 3), 100, np.uint8), np.full((1, 8, 8, 3), 50, np.uint8)
    rng = np.random.default_rng(0)
    share = np.mean([restyle(image, styles, [Fourier(probability=0.3)], rng).mean() == 50 for _ in range(1000)])
    assert abs(share - 0.3) < 0.05
    assert all(restyle(image, styles, [Fourier(probability=0.0)], rng) is image for _ in range(20))


def test_only_a_fourier_step_needs_style_images():
    assert needs_style([HorizontalFlip(), Fourier()])
    assert not needs_style([HorizontalFlip(), CutMix()])


def batch(frames: int, height: int = 48, width: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """Every pixel says where it comes from: frame, row, column; and the truth says the frame."""
    images = np.zeros((frames, height, width, 3), np.uint8)
    images[..., 0] = np.arange(frames)[:, None, None]
    images[..., 1] = np.arange(height)[None, :, None]
    images[..., 2] = np.arange(width)
    return images, images[..., 0].copy()


def test_each_frame_holds_one_rectangle_of_one_other_frame_in_its_place_with_its_truth():
    images, truths = batch(4)
    pairs = set()
    for seed in range(200):
        mixed, truth = cut_and_mix(images, truths, [CutMix(probability=1.0)], np.random.default_rng(seed))
        assert np.array_equal(mixed[..., 1:], images[..., 1:]) and np.array_equal(truth, mixed[..., 0])
        for frame, sources in enumerate(truth):
            rows, columns = np.nonzero(sources != frame)
            if len(rows) == 0:
                continue
            window = sources[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert (window == window[0, 0]).all()
            pairs.add((frame, int(window[0, 0])))
    assert pairs == {(frame, other) for frame in range(4) for other in range(4) if frame != other}


def test_the_area_is_that_of_the_paper_once_it_is_cut_at_the_edges():
    images, truths = batch(2)
    rng = np.random.default_rng(0)
    shares = [(cut_and_mix(images, truths, [CutMix(probability=1.0)], rng)[1] != truths).mean() for _ in range(3000)]
    # a side of share s, centred anywhere, keeps s - s^2/4 on average; with s^2 uniform, the mean of its square
    # is 1/2 - 1/5 + 1/48
    assert abs(np.mean(shares) - (1 / 2 - 1 / 5 + 1 / 48)) < 0.015


def test_a_frame_is_mixed_as_often_as_the_probability_says():
    images, truths = batch(4)
    rng = np.random.default_rng(0)
    mixed = [cut_and_mix(images, truths, [CutMix(probability=0.3)], rng)[1] for _ in range(500)]
    share = np.mean([(m != truths).any((1, 2)) for m in mixed])
    assert abs(share - 0.3) < 0.04


def test_a_batch_of_one_frame_and_a_policy_without_cutmix_stay_as_they_are():
    images, truths = batch(1)
    alone = cut_and_mix(images, truths, [CutMix(probability=1.0)], np.random.default_rng(0))
    assert np.array_equal(alone[0], images) and np.array_equal(alone[1], truths)
    images, truths = batch(3)
    without = cut_and_mix(images, truths, [HorizontalFlip()], np.random.default_rng(0))
    assert without[0] is images and without[1] is truths


def test_mixing_leaves_its_input_alone():
    images, truths = batch(3)
    before = images.copy(), truths.copy()
    cut_and_mix(images, truths, [CutMix(probability=1.0)], np.random.default_rng(1))
    assert np.array_equal(images, before[0]) and np.array_equal(truths, before[1])
