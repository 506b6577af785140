"""The softmax in strips equals the plain one, wherever the strips are cut."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.config import IGNORE
from harness.losses import strips
from harness.losses.strips import SoftmaxInStrips
from harness.losses.terms import ALL_SUMS, Pixels, Sums

SIZES = [((3, 4), (23, 19)), ((11, 6), (11, 6)), ((13, 9), (5, 4))]
each_size = pytest.mark.parametrize(("source", "size"), SIZES, ids=str)


@pytest.fixture(params=[1, 300, 2**17], ids=["a row each", "several", "all at once"])
def strip(request, monkeypatch):
    """How many numbers are in a strip."""
    monkeypatch.setattr(strips, "STRIP", request.param)
    strips._resizing.cache_clear()
    yield request.param
    strips._resizing.cache_clear()


def batch(source: tuple[int, int], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 4, *source, generator=generator, dtype=torch.float64)
    truth = torch.randint(0, 3, (2, *size), generator=generator)
    truth[:, :, 0] = IGNORE
    return logits.requires_grad_(), truth


def in_strips(logits: Tensor, truth: Tensor, sums: Sums = ALL_SUMS) -> tuple[Tensor, ...]:
    valid = truth != IGNORE
    return SoftmaxInStrips.apply(logits, torch.where(valid, truth, 0), valid, sums)


@each_size
def test_every_output_and_its_gradient_equal_the_plain_softmax(source, size, strip):
    logits, truth = batch(source, size)
    full = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
    pixels = Pixels.from_logits(full, truth)
    entropy = torch.where(pixels.valid, pixels.cross_entropy, 0.0)
    plain = (entropy, pixels.intersection, pixels.probability, pixels.log_probability)
    for found, expected in zip(in_strips(logits, truth), plain, strict=True):
        torch.testing.assert_close(found, expected)
        upstream = torch.linspace(-1, 2, found.numel(), dtype=torch.float64).view_as(found)
        gradients = [torch.autograd.grad(each, logits, upstream, retain_graph=True)[0] for each in (found, expected)]
        torch.testing.assert_close(*gradients)
        assert gradients[0].any()


@pytest.mark.parametrize("sums", [Sums(False, False), Sums(True, False), Sums(False, True), ALL_SUMS], ids=str)
def test_the_gradient_is_the_slope_whatever_sums_are_made(sums, strip):
    logits, truth = batch((3, 2), (5, 4))
    assert torch.autograd.gradcheck(lambda x: in_strips(x, truth, sums), logits)


def test_sums_that_are_not_asked_for_are_0():
    logits, truth = batch((3, 2), (5, 4))
    _, intersection, probability, log_probability = in_strips(logits, truth, Sums(False, False))
    assert not intersection.any()
    assert not probability.any()
    assert not log_probability.any()


@pytest.mark.parametrize("value", [6e4, -6e4], ids=["high", "low"])
def test_logits_of_extreme_value_stay_finite_in_float32(value):
    logits, truth = batch((3, 4), (23, 19))
    extreme = logits.detach().float()
    extreme[:, 1, 1] = value
    extreme.requires_grad_()
    outputs = in_strips(extreme, truth)
    assert all(output.isfinite().all() for output in outputs)
    gradient = torch.autograd.grad(sum(output.sum() for output in outputs), extreme)[0]
    assert gradient.isfinite().all()


def test_there_is_no_second_derivative_and_asking_for_it_fails():
    logits, truth = batch((3, 2), (5, 4))
    gradient = torch.autograd.grad(in_strips(logits, truth)[0].sum(), logits, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="does not require grad"):
        gradient.sum().backward()
