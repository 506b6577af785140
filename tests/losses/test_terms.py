"""Each term against a reference written another way, and the laws that all terms keep."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from segmentation_models_pytorch.losses import DiceLoss
from torch import Tensor

from harness.config import IGNORE
from harness.config.loss import LossConfig
from harness.losses import build_loss, terms
from harness.losses.boundary import boundary_map
from harness.losses.terms import Pixels
from harness.losses.total import term_value

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]

# Every term that an Experiment can name, at its defaults, and some with options that strain them.
TERMS = {name: partial(term_value, field.default) for name, field in LossConfig.model_fields.items()} | {
    "cross_entropy, smoothed": lambda pixels, w: terms.cross_entropy(pixels, w, 0.1),
    "focal, gamma 0.5": lambda pixels, w: terms.focal(pixels, w, 0.5),
    "dice, smooth 0": lambda pixels, w: terms.dice(pixels, w, 0.0),
    "focal_weight_inside, gamma 0.5": lambda pixels, w: terms.focal_weight_inside(pixels, w, 0.5),
    "dice_all_classes, smooth 1e-6": lambda pixels, w: terms.dice_all_classes(pixels, w, 1e-6),
    "boundary, sigma 0.3": lambda pixels, w: terms.boundary(pixels, w, 0.3),
    "ohem, the hardest half": lambda pixels, w: terms.ohem(pixels, w, 1e-9, 0.5),
}
each_term = pytest.mark.parametrize("term", TERMS.values(), ids=TERMS)

WEIGHTS = torch.tensor([0.5, 2.0, 0.0625, 5.0, 1.0], dtype=torch.float64)
SHAPES = [(2, 5, 3, 3), (1, 5, 1, 1), (1, 5, 7, 3), (3, 5, 5, 1)]
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def batch(shape: tuple[int, ...], seed: int = 0, ignored: float = 0.25) -> tuple[Tensor, Tensor]:
    """Logits in float64, and a truth without class 1 whose first pixel is never ignored."""
    generator = torch.Generator().manual_seed(seed)
    images, classes, height, width = shape
    logits = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    truth = torch.randint(0, classes, (images, height, width), generator=generator)
    truth[truth == 1] = 0
    truth[torch.rand(truth.shape, generator=generator) < ignored] = IGNORE
    truth[0, 0, 0] = 3
    return logits.requires_grad_(), truth


def value_and_gradient(term, logits: Tensor, truth: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    value = term(Pixels.from_logits(logits, truth), weights)
    return value.detach(), torch.autograd.grad(value, logits)[0]


def listed(logits: Tensor, truth: Tensor) -> list[tuple[list[float], int]]:
    """The valid pixels one by one: (softmax over classes, true class), in plain numbers."""
    images, _, height, width = logits.shape
    found = []
    for n in range(images):
        for y in range(height):
            for x in range(width):
                if int(truth[n, y, x]) != IGNORE:
                    powers = [math.exp(v) for v in logits[n, :, y, x].tolist()]
                    found.append(([v / sum(powers) for v in powers], int(truth[n, y, x])))
    return found


def soft_counts(pixels: list[tuple[list[float], int]], c: int) -> tuple[float, float, int]:
    intersection = sum(p[c] for p, y in pixels if y == c)
    return intersection, sum(p[c] for p, _ in pixels), sum(y == c for _, y in pixels)


# Against references ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@each_shape
def test_cross_entropy_equals_torch_in_value_and_gradient(shape, smoothing, device):
    logits, truth = batch(shape)
    expected = F.cross_entropy(logits, truth, WEIGHTS, ignore_index=IGNORE, label_smoothing=smoothing)
    slope = torch.autograd.grad(expected, logits)[0]

    def term(pixels: Pixels, weights: Tensor) -> Tensor:
        return terms.cross_entropy(pixels, weights, smoothing)

    placed = logits.detach().to(device).requires_grad_()
    value, gradient = value_and_gradient(term, placed, truth.to(device), WEIGHTS.to(device))
    torch.testing.assert_close(value.cpu(), expected.detach())
    torch.testing.assert_close(gradient.cpu(), slope)


@each_shape
def test_focal_equals_a_sum_pixel_by_pixel(shape):
    logits, truth = batch(shape)
    w, pixels = WEIGHTS.tolist(), listed(logits, truth)
    total = sum(w[y] * (1 - p[y]) ** 1.5 * -math.log(p[y]) for p, y in pixels)
    found = terms.focal(Pixels.from_logits(logits, truth), WEIGHTS, 1.5)
    assert found.item() == pytest.approx(total / sum(w[y] for _, y in pixels), rel=1e-9)


def test_focal_of_gamma_0_is_the_weighted_cross_entropy_in_value_and_gradient():
    logits, truth = batch(SHAPES[0])
    found = value_and_gradient(lambda p, w: terms.focal(p, w, 0.0), logits, truth, WEIGHTS)
    expected = F.cross_entropy(logits, truth, WEIGHTS, ignore_index=IGNORE)
    torch.testing.assert_close(found, (expected.detach(), torch.autograd.grad(expected, logits)[0]))


@pytest.mark.parametrize("smooth", [0.0, 1.0])
@each_shape
def test_dice_equals_a_sum_pixel_by_pixel_over_the_classes_present(shape, smooth):
    logits, truth = batch(shape)
    pixels, scores, weights = listed(logits, truth), [], []
    for c, weight in enumerate(WEIGHTS.tolist()):
        intersection, predicted, true = soft_counts(pixels, c)
        if true:
            scores.append(weight * (2 * intersection + smooth) / (predicted + true + smooth))
            weights.append(weight)
    found = terms.dice(Pixels.from_logits(logits, truth), WEIGHTS, smooth)
    assert found.item() == pytest.approx(1 - sum(scores) / sum(weights), rel=1e-9)


@each_shape
def test_the_plain_mean_divides_by_the_number_of_valid_pixels(shape):
    logits, truth = batch(shape)
    w, pixels = WEIGHTS.tolist(), listed(logits, truth)
    expected = sum(w[y] * -math.log(p[y]) for p, y in pixels) / len(pixels)
    found = terms.cross_entropy_plain_mean(Pixels.from_logits(logits, truth), WEIGHTS)
    assert found.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("gamma", [0.0, 1.5, 2.0])
def test_focal_with_the_weight_inside_equals_ignitias_formula(gamma):
    logits, truth = batch((2, 5, 7, 9), ignored=0)
    pixelwise = F.cross_entropy(logits, truth, weight=WEIGHTS, reduction="none")
    expected = ((1 - torch.exp(-pixelwise)) ** gamma * pixelwise).mean()
    found = value_and_gradient(lambda p, w: terms.focal_weight_inside(p, w, gamma), logits, truth, WEIGHTS)
    torch.testing.assert_close(found, (expected.detach(), torch.autograd.grad(expected, logits)[0]))


@pytest.mark.parametrize("smooth", [1.0, 1e-6], ids=["Ignitia", "DesertMind"])
def test_dice_over_all_classes_equals_the_teams_formula_class_by_class(smooth):
    logits, truth = batch((2, 5, 7, 9), ignored=0)
    probabilities, scores = logits.softmax(dim=1), []
    for c in range(5):
        p, t = probabilities[:, c].reshape(-1), (truth == c).double().reshape(-1)
        scores.append((2 * (p * t).sum() + smooth) / (p.sum() + t.sum() + smooth))
    expected = 1 - torch.stack(scores).mean()
    ones = torch.ones_like(WEIGHTS)
    found = value_and_gradient(lambda p, w: terms.dice_all_classes(p, w, smooth), logits, truth, ones)
    torch.testing.assert_close(found, (expected.detach(), torch.autograd.grad(expected, logits)[0]))


def test_dice_over_all_classes_weighs_each_class_in_the_mean():
    logits, truth = batch((2, 5, 4, 3))
    pixels, w = listed(logits, truth), WEIGHTS.tolist()
    counts = [soft_counts(pixels, c) for c in range(5)]
    scores = [weight * (2 * i + 1) / (p + t + 1) for weight, (i, p, t) in zip(w, counts, strict=True)]
    found = terms.dice_all_classes(Pixels.from_logits(logits, truth), WEIGHTS, 1.0)
    assert found.item() == pytest.approx(1 - sum(scores) / sum(w), rel=1e-9)


@pytest.mark.parametrize("weights", [None, WEIGHTS.tolist()], ids=["unweighted", "weighted"])
@each_shape
def test_dice_with_absent_classes_perfect_equals_segmentation_models_pytorch(shape, weights):
    logits, truth = batch(shape)
    library = DiceLoss(mode="multiclass", ignore_index=IGNORE, from_logits=True, class_weights=weights)
    expected = library(logits, truth)
    ours = torch.ones_like(WEIGHTS) if weights is None else WEIGHTS
    found = value_and_gradient(terms.dice_absent_perfect, logits, truth, ours)
    torch.testing.assert_close(found, (expected.detach(), torch.autograd.grad(expected, logits)[0]))


@pytest.mark.parametrize("sigma", [0.3, 2.0])
@each_shape
def test_boundary_is_a_plain_mean_with_each_pixel_lifted_by_the_map_of_its_image(shape, sigma):
    logits, truth = batch(shape)
    lift = torch.stack([1 + boundary_map(image[None], sigma, torch.float64)[0] for image in truth])
    entropy = F.cross_entropy(logits, truth, WEIGHTS, ignore_index=IGNORE, reduction="none")
    expected = (lift * entropy).sum() / (truth != IGNORE).sum()
    found = value_and_gradient(lambda p, w: terms.boundary(p, w, sigma), logits, truth, WEIGHTS)
    torch.testing.assert_close(found, (expected.detach(), torch.autograd.grad(expected, logits)[0]))


def test_boundary_worked_by_hand():
    """One row of 3 pixels: all are edges of the frame, the map is 1 / (1 + 1e-6), so each counts twice."""
    logits = torch.zeros(1, 2, 1, 3, dtype=torch.float64)
    pixels = Pixels.from_logits(logits, torch.tensor([[[0, 1, 1]]]))
    found = terms.boundary(pixels, torch.tensor([1.0, 0.25], dtype=torch.float64), 2.0)
    assert found.item() == pytest.approx(2 * (1 + 0.25 + 0.25) / 3 * math.log(2), rel=1e-6)


def hardest(logits: Tensor, truth: Tensor, threshold: float, keep: float) -> np.ndarray:
    """The pixels (M,) that are kept, as positions among all pixels of the batch, by a plain sort."""
    probability = logits.detach().softmax(dim=1).permute(0, 2, 3, 1).reshape(-1, logits.shape[1]).numpy()
    flat = truth.reshape(-1).numpy()
    valid = np.flatnonzero(flat != IGNORE)
    true = probability[valid, flat[valid]]
    at_least = math.ceil(keep * len(valid))
    return valid[np.argsort(true)[: max(at_least, (true < threshold).sum())]]


@pytest.mark.parametrize(
    ("threshold", "keep"), [(0.7, 0.1), (0.05, 0.1), (0.05, 0.5), (1e-9, 1e-9), (1e-9, 1.0), (1.0, 0.1)]
)
@each_shape
def test_ohem_equals_cross_entropy_of_the_pixels_that_a_plain_sort_keeps(shape, threshold, keep):
    logits, truth = batch(shape)
    kept = hardest(logits, truth, threshold, keep)
    rows = logits.permute(0, 2, 3, 1).reshape(-1, shape[1])
    expected = F.cross_entropy(rows[kept], truth.reshape(-1)[kept], WEIGHTS)
    found = value_and_gradient(lambda p, w: terms.ohem(p, w, threshold, keep), logits, truth, WEIGHTS)
    torch.testing.assert_close(found, (expected.detach(), torch.autograd.grad(expected, logits)[0]))


def test_ohem_keeps_the_share_even_where_most_pixels_have_a_loss_of_exactly_0():
    """Ten pixels, two of them uncertain, three kept: the third adds nothing to the sum and 1 below it."""
    logits = torch.zeros(1, 2, 2, 5)
    logits[0, 0] = 200.0
    logits[0, :, 1, 3] = torch.tensor([2.0, 0.0])
    logits[0, :, 0, 1] = torch.tensor([1.0, 0.0])
    pixels = Pixels.from_logits(logits, torch.zeros(1, 2, 5, dtype=torch.int64))
    found = terms.ohem(pixels, torch.ones(2), 0.5, 0.25)
    expected = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-1))) / 3
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_ohem_chooses_by_the_loss_without_its_weight_over_the_whole_batch():
    """Of two images only the second one's pixel is kept, though its class weighs 80 times less."""
    logits = torch.tensor([[2.0, 0.0], [3.0, 0.0]], dtype=torch.float64).reshape(2, 2, 1, 1).requires_grad_()
    truth = torch.tensor([1, 1]).reshape(2, 1, 1)
    weights = torch.tensor([5.0, 0.0625], dtype=torch.float64)
    value, gradient = value_and_gradient(lambda p, w: terms.ohem(p, w, 1e-9, 0.5), logits, truth, weights)
    assert value.item() == pytest.approx(math.log(1 + math.exp(3)), rel=1e-9)
    assert not gradient[0].any()
    assert gradient[1].any()


