from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from harness.bench.input import CASES
from harness.bench.teams_input import CODECRUNCH, IGNITIA, TeamFrames, convert_mask, plain, team_loader
from harness.config import IGNORE
from harness.config.data import NamedTaxonomy
from harness.data import build_taxonomy, open_frames
from harness.engine.inference import normalise


@pytest.mark.parametrize(("name", "ids", "unlisted"), [("ignitia10", IGNITIA, 0), ("falcon7", CODECRUNCH, IGNORE)])
def test_the_teams_loader_gives_the_masks_and_the_pixels_of_the_harness(
    desert: Path, name: str, ids: dict[int, int], unlisted: int
) -> None:
    taxonomy = build_taxonomy(NamedTaxonomy(name=name))
    frames = open_frames(desert, "val", (28, 42))
    theirs = TeamFrames(desert, "val", plain(28, 42), ids, unlisted)
    assert len(theirs) == len(frames) == 3
    for index in range(3):
        image, mask = theirs[index]
        np.testing.assert_array_equal(mask, taxonomy.to_classes(frames.masks[index], "mask"))
        ours = normalise(torch.from_numpy(np.array(frames.images[index])).permute(2, 0, 1)[None], "imagenet")[0]
        torch.testing.assert_close(image, ours, rtol=1e-4, atol=1e-4)


def test_a_mask_is_converted_id_by_id_and_what_is_not_listed_becomes_the_class_given() -> None:
    raw = np.array([[100, 600], [10000, 7]], np.uint16)
    np.testing.assert_array_equal(convert_mask(raw, IGNITIA, 0), [[1, 0], [9, 0]])
    np.testing.assert_array_equal(convert_mask(raw, CODECRUNCH, IGNORE), [[0, IGNORE], [6, IGNORE]])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.policy)
def test_every_training_transform_gives_normalised_batches_of_its_size(desert: Path, case) -> None:
    loader = team_loader(TeamFrames(desert, "train", case.transform(28, 42), case.ids, case.unlisted), 2, shuffle=True)
    batches = list(loader)
    assert [images.shape for images, _ in batches] == [(2, 3, 28, 42)] * 2
    assert all(images.dtype == torch.float32 and mask.dtype == torch.int64 for images, mask in batches)
    listed = {*case.ids.values(), case.unlisted, 0}
    assert {int(value) for _, mask in batches for value in mask.unique()} <= listed
