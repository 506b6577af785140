"""The batch counts on tensors equal the counts of each image in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.config import IGNORE
from harness.errors import DataError
from harness.metrics import confusion_matrix
from harness.metrics.confusion_torch import class_of_highest, confusion_matrices

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def random_maps(seed: int, images: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, classes, (images, 19, 23), dtype=np.uint8)
    truth[generator.random(truth.shape) < 0.2] = IGNORE
    prediction = generator.integers(0, classes + 3, truth.shape, dtype=np.uint8)
    return truth, prediction


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
@pytest.mark.parametrize(("images", "classes"), [(1, 1), (1, 10), (5, 7), (2, 252)])
def test_a_batch_counts_as_numpy_does_image_by_image(device, dtype, images, classes):
    truth, prediction = random_maps(images + classes, images, classes)
    expected = np.stack([confusion_matrix(t, p, classes) for t, p in zip(truth, prediction, strict=True)])
    found = confusion_matrices(
        torch.from_numpy(truth).to(device, dtype), torch.from_numpy(prediction).to(device, dtype), classes
    )
    assert found.dtype == torch.int64
    assert found.device.type == device
    assert np.array_equal(found.cpu().numpy(), expected)


def test_255_classes_fit_beside_ignore():
    truth = torch.tensor([[[254, 0, IGNORE]]], dtype=torch.uint8)
    found = confusion_matrices(truth, torch.tensor([[[254, IGNORE, 0]]], dtype=torch.uint8), 255)
    assert found.shape == (1, 255, 256)
    assert found.nonzero().tolist() == [[0, 0, 255], [0, 254, 254]]


def test_an_all_ignored_image_between_others_stays_empty_and_moves_nothing():
    truth, prediction = random_maps(0, 3, 4)
    truth[1] = IGNORE
    found = confusion_matrices(torch.from_numpy(truth), torch.from_numpy(prediction), 4).numpy()
    assert not found[1].any()
    assert np.array_equal(found[0], confusion_matrix(truth[0], prediction[0], 4))
    assert np.array_equal(found[2], confusion_matrix(truth[2], prediction[2], 4))


def test_a_negative_prediction_is_none():
    truth = torch.zeros(1, 1, 2, dtype=torch.int64)
    assert confusion_matrices(truth, torch.tensor([[[-1, 0]]]), 2).tolist() == [[[1, 0, 1], [0, 0, 0]]]


@pytest.mark.parametrize("unlisted", [4, -1, 300])
def test_a_truth_class_that_is_not_listed_is_refused_instead_of_landing_in_the_next_image(unlisted):
    truth = torch.zeros(2, 2, 2, dtype=torch.int64)
    truth[0, 1, 1] = unlisted
    with pytest.raises(DataError, match=f"the truth holds class {unlisted} but there are 4 classes"):
        confusion_matrices(truth, torch.zeros_like(truth), 4)


def test_a_single_map_without_a_batch_axis_is_refused_with_its_shape():
    one = torch.zeros(4, 4, dtype=torch.uint8)
    with pytest.raises(DataError, match=r"truth of shape \(4, 4\)"):
        confusion_matrices(one, one, 2)


def test_logits_in_place_of_classes_are_refused():
    truth = torch.zeros(1, 4, 4, dtype=torch.uint8)
    with pytest.raises(DataError, match="prediction of type torch.float32: class maps are integer"):
        confusion_matrices(truth, truth.float(), 2)


@pytest.mark.parametrize("unlisted", [4, 254, 256, 300])
def test_an_unlisted_truth_class_is_found_beside_ignored_pixels(unlisted):
    truth = torch.full((3, 2, 2), IGNORE)
    truth[1, 0, 1] = unlisted
    with pytest.raises(DataError, match=f"the truth holds class {unlisted} but there are 4 classes"):
        confusion_matrices(truth, torch.zeros_like(truth), 4)


def test_counting_leaves_the_maps_as_they_are():
    truth = torch.tensor([[[0, 1, IGNORE]]], dtype=torch.int32)
    prediction = torch.tensor([[[-1, 7, 1]]], dtype=torch.int32)
    confusion_matrices(truth, prediction, 2)
    assert truth.tolist() == [[[0, 1, IGNORE]]]
    assert prediction.tolist() == [[[-1, 7, 1]]]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(1, 1, 3, 2), (3, 10, 37, 41), (2, 7, 1, 1)], ids=str)
def test_the_class_of_the_highest_logit_is_numpys_argmax_also_where_logits_are_equal(shape, layout, device):
    generator = np.random.default_rng(5)
    logits = generator.integers(-3, 3, shape).astype(np.float32)  # few values: most pixels have ties
    logits[:, -1] = -np.inf  # a suppressed class
    found = class_of_highest(torch.from_numpy(logits).to(device).contiguous(memory_format=layout))
    assert found.dtype == torch.int64
    assert np.array_equal(found.cpu().numpy(), logits.argmax(1))


def test_where_every_class_is_suppressed_the_first_is_given():
    assert class_of_highest(torch.full((1, 4, 2, 2), -torch.inf)).tolist() == [[[0, 0], [0, 0]]]