@pytest.mark.parametrize("device", DEVICES)
def test_the_counts_of_dice_keep_their_digits_over_millions_of_pixels(device):
    """A running float32 sum of 0.6 over 2048 x 2048 pixels comes out 0.8 % too small."""
    logits = torch.tensor([math.log(1.5), 0.0], device=device).reshape(1, 2, 1, 1).expand(1, 2, 2048, 2048)
    truth = torch.zeros(1, 2048, 2048, dtype=torch.int64, device=device)
    overlap = Pixels.from_logits(logits, truth).overlap
    assert overlap.intersection.tolist() == pytest.approx([0.6 * 2048**2, 0], rel=1e-4)
    assert overlap.predicted.tolist() == pytest.approx([0.6 * 2048**2, 0.4 * 2048**2], rel=1e-4)
    assert overlap.true.tolist() == [2048**2, 0]


# What the published formulas do -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weight", "factor"),
    [(0.0104, 2e-4), (0.0208, 8e-4), (0.3278, 0.17), (5.0, 3.75)],
    ids=["Sky", "Dry Grass", "Rocks", "Logs"],
)
def test_a_weight_inside_focal_scales_a_pixel_of_p_one_half_by_more_than_the_weight(weight, factor):
    """Trap T7, with Ignitia's phase-2 weights, relative to the weight outside."""
    pixels = Pixels.from_logits(torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1, dtype=torch.int64))
    weights = torch.tensor([weight, 1.0])
    outside = weight * terms.focal(pixels, weights, 2.0)
    inside = terms.focal_weight_inside(pixels, weights, 2.0)
    assert (inside / outside).item() == pytest.approx(factor, rel=0.05)


