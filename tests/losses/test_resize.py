"""Resizing of logits equals torch's kernel, whichever way it is computed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from harness.losses import resize_logits
from harness.losses.resize import SMALL, interpolation

#: up from a patch grid, up from many rows (torch's kernel), one side alone, and downwards
SIZES = [
    ((4, 7), (56, 98)),
    ((3, 5), (17, 5)),
    ((2, SMALL + 1), (5, 130)),
    ((SMALL, 2), (113, 3)),
    ((9, 11), (4, 20)),
    ((1, 1), (3, 4)),
]
each_size = pytest.mark.parametrize(("source", "size"), SIZES, ids=str)


def random_logits(source: tuple[int, int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, *source, generator=generator).to(dtype).requires_grad_()


@each_size
def test_resizing_equals_torch_in_value_and_gradient(source, size):
    logits = random_logits(source)
    expected = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
    found = resize_logits(logits, size)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    upstream = torch.linspace(-1, 1, found.numel()).sin().view_as(found)
    gradients = [torch.autograd.grad(result, logits, upstream)[0] for result in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


@each_size
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_is_resized_in_float32_even_under_autocast(source, size, dtype):
    logits = random_logits(source, dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = resize_logits(logits, size)
    assert found.dtype == torch.float32
    assert torch.equal(found, resize_logits(logits.float(), size))


@each_size
def test_double_precision_stays_double(source, size):
    logits = random_logits(source, torch.float64)
    found = resize_logits(logits, size)
    expected = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_logits_of_the_right_size_are_returned_as_they_are():
    logits = random_logits((4, 7))
    assert resize_logits(logits, (4, 7)) is logits


def test_the_weights_of_a_line_doubled_are_quarters():
    """Worked by hand: pixel centres of the result lie at -1/4, 1/4, 3/4, 5/4 of the source, held at its ends."""
    weights = interpolation(2, 4, torch.float32)
    assert weights.tolist() == [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]


def test_weights_first_asked_for_in_inference_mode_serve_a_training_afterwards():
    with torch.inference_mode():
        resize_logits(torch.zeros(1, 1, 6, 6), (23, 29))
    logits = torch.zeros(1, 1, 6, 6, requires_grad=True)
    resize_logits(logits, (23, 29)).sum().backward()
    assert logits.grad.sum().item() == pytest.approx(23 * 29, rel=1e-5)
