from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from harness.config import IGNORE, POLICIES
from harness.config.augmentation import CutMix, Fourier, Grey, NamedPolicy, RandomCrop, ShiftScaleRotate, StepList
from harness.config.data import NamedTaxonomy
from harness.config.training import ProtocolConfig
from harness.data.batches import eval_batches, train_batches
from harness.data.cache import FrameArrays, open_frames
from harness.data.taxonomy import UNMAPPED, build_taxonomy
from harness.errors import ConfigError, DataError

TAXONOMY = build_taxonomy(NamedTaxonomy(name="falcon10"))
SIZE = (48, 80)
NONE = NamedPolicy(policy="none")
STRONG = NamedPolicy(policy="ignitia_phase3")
CUTMIX, FOURIER = CutMix(probability=1.0), Fourier(beta=0.1, probability=1.0)
BILINEAR, BORDER = ProtocolConfig(bilinear_masks=True), ProtocolConfig(border_class=True)


@pytest.fixture
def frames(frames_root) -> FrameArrays:
    return open_frames(frames_root, "train", SIZE)


@pytest.fixture
def native(frames_root) -> FrameArrays:
    return open_frames(frames_root, "train", None)


@pytest.fixture
def style(frames_root, add_frame) -> FrameArrays:
    for name in "xyz":
        add_frame(frames_root, "test", name, 40, 56)
    return open_frames(frames_root, "test", SIZE, masks=False)


def epoch_of(frames, augmentation=STRONG, **changed):
    options = {"batch_size": 2, "drop_last": False, "workers": 0, "seed": 7, "epoch": 3} | changed
    return list(train_batches(frames, TAXONOMY, augmentation, SIZE, **options))


def steps(*listed) -> StepList:
    return StepList(steps=listed)


def same(first, second) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(first, second, strict=True)
    )


def images_of(batches) -> set[bytes]:
    return {image.numpy().tobytes() for images, _ in batches for image in images}


def test_training_batches_have_shapes_types_and_a_smaller_last_one(frames):
    batches = epoch_of(frames)
    assert [tuple(images.shape) for images, _ in batches] == [(2, 3, *SIZE), (2, 3, *SIZE), (1, 3, *SIZE)]
    for images, truth in batches:
        assert images.dtype == torch.uint8 and truth.dtype == torch.uint8
        assert truth.shape == (len(images), *SIZE)
        assert ((truth < 10) | (truth == IGNORE)).all()


def test_without_augmentation_an_epoch_is_every_frame_once_in_another_order(frames):
    batches = epoch_of(frames, NONE)
    images = torch.cat([images for images, _ in batches]).permute(0, 2, 3, 1).numpy()
    truths = torch.cat([truth for _, truth in batches]).numpy()
    order = [int(np.flatnonzero((frames.images == image).all((1, 2, 3)))[0]) for image in images]
    assert sorted(order) == [0, 1, 2, 3, 4]
    for i, truth in zip(order, truths, strict=True):
        assert np.array_equal(truth, TAXONOMY.to_classes(frames.masks[i], "x"))


def test_batches_are_a_function_of_seed_and_epoch(frames):
    first = epoch_of(frames)
    torch.manual_seed(5)
    np.random.seed(5)
    assert same(epoch_of(frames), first)
    assert not same(epoch_of(frames, seed=8), first)
    assert not same(epoch_of(frames, epoch=4), first)


def test_a_frame_is_changed_the_same_way_whatever_the_batch_size(frames):
    assert images_of(epoch_of(frames, batch_size=1)) == images_of(epoch_of(frames, batch_size=5))


def test_frames_of_one_epoch_are_changed_apart_from_each_other(frames):
    five_times_one = replace(
        frames, images=np.repeat(frames.images[:1], 5, axis=0), masks=np.repeat(frames.masks[:1], 5, axis=0)
    )
    assert len(images_of(epoch_of(five_times_one, NONE))) == 1
    assert len(images_of(epoch_of(five_times_one))) >= 4


def test_epochs_differ_in_order_and_in_changes(frames):
    orders = {
        tuple(images_of([batch]).pop() for batch in epoch_of(frames, NONE, batch_size=1, epoch=e)) for e in range(6)
    }
    assert len(orders) > 3
    unchanged = images_of(epoch_of(frames, NONE))
    assert not images_of(epoch_of(frames, epoch=0)) & images_of(epoch_of(frames, epoch=1)) - unchanged