def test_the_plain_mean_is_the_cross_entropy_times_the_mean_weight_of_the_pixels():
    """Trap T8: 0.038 with Ignitia's phase-2 counts, so nominal factors of terms are not the real ones."""
    counts = torch.tensor(
        [132501218, 85243863, 66295865, 21002552, 20439451, 15382574, 12536643, 4199770, 3864657, 275319]
    ).double()
    weights = 5 * counts.min() / counts
    pixels_of_each = (counts / counts.min()).round().long()
    truth = torch.repeat_interleave(torch.arange(10), pixels_of_each).reshape(1, 1, -1)
    logits = torch.linspace(-3, 3, 10 * truth.numel(), dtype=torch.float64).sin().reshape(1, 10, 1, -1)
    pixels = Pixels.from_logits(logits, truth)
    ratio = terms.cross_entropy_plain_mean(pixels, weights) / terms.cross_entropy(pixels, weights, 0.0)
    assert ratio.item() == pytest.approx(weights[truth].mean().item(), rel=1e-9)
    assert ratio.item() == pytest.approx(0.038, abs=5e-4)


@pytest.mark.parametrize(("probability", "score"), [(1e-5, 0.18), (1e-4, 0.02)])
def test_an_absent_class_of_tiny_probability_scores_low_over_two_frames(probability, score):
    """Trap T9: smoothing 1 over 2 x 364 x 644 pixels; the weights leave only the absent class in the mean."""
    logits = torch.tensor([0.0, math.log(probability / (1 - probability))]).reshape(1, 2, 1, 1)
    truth = torch.zeros(2, 364, 644, dtype=torch.int64)
    pixels = Pixels.from_logits(logits.expand(2, 2, 364, 644), truth)
    found = 1 - terms.dice_all_classes(pixels, torch.tensor([0.0, 1.0]), 1.0)
    assert found.item() == pytest.approx(score, abs=0.005)
    expected = 1 / (2 * 364 * 644 * probability + 1)
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_predicting_everything_as_an_absent_class_costs_only_the_share_of_the_classes_present():
    """Trap C-T4: 2 of 7 classes present, so at most 2/7 with absent classes perfect, and 1 without."""
    truth = torch.zeros(1, 6, 6, dtype=torch.int64)
    truth[:, 3:] = 1
    logits = torch.zeros(1, 7, 6, 6)
    logits[:, 6] = 60
    pixels, ones = Pixels.from_logits(logits, truth), torch.ones(7)
    assert terms.dice_absent_perfect(pixels, ones).item() == pytest.approx(2 / 7, rel=1e-6)
    assert terms.dice(pixels, ones, 0.0).item() == pytest.approx(1, rel=1e-6)


