"""The peers compute what the harness computes: what differs is the time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.bench import teams
from harness.bench.phase3_loss import both_losses
from harness.bench.team_models import team_model
from harness.config.model import BackboneModel, ConvNeXtStyleHead
from harness.metrics import CONVENTIONS, accuracy, counts
from harness.metrics.confusion_torch import confusion_matrices
from harness.models import build_model

NAMES = [str(index) for index in range(teams.CLASSES)]


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    """Logits (2 10 5 7) and truth (2 70 98) in which classes 8 and 9 are absent."""
    generator = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(2, teams.CLASSES, 5, 7, generator=generator)
    return logits, torch.randint(0, 8, (2, 70, 98), generator=generator)


def test_the_teams_loss_and_its_gradient_are_those_of_the_harness(batch: tuple[Tensor, Tensor]) -> None:
    logits, truth = batch
    ours, theirs = both_losses(truth)
    mine, peer = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    total, _ = ours(mine, truth)
    other = theirs(teams.upsample(peer, truth.shape[-2:]), truth)
    assert total.item() == pytest.approx(other.item(), abs=1e-5)
    total.backward()
    other.backward()
    torch.testing.assert_close(mine.grad, peer.grad, rtol=1e-3, atol=1e-6)


def test_the_teams_scores_are_those_of_the_matrices(batch: tuple[Tensor, Tensor]) -> None:
    logits, truth = batch
    wide = teams.upsample(logits, truth.shape[-2:])
    matrices = confusion_matrices(truth, wide.argmax(1), teams.CLASSES).numpy()
    iou, dice, right = teams.scores(wide, truth)
    assert iou == pytest.approx(CONVENTIONS["batch2_union"](matrices, NAMES), abs=1e-6)
    pooled = matrices.sum(0)
    hits, true, predicted = np.diag(pooled), pooled.sum(1), pooled.sum(0)[:-1]
    both = true + predicted
    # a class neither there nor predicted counts 1
    assert dice == pytest.approx(np.where(both > 0, 2 * hits / np.maximum(both, 1), 1.0).mean(), abs=1e-6)
    assert right == pytest.approx(accuracy(counts(pooled)), abs=1e-6)


def test_a_class_that_is_neither_there_nor_predicted_is_left_out_of_iou_and_counts_one_in_dice() -> None:
    logits = torch.zeros(1, 3, 2, 2)
    logits[0, 0, 0], logits[0, 1, 1] = 1.0, 1.0  # upper row class 0, lower row class 1
    truth = torch.tensor([[[0, 0], [0, 1]]])
    assert teams.mean_iou(logits, truth) == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert teams.mean_dice(logits, truth) == pytest.approx((4 / 5 + 2 / 3 + 1) / 3)
    assert teams.accuracy(logits, truth) == 0.75


def test_the_teams_network_is_the_harness_network_with_logits_at_full_size() -> None:
    torch.manual_seed(0)
    name, head = "vit_tiny_patch16_224", ConvNeXtStyleHead(channels=8)
    peer = team_model(name, head).eval()
    config = BackboneModel(backbone=name, weights="none", trainable_blocks=0, head=head)
    ours = build_model(config, teams.CLASSES).eval()
    ours.encoder.vit.load_state_dict(peer.backbone.state_dict(), strict=False)
    ours.decoder.load_state_dict(peer.head[0].state_dict())
    ours.head.load_state_dict(peer.head[1].state_dict())
    images = torch.randn(2, 3, 32, 48)
    with torch.no_grad():
        torch.testing.assert_close(peer(images), teams.upsample(ours(images), (32, 48)), rtol=1e-4, atol=1e-5)


def test_a_frozen_peer_trains_its_head_alone_and_an_unfrozen_one_its_last_blocks_too() -> None:
    head = ConvNeXtStyleHead(channels=8)
    for trainable, expected in ((0, set()), (2, {"backbone.blocks.10", "backbone.blocks.11"})):
        model = team_model("vit_tiny_patch16_224", head, trainable)
        model(torch.randn(1, 3, 32, 32)).sum().backward()
        trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
        assert {".".join(name.split(".")[:3]) for name in trained if name.startswith("backbone")} == expected
        assert any(name.startswith("head") for name in trained)


def test_an_epoch_trains_once_and_scores_both_sets(batch: tuple[Tensor, Tensor]) -> None:
    images, truth = torch.randn(2, 3, 70, 98), batch[1]
    model = torch.nn.Conv2d(3, teams.CLASSES, 1)
    before = model.weight.detach().clone()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    loss = torch.nn.functional.cross_entropy
    seen: list[str] = []

    class Loader:
        def __init__(self, name: str) -> None:
            self.name = name

        def __iter__(self):
            seen.append(self.name)
            return iter([(images, truth)] * 3)

    found = teams.epoch(model, Loader("train"), Loader("val"), loss, optimiser, accumulation=2)
    assert seen == ["train", "val", "train", "val"]
    assert not torch.equal(model.weight, before)
    # after the steps both sets, which are the same here, score the same
    assert found.train_scores == found.val_scores
    assert found.val_loss == pytest.approx(loss(model(images), truth).item(), rel=1e-5)