def test_worker_processes_make_the_same_batches_bit_for_bit(frames, style):
    everything = steps(*POLICIES["ignitia_phase3"], CUTMIX, FOURIER)
    assert same(epoch_of(frames, everything, style=style, workers=2), epoch_of(frames, everything, style=style))
    read = list(eval_batches(frames, TAXONOMY, batch_size=2, workers=1))
    assert same(read, list(eval_batches(frames, TAXONOMY, batch_size=2, workers=0)))


def test_no_global_generator_is_drawn_from(frames):
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()
    epoch_of(frames)
    list(eval_batches(frames, TAXONOMY, batch_size=2, workers=0))
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], before_numpy)


def test_an_incomplete_batch_is_dropped_only_on_request(frames):
    assert [len(images) for images, _ in epoch_of(frames, drop_last=True)] == [2, 2]
    assert len(epoch_of(frames, drop_last=True, batch_size=5)) == 1


def test_an_epoch_without_a_batch_is_refused(frames):
    with pytest.raises(ConfigError, match="batch_size 8 with drop_last leaves no batch of 5 frames.*5 or less"):
        epoch_of(frames, batch_size=8, drop_last=True)


def test_frames_of_another_size_are_refused_unless_a_step_crops_them(frames_root):
    native = open_frames(frames_root, "train", None)
    with pytest.raises(DataError, match=r"frames of \(64, 96\).*open them with size=\(48, 80\)"):
        epoch_of(native)
    resized = epoch_of(native, NamedPolicy(policy="codecrunch_moderate"))
    assert resized[0][0].shape == (2, 3, *SIZE)
    cropped = epoch_of(native, StepList(steps=(RandomCrop(height=32, width=32),)))
    assert cropped[0][0].shape == (2, 3, 32, 32) and cropped[0][1].shape == (2, 32, 32)


def test_evaluation_yields_every_frame_in_file_order(frames):
    batches = list(eval_batches(frames, TAXONOMY, batch_size=2, workers=0))
    images = torch.cat([images for images, _ in batches])
    truth = torch.cat([truth for _, truth in batches])
    assert [len(images) for images, _ in batches] == [2, 2, 1]
    assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), frames.images)
    assert np.array_equal(truth.numpy(), TAXONOMY.to_classes(np.asarray(frames.masks), "x"))
    assert truth.dtype == torch.uint8


def test_the_truth_may_come_at_native_size(frames, frames_root):
    native = open_frames(frames_root, "train", None)
    images, truth = next(iter(eval_batches(frames, TAXONOMY, batch_size=5, workers=0, truth=native)))
    assert images.shape == (5, 3, *SIZE) and truth.shape == (5, 64, 96)
    assert np.array_equal(truth.numpy(), TAXONOMY.to_classes(np.asarray(native.masks), "x"))


def test_the_truth_of_other_frames_is_refused(frames, frames_root):
    other = open_frames(frames_root, "val", None)
    with pytest.raises(DataError, match="truth of 2 frames for 5 images"):
        eval_batches(frames, TAXONOMY, batch_size=2, workers=0, truth=other)


def test_frames_without_masks_are_refused(frames_root):
    images = open_frames(frames_root, "train", SIZE, masks=False)
    with pytest.raises(DataError, match="opened without masks"):
        epoch_of(images)
    with pytest.raises(DataError, match="opened without masks"):
        eval_batches(images, TAXONOMY, batch_size=2, workers=0)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unlisted_id_is_refused_with_the_frame_in_one_line(frames, workers):
    table = TAXONOMY.table.copy()
    table[7100] = UNMAPPED
    narrow = replace(TAXONOMY, table=table)
    with pytest.raises(DataError, match=r"^mask of frame a: raw ids in no class: 7100 .*ignore$"):
        list(eval_batches(frames, narrow, batch_size=2, workers=workers))


def test_images_are_in_channels_last_memory_and_may_be_written(frames):
    images, _ = epoch_of(frames, NONE)[0]
    assert images.is_contiguous(memory_format=torch.channels_last)
    images += 1


