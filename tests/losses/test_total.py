"""The sum of the terms, the class weights it carries, and the batches it refuses."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from segmentation_models_pytorch.losses import DiceLoss

from harness.config import IGNORE, validate_section
from harness.config.loss import ExplicitWeights, InverseFrequency, LossConfig
from harness.errors import ConfigError, DataError
from harness.losses import Loss, build_loss, class_weights
from harness.losses.terms import Pixels
from harness.losses.total import term_value

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
NAMES = ["Trees", "Rocks", "Sky"]
COUNTS = np.array([200, 50, 1000])
TERM_NAMES = list(LossConfig.model_fields)
OPTIONS = [
    ("cross_entropy", "label_smoothing", 0.3),
    ("focal", "gamma", 1.0),
    ("dice", "smooth", 30.0),
    ("focal_weight_inside", "gamma", 1.0),
    ("dice_all_classes", "smooth", 30.0),
    ("boundary", "sigma", 0.3),
    ("ohem", "threshold", 0.2),
    ("ohem", "keep", 1.0),
]
OFF = {"cross_entropy": {"weight": 0.0}}


def loss_of(**fields: dict) -> Loss:
    return build_loss(validate_section(LossConfig, OFF | fields, "loss"), COUNTS, NAMES)


def batch(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 7, 5, generator=generator)
    truth = torch.randint(0, 3, (2, 7, 5), generator=generator)
    truth[:, 0] = IGNORE
    return logits.to(dtype).requires_grad_(), truth


def test_codecrunchs_loss_is_half_weighted_cross_entropy_and_half_the_librarys_dice():
    explicit = {"kind": "explicit", "values": {"Trees": 1.5, "Rocks": 5.0, "Sky": 0.4}}
    loss = loss_of(cross_entropy={"weight": 0.5, "class_weights": explicit}, dice_absent_perfect={"weight": 0.5})
    logits, truth = batch()
    total, values = loss(logits, truth)
    entropy = F.cross_entropy(logits, truth, torch.tensor([1.5, 5.0, 0.4]), ignore_index=IGNORE)
    dice = DiceLoss("multiclass", ignore_index=IGNORE)(logits, truth)
    torch.testing.assert_close(total, 0.5 * entropy + 0.5 * dice)
    assert list(values) == ["cross_entropy", "dice_absent_perfect"]
    torch.testing.assert_close(values["cross_entropy"], entropy.detach())
    torch.testing.assert_close(values["dice_absent_perfect"], dice.detach())


def test_the_default_loss_is_plain_cross_entropy():
    logits, truth = batch()
    total, values = build_loss(LossConfig(), COUNTS, NAMES)(logits, truth)
    torch.testing.assert_close(total, F.cross_entropy(logits, truth, ignore_index=IGNORE))
    assert list(values) == ["cross_entropy"]


@pytest.mark.parametrize("name", TERM_NAMES)
def test_every_term_of_the_configuration_is_built_and_scaled_by_its_weight(name):
    logits, truth = batch()
    total, values = loss_of(**{name: {"weight": 3.0}})(logits, truth)
    assert list(values) == [name]
    assert values[name] > 0
    torch.testing.assert_close(total.detach(), 3 * values[name])


def test_all_terms_together_are_the_sum_of_each_alone():
    logits, truth = batch()
    together = {name: {"weight": 0.5 + i} for i, name in enumerate(TERM_NAMES)}
    total, values = loss_of(**together)(logits, truth)
    assert list(values) == TERM_NAMES
    alone = [loss_of(**{name: fields})(logits, truth)[0] for name, fields in together.items()]
    torch.testing.assert_close(total, torch.stack(alone).sum())


@pytest.mark.parametrize("name", TERM_NAMES)
def test_class_weights_reach_every_term(name):
    logits, truth = batch()
    plain, _ = loss_of(**{name: {"weight": 1.0}})(logits, truth)
    weighted, _ = loss_of(**{name: {"weight": 1.0, "class_weights": {"kind": "inverse_frequency"}}})(logits, truth)
    assert abs(plain - weighted) > 1e-3


@pytest.mark.parametrize(("name", "option", "value"), OPTIONS)
def test_every_option_reaches_its_term(name, option, value):
    logits, truth = batch()
    plain, _ = loss_of(**{name: {"weight": 1.0}})(logits, truth)
    changed, _ = loss_of(**{name: {"weight": 1.0, option: value}})(logits, truth)
    assert abs(plain - changed) > 1e-3


def test_the_list_of_options_holds_every_field_that_a_term_has_of_its_own():
    fields = LossConfig.model_fields.items()
    own = [
        (name, option)
        for name, field in fields
        for option in field.annotation.model_fields
        if option not in ("weight", "class_weights")
    ]
    assert own == [(name, option) for name, option, _ in OPTIONS]


def test_each_term_keeps_its_own_class_weights_as_a_buffer_that_no_checkpoint_holds():
    loss = loss_of(cross_entropy={"weight": 1.0, "class_weights": {"kind": "inverse_frequency"}}, focal={"weight": 1.0})
    buffers = dict(loss.named_buffers())
    expected = class_weights(InverseFrequency(), COUNTS, NAMES)
    np.testing.assert_allclose(buffers["cross_entropy_class_weights"], expected, rtol=1e-6)
    assert buffers["focal_class_weights"].tolist() == [1, 1, 1]
    moved = copy.deepcopy(loss).to("meta")
    assert [buffer.device.type for buffer in moved.buffers()] == ["meta", "meta"]
    assert not loss.state_dict()
    assert not list(loss.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_lower_precision_logits_are_scored_in_float32(dtype):
    logits, truth = batch(dtype)
    loss = loss_of(**{name: {"weight": 1.0} for name in TERM_NAMES})
    total, values = loss(logits, truth)
    assert total.dtype == torch.float32
    # the same numbers, not numbers rounded on the way
    torch.testing.assert_close(total, loss(logits.float(), truth)[0], rtol=0, atol=0)
    total.backward()
    assert logits.grad.dtype == dtype
    assert all(value.dtype == torch.float32 for value in values.values())


def test_autocast_leaves_the_loss_in_float32():
    logits, truth = batch(torch.bfloat16)
    loss = loss_of(**{name: {"weight": 1.0} for name in TERM_NAMES})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, _ = loss(logits, truth)
    torch.testing.assert_close(total, loss(logits, truth)[0], rtol=0, atol=0)


def test_double_precision_logits_stay_double():
    logits, truth = batch(torch.float64)
    total, _ = loss_of(**{name: {"weight": 1.0} for name in TERM_NAMES})(logits, truth)
    assert total.dtype == torch.float64


def test_the_values_of_terms_carry_no_graph_and_the_total_does():
    logits, truth = batch()
    total, values = loss_of(**{name: {"weight": 1.0} for name in TERM_NAMES})(logits, truth)
    assert total.requires_grad
    assert not any(value.requires_grad for value in values.values())


def test_a_batch_of_ignored_pixels_is_0_and_can_be_stepped_on():
    logits, truth = batch()
    loss = loss_of(**{name: {"weight": 1.0} for name in TERM_NAMES})
    total, values = loss(logits, torch.full_like(truth, IGNORE))
    total.backward()
    assert total.item() == 0
    assert all(value == 0 for value in values.values())
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_a_logit_that_is_not_finite_shows_in_the_total():
    logits, truth = batch()
    broken = logits.detach().clone()
    broken[1, 2, 3, 4] = float("nan")
    total, _ = loss_of(focal={"weight": 1.0}, dice={"weight": 1.0})(broken, truth)
    assert not total.isfinite()


def test_terms_that_are_off_do_not_ask_for_their_class_weights():
    missing = ExplicitWeights(values={"Trees": 1.0})
    loss = loss_of(dice={"weight": 1.0}, focal={"weight": 0.0, "class_weights": missing.model_dump()})
    assert list(dict(loss.named_buffers())) == ["dice_class_weights"]


def test_class_weights_that_do_not_fit_are_refused_when_the_loss_is_built():
    with pytest.raises(ConfigError, match="no weight for Rocks, Sky"):
        loss_of(focal={"weight": 1.0, "class_weights": {"kind": "explicit", "values": {"Trees": 1.0}}})


@pytest.mark.parametrize("shape", [(2, 4, 7, 5), (2, 3, 35)])
def test_logits_of_other_classes_or_dimensions_are_refused(shape):
    with pytest.raises(DataError, match="the loss was built for 3 classes; give floating-point logits"):
        loss_of(dice={"weight": 1.0})(torch.zeros(shape), batch()[1])


def test_class_indices_in_place_of_logits_are_refused():
    with pytest.raises(DataError, match=r"type torch.int64.* give floating-point logits \(N 3 h w\)"):
        loss_of(dice={"weight": 1.0})(torch.zeros(2, 3, 7, 5, dtype=torch.int64), batch()[1])


@pytest.mark.parametrize(
    "truth",
    [
        torch.zeros(3, 7, 5, dtype=torch.int64),
        torch.zeros(2, 35, dtype=torch.int64),
        torch.zeros(2, 7, 5, dtype=torch.uint8),
    ],
    ids=["images", "dimensions", "type"],
)
@pytest.mark.parametrize("method", ["forward", "per_image"])
def test_a_truth_of_other_images_dimensions_or_type_is_refused(truth, method):
    with pytest.raises(DataError, match=r"give int64 class indices of shape \(2 H W\)"):
        getattr(loss_of(dice={"weight": 1.0}), method)(batch()[0], truth)


@pytest.mark.parametrize("name", TERM_NAMES)
def test_a_truth_that_is_no_class_is_never_scored(name):
    logits, truth = batch()
    truth[1, 2, 3] = 3
    with pytest.raises((RuntimeError, IndexError), match="out of bounds"):
        loss_of(**{name: {"weight": 1.0}})(logits, truth)


# At any size, against the textbook ---------------------------------------------------------------------------

#: of logits and of truth: a patch grid, odd sides, one side alone, equal, and downwards
SIZES = [
    ((2, 3), (28, 42)),
    ((4, 3), (17, 31)),
    ((7, 3), (7, 31)),
    ((7, 5), (29, 5)),
    ((9, 11), (9, 11)),
    ((20, 31), (9, 14)),
]
WEIGHTS = {"Trees": 0.5, "Rocks": 3.0, "Sky": 0.25, "Logs": 1.0, "Grass": 2.0}
EXPLICIT = {"kind": "explicit", "values": WEIGHTS}
TEXTBOOK = {
    "cross_entropy": {"weight": 1.0, "class_weights": EXPLICIT, "label_smoothing": 0.1},
    "focal": {"weight": 2.0, "class_weights": EXPLICIT, "gamma": 1.5},
    "dice": {"weight": 0.5, "class_weights": EXPLICIT, "smooth": 1.0},
}
COMBINATIONS = [names for size in (1, 2, 3) for names in itertools.combinations(TEXTBOOK, size)]


def textbook(logits: torch.Tensor, truth: torch.Tensor, names: tuple[str, ...]) -> torch.Tensor:
    """The plain formulas, class by class, on logits resized by torch."""
    full = F.interpolate(logits, size=truth.shape[1:], mode="bilinear", align_corners=False)
    weights = torch.tensor(list(WEIGHTS.values()), dtype=logits.dtype)
    total = torch.zeros((), dtype=logits.dtype)
    if "cross_entropy" in names:
        total = total + F.cross_entropy(full, truth, weights, ignore_index=IGNORE, label_smoothing=0.1)
    rows = full.permute(0, 2, 3, 1)[truth != IGNORE]
    labels = truth[truth != IGNORE]
    if "focal" in names:
        p = rows.softmax(1)[torch.arange(len(labels)), labels]
        total = total + 2 * (weights[labels] * (1 - p) ** 1.5 * -p.log()).sum() / weights[labels].sum()
    if "dice" in names:
        hot, scores = F.one_hot(labels, 5), []
        for c in labels.unique().tolist():
            p, t = rows.softmax(1)[:, c], hot[:, c]
            scores.append((weights[c], 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)))
        total = total + 0.5 * sum(w * score for w, score in scores) / sum(w for w, _ in scores)
    return total


def five_classes(images: int, source: tuple[int, int], size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Float32 logits at one size, and a truth at another with ignored pixels and without classes 1 and 3."""
    generator = torch.Generator().manual_seed(images)
    logits = 3 * torch.randn(images, 5, *source, generator=generator)
    truth = 2 * torch.randint(0, 3, (images, *size), generator=generator)
    truth[torch.rand(truth.shape, generator=generator) < 0.2] = IGNORE
    return logits.requires_grad_(), truth


