"""The sum of the terms, the class weights it carries, and the batches it refuses."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from segmentation_models_pytorch.losses import DiceLoss

from harness.config import IGNORE, validate_section
from harness.config.loss import ExplicitWeights, InverseFrequency, LossConfig
from harness.errors import ConfigError, DataError
from harness.losses import Loss, build_loss, class_weights

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
    with pytest.raises(DataError, match=r"type torch.int64.* give floating-point logits \(N 3 H W\)"):
        loss_of(dice={"weight": 1.0})(torch.zeros(2, 3, 7, 5, dtype=torch.int64), batch()[1])


@pytest.mark.parametrize(
    "truth",
    [torch.zeros(2, 7, 4, dtype=torch.int64), torch.zeros(2, 7, 5, dtype=torch.uint8)],
    ids=["size", "type"],
)
def test_a_truth_of_another_size_or_type_is_refused(truth):
    with pytest.raises(DataError, match=r"give int64 class indices of shape \(2, 7, 5\)"):
        loss_of(dice={"weight": 1.0})(batch()[0], truth)


@pytest.mark.parametrize("name", TERM_NAMES)
def test_a_truth_that_is_no_class_is_never_scored(name):
    logits, truth = batch()
    truth[1, 2, 3] = 3
    with pytest.raises((RuntimeError, IndexError), match="out of bounds"):
        loss_of(**{name: {"weight": 1.0}})(logits, truth)