def test_cutmix_takes_each_pixel_and_its_truth_from_one_place_of_another_frame_of_the_batch(frames):
    plain, mixed = epoch_of(frames), epoch_of(frames, steps(*POLICIES["ignitia_phase3"], CUTMIX))
    changed = 0
    for (images, truth), (mixed_images, mixed_truth) in zip(plain, mixed, strict=True):
        pixels = torch.cat([images, truth[:, None]], 1)
        for own, found in zip(pixels, torch.cat([mixed_images, mixed_truth[:, None]], 1), strict=True):
            own_place = (found == own).all(0)
            assert (own_place | (found[None] == pixels).all(1).any(0)).all()
            changed += int(not own_place.all())
    assert changed >= 3
    # five frames in twos: the last batch is one frame
    assert same(mixed[-1:], plain[-1:])


def test_cutmix_comes_last_and_fourier_first_wherever_they_stand(frames, style):
    strong = POLICIES["ignitia_phase3"]
    assert same(epoch_of(frames, steps(CUTMIX, *strong)), epoch_of(frames, steps(*strong, CUTMIX)))
    # coloured again if the style came after the grey
    for images, _ in epoch_of(frames, steps(Grey(probability=1.0), FOURIER), style=style):
        assert (images[:, :1] == images).all()


def test_mixing_is_a_function_of_seed_and_epoch(frames, style):
    mixing = steps(CUTMIX, FOURIER)
    first = epoch_of(frames, mixing, style=style)
    assert same(epoch_of(frames, mixing, style=style), first)
    for other in ({"seed": 8}, {"epoch": 4}):
        assert not images_of(epoch_of(frames, mixing, style=style, **other)) & images_of(first)


def test_a_frame_takes_the_same_style_whatever_the_batch_size_and_keeps_its_truth(frames, style):
    styled = epoch_of(frames, steps(FOURIER), style=style)
    assert images_of(styled) == images_of(epoch_of(frames, steps(FOURIER), style=style, batch_size=5))
    plain = epoch_of(frames, NONE)
    assert not images_of(styled) & images_of(plain)
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(styled, plain, strict=True))


def test_a_fourier_step_without_style_images_is_refused(frames):
    with pytest.raises(DataError, match="fourier step, and no style images.*open the test split with masks=False"):
        epoch_of(frames, steps(FOURIER))


def test_bilinear_masks_are_the_native_classes_resized_by_pil(frames, native):
    expected = [
        np.array(Image.fromarray(TAXONOMY.to_classes(m, "x")).resize(SIZE[::-1], Image.Resampling.BILINEAR))
        for m in native.masks
    ]
    scored = eval_batches(frames, TAXONOMY, batch_size=5, workers=0, truth=native, bilinear=True)
    images, truth = next(iter(scored))
    assert np.array_equal(truth.numpy(), expected) and truth.dtype == torch.uint8
    assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), frames.images)
    trained = epoch_of(frames, NONE, protocol=BILINEAR, truth=native, batch_size=5)
    order = [int(np.flatnonzero((images == image).all((1, 2, 3)))[0]) for image in trained[0][0]]
    assert np.array_equal(trained[0][1].numpy(), np.stack(expected)[order])
    assert not np.array_equal(trained[0][1], epoch_of(frames, NONE, batch_size=5)[0][1])


def test_bilinear_masks_need_native_masks_of_the_same_frames(frames, frames_root):
    with pytest.raises(DataError, match="come from native ones; open the same frames with size=None"):
        epoch_of(frames, protocol=BILINEAR)
    with pytest.raises(DataError, match="come from native ones"):
        eval_batches(frames, TAXONOMY, batch_size=2, workers=0, bilinear=True)
    with pytest.raises(DataError, match="truth of 2 frames for 5 images"):
        epoch_of(frames, protocol=BILINEAR, truth=open_frames(frames_root, "val", None))


def test_bilinear_masks_and_a_crop_of_native_frames_exclude_each_other(native):
    with pytest.raises(ConfigError, match="protocol.bilinear_masks .* a policy without random_resized_crop"):
        epoch_of(native, NamedPolicy(policy="codecrunch_moderate"), protocol=BILINEAR, truth=native)


@pytest.mark.parametrize("step", [ShiftScaleRotate(degrees=45.0, probability=1.0), RandomCrop(height=60, width=90)])
def test_the_border_class_is_0_where_the_uncovered_truth_was_ignored(frames, step):
    for (images, truth), (same_images, filled) in zip(
        epoch_of(frames, steps(step)), epoch_of(frames, steps(step), protocol=BORDER), strict=True
    ):
        assert torch.equal(images, same_images) and (truth == IGNORE).any()
        assert torch.equal(filled, truth.where(truth != IGNORE, 0))