def loss_of_five(**fields: dict) -> Loss:
    config = validate_section(LossConfig, OFF | fields, "loss")
    return build_loss(config, np.arange(1, 6), list(WEIGHTS))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("names", COMBINATIONS, ids="+".join)
@pytest.mark.parametrize(("source", "size"), SIZES, ids=str)
@pytest.mark.parametrize("images", [1, 3])
def test_logits_of_any_size_score_as_the_textbook_says_in_value_and_gradient(images, source, size, names, device):
    logits, truth = five_classes(images, source, size)
    expected = textbook(logits.double(), truth, names)
    slope = torch.autograd.grad(expected, logits)[0]
    total, _ = loss_of_five(**{name: TEXTBOOK[name] for name in names}).to(device)(logits.to(device), truth.to(device))
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)
    gradient = torch.autograd.grad(total, logits)[0]
    torch.testing.assert_close(gradient, slope, rtol=1e-5, atol=1e-5 * slope.abs().max().item())


@pytest.mark.parametrize("name", TERM_NAMES)
@pytest.mark.parametrize(("source", "size"), SIZES, ids=str)
def test_every_term_equals_its_plain_formula_on_resized_logits(name, source, size):
    logits, truth = five_classes(2, source, size)
    loss = loss_of_five(**{name: {"weight": 1.0, "class_weights": EXPLICIT}})
    full = F.interpolate(logits.double(), size=size, mode="bilinear", align_corners=False)
    weights = torch.tensor(list(WEIGHTS.values()), dtype=torch.float64)
    expected = term_value(loss.active[name], Pixels.from_logits(full, truth), weights)
    slope = torch.autograd.grad(expected, logits)[0]
    total, _ = loss(logits, truth)
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)
    gradient = torch.autograd.grad(total, logits)[0]
    torch.testing.assert_close(gradient, slope, rtol=1e-5, atol=1e-5 * slope.abs().max().item())


