"""Our heads against the published layer lists and parameter counts."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness.config import Section
from harness.config.model import ConvNeXtStyleHead, ConvStackHead, Head, LinearHead, UPerNetStyleHead
from harness.models.heads import build_head, upernet_style_decoder

#: every kind of head that an Experiment can name, at its defaults
HEADS = [kind() for kind in get_args(get_args(Head)[0])]
each_head = pytest.mark.parametrize("head", HEADS, ids=lambda head: head.kind)


def count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.mark.parametrize(
    ("head", "in_channels", "parameters"),
    [
        (ConvNeXtStyleHead(), 384, 2_432_778),
        (UPerNetStyleHead(), 768, 3_414_026),
        (ConvStackHead(), 384, 1_478_666),
        (LinearHead(), 384, 3_850),
    ],
    ids=lambda value: getattr(value, "kind", str(value)),
)
def test_a_head_has_the_published_number_of_parameters(head, in_channels, parameters):
    assert count(*build_head(head, in_channels, 10)) == parameters


def test_the_heads_under_test_are_those_of_the_configuration():
    assert {ConvNeXtStyleHead(), ConvStackHead(), LinearHead(), UPerNetStyleHead()} <= set(HEADS)


@pytest.mark.parametrize("size", [(1, 1), (5, 9), (19, 34)])
@each_head
def test_a_head_keeps_the_size_of_the_map_and_its_classifier_is_one_layer(head, size):
    decoder, classifier = build_head(head, 48, 7)
    logits = classifier(decoder(torch.randn(2, 48, *size)))
    assert logits.shape == (2, 7, *size)
    assert isinstance(classifier, nn.Conv2d) and classifier.kernel_size == (1, 1)


@each_head
def test_every_parameter_of_a_head_gets_a_gradient_and_the_same_seed_builds_the_same_head(head):
    torch.manual_seed(0)
    layers = nn.Sequential(*build_head(head, 48, 7))
    torch.manual_seed(0)
    again = nn.Sequential(*build_head(head, 48, 7))
    assert all(torch.equal(a, b) for a, b in zip(layers.parameters(), again.parameters(), strict=True))
    layers(torch.randn(2, 48, 5, 9)).square().mean().backward()
    assert [name for name, parameter in layers.named_parameters() if parameter.grad is None] == []


def test_a_head_that_nobody_wrote_layers_for_is_refused_by_its_name():
    class NoSuchHead(Section):
        kind: str = "no_such"

    with pytest.raises(TypeError, match="no layers for a head of type NoSuchHead"):
        build_head(NoSuchHead(), 48, 7)


def test_the_convnext_style_head_lists_the_layers_of_the_published_script():
    decoder, _ = build_head(ConvNeXtStyleHead(), 384, 10)
    expected = nn.Sequential(
        nn.Conv2d(384, 128, kernel_size=7, padding=3), nn.GELU(),
        nn.Conv2d(128, 128, kernel_size=7, padding=3, groups=128), nn.GELU(),
        nn.Conv2d(128, 128, kernel_size=1), nn.GELU(),
    )  # fmt: skip
    assert str(decoder) == str(expected)


def plain_upernet_style(x: torch.Tensor, w: dict[str, torch.Tensor]) -> torch.Tensor:
    """The layer table of the published head, written out; w maps our names to tensors."""

    def block(x, name, **options):
        x = F.conv2d(x, w[f"{name}.0.weight"], **options)
        return F.relu(F.group_norm(x, 32, w[f"{name}.1.weight"], w[f"{name}.1.bias"]))

    x = block(x, "0")
    pyramid = [x]
    for i, side in enumerate((1, 2, 3, 6)):
        pooled = block(F.adaptive_avg_pool2d(x, side), f"1.branches.{i}.1")
        pyramid.append(F.interpolate(pooled, x.shape[2:], mode="bilinear", align_corners=False))
    x = block(torch.cat(pyramid, 1), "1.bottleneck", padding=1)
    dilated = [block(x, f"2.branches.{i}", padding=d, dilation=d) for i, d in enumerate((1, 2, 4))]
    return block(torch.cat(dilated, 1), "2.fuse")


def test_the_upernet_style_head_computes_what_its_layer_table_says():
    torch.manual_seed(0)
    decoder = upernet_style_decoder(40, 256, dropout=0.1).eval()
    for parameter in decoder.parameters():
        parameter.data.normal_(0, 0.1)
    x = torch.randn(2, 40, 7, 11)
    torch.testing.assert_close(decoder(x), plain_upernet_style(x, dict(decoder.named_parameters())))


def test_the_upernet_style_head_drops_whole_channels_of_its_decoder_in_training_only():
    torch.manual_seed(0)
    decoder = upernet_style_decoder(8, 64, dropout=0.5).train()
    dropped = (decoder(torch.randn(1, 8, 6, 6)) == 0).all(dim=(2, 3))
    assert 10 < dropped.sum() < 54
    assert isinstance(decoder[-1], nn.Dropout2d) and decoder[-1].p == 0.5


@pytest.mark.parametrize("channels", [32, 96, 160, 256, 288, 1024])
def test_any_multiple_of_32_channels_works_on_one_image_and_no_pooled_value_is_normalised_alone(channels):
    decoder = upernet_style_decoder(8, channels, dropout=0.0).train()
    assert decoder(torch.randn(1, 8, 3, 4)).shape == (1, channels, 3, 4)
    pools = [branch[1][1] for branch in decoder[1].branches]
    assert all(norm.num_channels // norm.num_groups >= 2 for norm in pools)
    others = [m for m in decoder.modules() if isinstance(m, nn.GroupNorm) and m not in pools]
    assert {norm.num_groups for norm in others} == {32}