def test_an_absent_class_keeps_dice_over_all_classes_at_a_tenth_for_a_right_prediction():
    """Trap D-T6: smoothing 1e-6, one of ten classes absent; the textbook term is near 0."""
    truth = torch.arange(9).repeat(10).reshape(1, 9, 10)
    logits = 12 * F.one_hot(truth, 10).permute(0, 3, 1, 2).double()
    pixels, ones = Pixels.from_logits(logits, truth), torch.ones(10, dtype=torch.float64)
    assert terms.dice_all_classes(pixels, ones, 1e-6).item() == pytest.approx(0.1, abs=1e-3)
    assert terms.dice(pixels, ones, 1e-6).item() < 1e-3


# Laws of every term -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LossConfig.model_fields)
def test_a_loss_of_one_term_asks_for_every_sum_that_the_term_reads(name):
    """A sum that `total.Loss` does not ask for is 0, and the term a wrong number without an error."""
    off = {other: field.default.model_copy(update={"weight": 0.0}) for other, field in LossConfig.model_fields.items()}
    config = LossConfig(**off | {name: off[name].model_copy(update={"weight": 1.0})})
    logits, truth = batch((2, 5, 7, 3))
    found, _ = build_loss(config, np.ones(5), list("abcde"))(logits, truth)
    expected = TERMS[name](Pixels.from_logits(logits, truth), torch.ones_like(WEIGHTS))
    torch.testing.assert_close(found, expected)