@pytest.mark.parametrize("name", TERM_NAMES)
@pytest.mark.parametrize("source", [(2, 3), (5, 4)], ids=str)
def test_the_gradient_of_every_term_is_its_slope(name, source):
    logits, truth = five_classes(2, source, (5, 4))
    loss = loss_of_five(**{name: {"weight": 1.0, "class_weights": EXPLICIT}})
    assert torch.autograd.gradcheck(lambda x: loss(x, truth)[0], logits.detach().double().requires_grad_())


@pytest.mark.parametrize("source", [(2, 3), (9, 13)], ids=str)
def test_each_images_score_is_that_of_a_batch_of_its_own(source):
    logits, truth = five_classes(4, source, (9, 13))
    truth[2] = IGNORE
    loss = loss_of_five(**{name: {"weight": 1.0, "class_weights": EXPLICIT} for name in TERM_NAMES})
    alone = torch.stack([loss(logits[n : n + 1], truth[n : n + 1])[0] for n in range(4)])
    found = loss.per_image(logits, truth)
    torch.testing.assert_close(found, alone)
    assert found[2] == 0
    assert found.mean().item() != pytest.approx(loss(logits, truth)[0].item(), rel=1e-3)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_the_score_is_the_same_and_later_training_still_works(mode):
    logits, truth = five_classes(2, (3, 4), (19, 23))
    loss = loss_of_five(**{name: {"weight": 1.0} for name in TERM_NAMES})
    with mode():
        found = loss.per_image(logits, truth)
        together, _ = loss(logits, truth)
    assert not found.requires_grad
    assert not together.requires_grad
    total, _ = loss(logits, truth)
    torch.testing.assert_close(together.clone(), total.detach(), rtol=0, atol=0)
    assert torch.autograd.grad(total, logits)[0].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_logits_are_resized_in_float32(dtype):
    logits, truth = five_classes(2, (3, 4), (19, 23))
    logits = logits.detach().to(dtype).requires_grad_()
    loss = loss_of_five(**{name: {"weight": 1.0} for name in TERM_NAMES})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, _ = loss(logits, truth)
        total.backward()
    precise = logits.detach().float().requires_grad_()
    expected, _ = loss(precise, truth)
    expected.backward()
    torch.testing.assert_close(total, expected, rtol=0, atol=0)
    assert torch.equal(logits.grad, precise.grad.to(dtype))


def test_resized_logits_without_a_valid_pixel_score_0_with_zero_gradients():
    logits, truth = five_classes(2, (3, 4), (19, 23))
    loss = loss_of_five(**{name: {"weight": 1.0} for name in TERM_NAMES})
    total, _ = loss(logits, torch.full_like(truth, IGNORE))
    total.backward()
    assert total.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_the_same_batch_gives_the_same_bits():
    logits, truth = five_classes(3, (4, 5), (61, 83))
    loss = loss_of_five(**TEXTBOOK)
    first, second = (loss(logits, truth)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.autograd.grad(first, logits)[0], torch.autograd.grad(second, logits)[0])


@pytest.mark.parametrize("where", [(0, 0), (1, 2)], ids=["ignored pixel", "scored pixel"])
def test_a_logit_that_is_not_finite_shows_in_the_total_wherever_it_is(where):
    logits, truth = batch()
    broken = logits.detach().clone()
    broken[(1, 2, *where)] = float("nan")
    assert not loss_of(cross_entropy={"weight": 1.0})(broken, truth)[0].isfinite()
