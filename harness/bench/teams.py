"""The peer for training: the teams' loss, scores and epoch, written plainly after their scripts' description.

Ignitia's, because its six phases share them: focal loss with the class weight inside, Dice over one-hot truth
class by class, three scores that each take their own argmax, and four passes over data in every epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 10
Batches = Iterable[tuple[Tensor, Tensor]]
LossFunction = Callable[[Tensor, Tensor], Tensor]


class TeamModel(nn.Module):
    """A timm ViT, its patch tokens on their grid, a head, and bilinear logits at the input's size.

    The last `trainable` blocks of the ViT train; where none does, it runs under no_grad.

    Shapes: N 3 H W float32, normalised -> N C H W.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module, trainable: int = 0) -> None:
        super().__init__()
        self.backbone, self.head, self.trainable = backbone.requires_grad_(False), head, trainable
        for block in backbone.blocks[len(backbone.blocks) - trainable :]:
            block.requires_grad_(True)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        patch = self.backbone.patch_embed.patch_size[0]
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.trainable > 0):
            tokens = self.backbone.forward_features(images)[:, self.backbone.num_prefix_tokens :]
        grid = tokens.reshape(len(images), height // patch, width // patch, -1).permute(0, 3, 1, 2)
        return upsample(self.head(grid), (height, width))


class TeamEpoch(NamedTuple):
    """What an epoch of a team prints."""

    train_loss: float
    val_loss: float
    train_scores: tuple[float, float, float]
    val_scores: tuple[float, float, float]


def upsample(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear logits (N C H W), corners not aligned."""
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def focal_and_dice(class_weights: Tensor, gamma: float = 2.0, dice_share: float = 0.5) -> LossFunction:
    """1.0 focal + `dice_share` Dice (Ignitia, phase 3) of logits (N C H W) and truth (N H W)."""

    def loss(logits: Tensor, truth: Tensor) -> Tensor:
        return focal(logits, truth, class_weights, gamma) + dice_share * dice_loss(logits, truth)

    return loss


def focal(logits: Tensor, truth: Tensor, class_weights: Tensor, gamma: float) -> Tensor:
    """Plain mean of (1 - p)^gamma * l with l the weighted cross-entropy and p = exp(-l)."""
    weighted = F.cross_entropy(logits, truth, weight=class_weights, reduction="none")
    return ((1 - torch.exp(-weighted)) ** gamma * weighted).mean()


def dice_loss(logits: Tensor, truth: Tensor, smooth: float = 1.0) -> Tensor:
    """1 - the mean over all classes of soft Dice, one class after the other."""
    probabilities = torch.softmax(logits, dim=1)
    one_hot = F.one_hot(truth, logits.shape[1]).permute(0, 3, 1, 2).float()
    total = torch.zeros((), device=logits.device)
    for index in range(logits.shape[1]):
        predicted, true = probabilities[:, index], one_hot[:, index]
        overlap = (predicted * true).sum()
        total = total + (2 * overlap + smooth) / (predicted.sum() + true.sum() + smooth)
    return 1 - total / logits.shape[1]


def scores(logits: Tensor, truth: Tensor) -> tuple[float, float, float]:
    """IoU, Dice and accuracy of a batch, each from its own argmax, as the teams' loops call them."""
    return mean_iou(logits, truth), mean_dice(logits, truth), accuracy(logits, truth)


def mean_iou(logits: Tensor, truth: Tensor) -> float:
    """Mean over the classes that the batch holds or predicts."""
    predicted = torch.argmax(logits, dim=1).view(-1)
    true = truth.view(-1)
    found = []
    for index in range(logits.shape[1]):
        here, there = predicted == index, true == index
        union = (here | there).sum().float()
        found.append(float("nan") if union == 0 else ((here & there).sum().float() / union).cpu().numpy())
    return float(np.nanmean(found))


def mean_dice(logits: Tensor, truth: Tensor, smooth: float = 1e-6) -> float:
    """Mean over all classes; one that is neither there nor predicted counts 1."""
    predicted = torch.argmax(logits, dim=1).view(-1)
    true = truth.view(-1)
    found = []
    for index in range(logits.shape[1]):
        here, there = predicted == index, true == index
        overlap = (here & there).sum().float()
        found.append(((2 * overlap + smooth) / (here.sum().float() + there.sum().float() + smooth)).cpu().numpy())
    return float(np.mean(found))


def accuracy(logits: Tensor, truth: Tensor) -> float:
    """Share of pixels that are right."""
    return float((torch.argmax(logits, dim=1) == truth).float().mean().cpu().numpy())


def epoch(
    model: nn.Module,
    train: Batches,
    val: Batches,
    loss: LossFunction,
    optimiser: torch.optim.Optimizer,
    accumulation: int = 1,
) -> TeamEpoch:
    """One epoch with its four passes: training, validation loss, scores of the training set, scores of validation."""
    train_loss = train_pass(model, train, loss, optimiser, accumulation)
    val_loss = loss_pass(model, val, loss)
    return TeamEpoch(train_loss, val_loss, score_pass(model, train), score_pass(model, val))


def train_pass(
    model: nn.Module, batches: Batches, loss: LossFunction, optimiser: torch.optim.Optimizer, accumulation: int
) -> float:
    """The optimiser steps of an epoch; the mean of the batches' losses."""
    model.train()
    seen: list[float] = []
    optimiser.zero_grad()
    for images, truth in batches:
        value = loss(model(images), truth)
        (value / accumulation).backward()
        seen.append(value.item())
        if len(seen) % accumulation == 0:
            optimiser.step()
            optimiser.zero_grad()
    if len(seen) % accumulation:
        optimiser.step()
        optimiser.zero_grad()
    return float(np.mean(seen))


@torch.no_grad()
def loss_pass(model: nn.Module, batches: Batches, loss: LossFunction) -> float:
    """The mean of the batches' losses, in evaluation mode."""
    model.eval()
    return float(np.mean([loss(model(images), truth).item() for images, truth in batches]))


@torch.no_grad()
def score_pass(model: nn.Module, batches: Batches) -> tuple[float, float, float]:
    """The means of the batches' scores, in evaluation mode."""
    model.eval()
    found = np.mean([scores(model(images), truth) for images, truth in batches], axis=0)
    return tuple(found.tolist())