@each_term
def test_the_gradient_is_the_slope_of_the_value(term):
    logits, truth = batch((2, 5, 3, 3))
    assert torch.autograd.gradcheck(lambda x: term(Pixels.from_logits(x, truth), WEIGHTS), logits)


@pytest.mark.parametrize("name", [name for name in TERMS if name.startswith(("boundary", "ohem"))])
def test_the_second_derivative_is_the_slope_of_the_gradient(name):
    logits, truth = batch((1, 5, 3, 2))
    assert torch.autograd.gradgradcheck(lambda x: TERMS[name](Pixels.from_logits(x, truth), WEIGHTS), logits)


@each_term
def test_logits_of_ignored_pixels_change_nothing_and_get_no_gradient(term):
    logits, truth = batch((2, 5, 7, 3))
    ignored = (truth == IGNORE).unsqueeze(1).expand_as(logits)
    assert ignored.any()
    expected, slope = value_and_gradient(term, logits, truth, WEIGHTS)
    moved = torch.where(ignored, 40 * logits.detach() + 3, logits.detach()).requires_grad_()
    found, gradient = value_and_gradient(term, moved, truth, WEIGHTS)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient, slope)
    assert not gradient[ignored].any()
    assert gradient[~ignored].any()


@pytest.mark.parametrize("term", [TERMS[name] for name in TERMS if not name.startswith("boundary")])
def test_only_the_set_of_pixels_counts_not_the_image_they_lie_in(term):
    logits, truth = batch((2, 5, 7, 3))
    row = logits.detach().permute(1, 0, 2, 3).reshape(1, 5, 1, -1)
    together = term(Pixels.from_logits(row, truth.reshape(1, 1, -1)), WEIGHTS)
    torch.testing.assert_close(together, term(Pixels.from_logits(logits.detach(), truth), WEIGHTS))


