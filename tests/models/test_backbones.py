"""timm backbones: features, strides, and which blocks train."""

from __future__ import annotations

import pytest
import timm
import torch

from harness.config.model import BackboneModel, LinearHead, UPerNetStyleHead
from harness.errors import ModelError
from harness.models import build_model, parameter_counts, parameter_groups
from harness.models.backbones import build_encoder


def backbone(name: str, **fields) -> BackboneModel:
    return BackboneModel(backbone=name, weights="none", **{"head": LinearHead(), **fields})


def trainable(config: BackboneModel) -> int:
    return parameter_counts(build_model(config, 10))["encoder"][1]


def test_vit_features_are_the_normed_patch_tokens_on_their_grid():
    torch.manual_seed(0)
    encoder = build_encoder(backbone("vit_small_patch14_reg4_dinov2"), None).module.eval()
    vit, images = encoder.vit, torch.randn(2, 3, 42, 70)
    vit.norm.weight.data.normal_()
    last: list[torch.Tensor] = []
    vit.blocks[-1].register_forward_hook(lambda module, inputs, output: last.append(output))
    features = encoder(images)
    patches = last[0][:, 1 + 4 :]  # behind the class token and four registers
    tokens = torch.nn.functional.layer_norm(patches, (384,), vit.norm.weight, vit.norm.bias, 1e-6)
    torch.testing.assert_close(features, tokens.transpose(1, 2).reshape(2, 384, 3, 5))


def test_a_vits_position_embedding_is_interpolated_with_antialiasing():
    vit = build_encoder(backbone("test_vit"), None).module.vit
    grid = vit.pos_embed.detach()[:, 1:]  # 160 pixels in patches of 16: 10 x 10
    images = torch.zeros(1, 3, 48, 80)
    tokens = vit.patch_embed(images)
    added = vit._pos_embed(tokens)[:, 1:] - tokens.flatten(1, 2)
    expected = torch.nn.functional.interpolate(
        grid.reshape(1, 10, 10, 64).permute(0, 3, 1, 2), size=(3, 5), mode="bicubic", antialias=True
    )
    torch.testing.assert_close(added, expected.flatten(2).transpose(1, 2), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_efficientnet", "test_mambaout", "test_nfnet"])
@pytest.mark.parametrize("stride", [8, 16, 32])
def test_cnn_features_are_the_stage_of_that_stride_channels_first(name, stride):
    torch.manual_seed(0)
    encoder = build_encoder(backbone(name, stride=stride), None)
    library = timm.create_model(name, features_only=True).eval()
    library.load_state_dict(encoder.module.stages.state_dict(), strict=False)
    images = torch.randn(2, 3, 65, 97)
    maps = dict(zip(library.feature_info.reduction(), library(images), strict=True))
    expected = maps[stride] if maps[stride].shape[1] == encoder.channels else maps[stride].permute(0, 3, 1, 2)
    torch.testing.assert_close(encoder.module.eval()(images), expected)


@pytest.mark.parametrize("name", ["test_efficientnet", "mobilenetv3_small_050"])
def test_no_stage_behind_the_one_that_is_used_is_kept(name):
    model = build_model(backbone(name, trainable_blocks="all"), 4)
    model(torch.randn(2, 3, 64, 64)).sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(("blocks", "in_encoder"), [(0, 0), (2, 14_178_816), (3, 21_268_224), ("all", 86_582_016)])
def test_dinov2_base_with_registers_trains_the_published_number_of_parameters(blocks, in_encoder):
    # The hub's DINOv2 counts 86,583,552: 768 more for a mask token that timm lacks, and 768 for the class
    # token's position, which timm's register models fold into the class token itself.
    config = backbone("vit_base_patch14_reg4_dinov2", trainable_blocks=blocks, head=UPerNetStyleHead())
    with torch.device("meta"):
        counts = parameter_counts(build_model(config, 10))
    assert counts["encoder"] == (86_582_016, in_encoder)
    assert counts["decoder"][1] + counts["head"][1] == 3_414_026


def test_only_the_last_blocks_of_a_vit_train_and_no_embedding_or_final_norm():
    model = build_model(backbone("test_vit", trainable_blocks=2), 3)
    names = {name.split(".")[2] for name, p in model.encoder.named_parameters() if p.requires_grad}
    kinds = {name.split(".")[1] for name, p in model.encoder.named_parameters() if p.requires_grad}
    assert (kinds, names) == ({"blocks"}, {"4", "5"})


def test_the_last_stages_of_a_cnn_train_and_its_stem_is_the_first_stage():
    sizes = [trainable(backbone("test_resnet", trainable_blocks=k)) for k in (0, 1, 2, 3, 4, "all")]
    model = build_model(backbone("test_resnet", trainable_blocks=1), 3)
    assert {n.split(".")[1] for n, p in model.encoder.named_parameters() if p.requires_grad} == {"layer3"}
    assert sizes[0] == 0 and sizes == sorted(set(sizes[:-1])) + [sizes[-2]]


def test_more_blocks_than_there_are_is_refused_with_their_number():
    with pytest.raises(ModelError, match="trainable_blocks 7: backbone 'test_vit' has 6 blocks .* use 0 to 6"):
        build_model(backbone("test_vit", trainable_blocks=7), 3)
    with pytest.raises(ModelError, match="trainable_blocks 4: backbone 'test_convnext' has 3 stages"):
        build_model(backbone("test_convnext", trainable_blocks=4), 3)


def test_a_network_whose_stages_timm_does_not_name_trains_as_a_whole_or_not_at_all():
    with torch.device("meta"):
        assert "encoder" in parameter_groups(build_model(backbone("hrnet_w18_small", trainable_blocks="all"), 3))
        with pytest.raises(ModelError, match="trainable_blocks 1: timm does not say .* use 0 or all"):
            build_model(backbone("hrnet_w18_small", trainable_blocks=1), 3)


def test_a_stride_that_the_backbone_lacks_is_refused_with_those_it_has():
    with pytest.raises(ModelError, match="stride 8: backbone 'test_vit' has features at stride 16; .* or to none"):
        build_model(backbone("test_vit", stride=8), 3)
    with pytest.raises(ModelError, match="stride 16: .*'sequencer2d_s' has features at stride 7, 14; .*these$"):
        build_model(backbone("sequencer2d_s"), 3)


def test_a_vit_whose_positions_cannot_be_interpolated_is_refused():
    with pytest.raises(ModelError, match="'test_vit_relpos' takes one input size only"):
        build_model(backbone("test_vit_relpos"), 3)