@pytest.mark.parametrize("device", DEVICES)
@each_term
def test_memory_order_and_device_do_not_change_the_value(term, device):
    logits, truth = batch((2, 5, 7, 3))
    expected = term(Pixels.from_logits(logits.detach(), truth), WEIGHTS)
    placed = logits.detach().to(device).contiguous(memory_format=torch.channels_last)
    found = term(Pixels.from_logits(placed, truth.to(device)), WEIGHTS.to(device))
    torch.testing.assert_close(found.cpu(), expected)


@each_term
def test_a_batch_without_a_valid_pixel_is_0_with_zero_gradients(term):
    logits, truth = batch((2, 5, 3, 3))
    value, gradient = value_and_gradient(term, logits, torch.full_like(truth, IGNORE), WEIGHTS)
    assert value.item() == 0
    assert torch.equal(gradient, torch.zeros_like(logits))


@each_term
def test_a_batch_of_one_class_that_weighs_0_has_no_nan(term):
    logits, truth = batch((1, 5, 3, 3))
    weights = torch.tensor([0.0, 1, 1, 1, 1], dtype=torch.float64)
    value, gradient = value_and_gradient(term, logits, torch.zeros_like(truth), weights)
    assert value.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@each_term
def test_logits_at_the_end_of_their_range_give_a_finite_float32_loss_and_finite_gradients(term, dtype):
    truth = torch.tensor([[[0, 1, 2, 3, 0, IGNORE]]])
    logits = torch.zeros(1, 5, 1, 6, dtype=dtype)
    logits[0, 0] = torch.tensor([60000, 60000, -60000, 1e-4, 200, 60000], dtype=dtype)
    value, gradient = value_and_gradient(term, logits.requires_grad_(), truth, WEIGHTS.float())
    assert value.dtype == torch.float32
    assert value.isfinite()
    assert gradient.dtype == dtype
    assert gradient.isfinite().all()


@pytest.mark.parametrize("term", [TERMS[name] for name in TERMS if name != "cross_entropy, smoothed"])
def test_a_right_and_certain_prediction_of_every_class_costs_nothing(term):
    truth = torch.arange(5).repeat(3).reshape(1, 3, 5)
    logits = 200 * F.one_hot(truth, 5).permute(0, 3, 1, 2).double()
    assert term(Pixels.from_logits(logits, truth), WEIGHTS).item() == pytest.approx(0)
