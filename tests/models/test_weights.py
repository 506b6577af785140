"""Weights: none, pretrained from the local caches, or a file; the network only where it is asked for."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import segmentation

from harness.config.model import BackboneModel, LinearHead, ModelConfig, SmpModel, TorchvisionModel
from harness.errors import ModelError
from harness.models import WeightsUnavailable, build_model, settle_weights
from harness.models.weights import HUB_FILES, HubFile, UrlFile, pretrained_source

VIT = BackboneModel(backbone="test_vit", head=LinearHead())
CONVNEXT = BackboneModel(backbone="test_convnext", head=LinearHead())
FPN = SmpModel(decoder="FPN", encoder="mobilenet_v2")
CONFIGS = [VIT, CONVNEXT, FPN, TorchvisionModel()]


@pytest.fixture(autouse=True)
def attempts(tmp_path, monkeypatch) -> list[str]:
    """Empty caches, and a network that answers nothing but notes who was asked for."""
    asked: list[str] = []

    def refuse(host, *_args, **_kwargs):
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "no network in tests")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return asked


def set_weights(config: ModelConfig, weights: str) -> ModelConfig:
    return config.model_copy(update={"weights": weights})


def fill_hub_cache(source: HubFile, state: dict[str, Tensor]) -> Path:
    """Store tensors as the hub's client does: a named revision, and a snapshot of it."""
    repo = Path(constants.HF_HUB_CACHE) / f"models--{source.repo.replace('/', '--')}"
    commit = source.revision or "0" * 40
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    file = repo / "snapshots" / commit / "model.safetensors"
    file.parent.mkdir(parents=True)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, file)
    return file


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """Every tensor of ours is theirs, under the same name."""
    assert ours
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=0)


def test_random_weights_touch_no_network(attempts):
    for config in CONFIGS:
        build_model(set_weights(config, "none"), 3)
        settled, sentence = settle_weights(set_weights(config, "none"))
        assert settled.weights == "none" and sentence.endswith(": random weights")
    assert attempts == []


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)
def test_weights_that_cannot_be_had_are_an_error_with_cache_and_fixes_after_one_attempt(config, attempts):
    with pytest.raises(WeightsUnavailable, match="not in the cache .*no network in tests") as error:
        settle_weights(set_weights(config, "pretrained"))
    message = str(error.value)
    assert "run once where they can be reached to fill that cache" in message
    assert ".safetensors file, or to none" in message
    assert str(constants.HF_HUB_CACHE) in message or "checkpoints" in message
    assert len(attempts) == 1


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)
def test_weights_if_available_settle_to_random_ones_and_say_so(config):
    settled, sentence = settle_weights(set_weights(config, "pretrained_if_available"))
    assert settled == set_weights(config, "none")
    assert sentence.endswith("random weights (pretrained ones are neither cached nor reachable)")


def test_a_hub_that_is_switched_off_is_not_asked(monkeypatch, attempts):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsUnavailable, match="HF_HUB_OFFLINE is set"):
        settle_weights(set_weights(VIT, "pretrained"))
    assert attempts == []


def test_unsettled_weights_build_nothing():
    with pytest.raises(ModelError, match="call settle_weights first"):
        build_model(set_weights(VIT, "pretrained_if_available"), 3)


def test_an_encoder_without_pretrained_weights_is_named():
    config = SmpModel(encoder="resnext101_32x4d")
    with pytest.raises(WeightsUnavailable, match="no ImageNet weights for this encoder; set model.weights to none"):
        settle_weights(config)
    _, sentence = settle_weights(set_weights(config, "pretrained_if_available"))
    assert sentence.endswith("(pretrained ones do not exist)")


@pytest.mark.parametrize("config", [VIT, CONVNEXT], ids=lambda config: config.backbone)
def test_a_timm_backbone_loads_exactly_the_cached_weights_without_network(config, attempts):
    library = timm.create_model(config.backbone)
    file = fill_hub_cache(pretrained_source(config), library.state_dict())
    settled, sentence = settle_weights(set_weights(config, "pretrained_if_available"))
    model = build_model(settled, 3).eval()
    assert settled.weights == "pretrained" and sentence.endswith(f"pretrained weights from {file}")
    images = torch.randn(1, 3, 160, 160)
    index = -1 if config is VIT else -2  # the CNN's stride 16 is its last stage but one
    expected = library.eval().forward_intermediates(images, norm=config is VIT, intermediates_only=True)
    torch.testing.assert_close(model.encoder(images), expected[index])
    names = dict(model.encoder.named_parameters())
    theirs = {n.replace(".", "_", 1) if n[:4] in ("stem", "stag") else n: p for n, p in library.named_parameters()}
    assert_same({name.split(".", 1)[1]: p for name, p in names.items()}, theirs)
    assert attempts == []


@pytest.mark.parametrize("weights", ["pretrained", "file"])
def test_a_timm_encoder_of_a_whole_model_loads_the_cached_weights(weights, attempts):
    config = SmpModel(decoder="FPN", encoder="tu-test_resnet")
    library = timm.create_model("test_resnet")
    file = fill_hub_cache(pretrained_source(config), library.state_dict())
    model = build_model(set_weights(config, "pretrained" if weights == "pretrained" else str(file)), 3)
    assert_same(model.encoder.model.state_dict(), library.state_dict())
    assert attempts == []


def test_an_encoder_of_segmentation_models_pytorch_loads_the_cached_revision(attempts):
    library = smp.FPN(encoder_name="mobilenet_v2", encoder_weights=None).encoder
    fill_hub_cache(pretrained_source(FPN), library.state_dict())
    assert_same(build_model(FPN, 3).encoder.state_dict(), library.state_dict())
    assert attempts == []


def test_torchvisions_coco_weights_load_from_the_checkpoint_folder_without_the_auxiliary_head(attempts):
    config = TorchvisionModel()
    source = pretrained_source(config)
    assert isinstance(source, UrlFile) and source.url.endswith("deeplabv3_mobilenet_v3_large-fc3c493d.pth")
    library = segmentation.deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None, aux_loss=True)
    source.path.parent.mkdir(parents=True)
    torch.save(library.state_dict(), source.path)
    model = build_model(config, 10)
    assert_same(model.encoder.backbone.state_dict(), library.backbone.state_dict())
    assert_same(model.decoder.state_dict(), library.classifier.state_dict())
    assert model.head.weight.shape == (10, 256, 1, 1)
    assert attempts == []


def test_timm_weights_are_looked_up_as_safetensors_first():
    source = pretrained_source(BackboneModel())
    assert source == HubFile("timm/vit_small_patch14_dinov2.lvd142m", HUB_FILES)
    assert HUB_FILES[0] == "model.safetensors"


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)
@pytest.mark.parametrize("part", ["model", "encoder"])
def test_a_file_loads_into_the_whole_model_or_its_encoder(config, part, tmp_path):
    saved = build_model(set_weights(config, "none"), 3)
    file = tmp_path / "weights.safetensors"
    save_file((saved if part == "model" else saved.encoder).state_dict(), file)
    loaded = build_model(set_weights(config, str(file)), 3)
    assert_same(loaded.encoder.state_dict(), saved.encoder.state_dict())
    same_head = all(torch.equal(a, b) for a, b in zip(loaded.head.parameters(), saved.head.parameters(), strict=True))
    assert same_head == (part == "model")


def test_timms_own_checkpoint_loads_into_a_backbone_its_classifier_left_out(tmp_path):
    library = timm.create_model("test_convnext")
    save_file(library.state_dict(), tmp_path / "timm.safetensors")
    model = build_model(set_weights(CONVNEXT, str(tmp_path / "timm.safetensors")), 3)
    torch.testing.assert_close(model.encoder.stages.stem_0.weight, library.stem[0].weight)


def test_a_file_that_does_not_match_is_refused_with_the_first_names(tmp_path):
    state = build_model(set_weights(VIT, "none"), 3).state_dict()
    state["head.bias"] = torch.zeros(4)
    state["encoder.extra"] = state.pop("encoder.vit.cls_token") if "encoder.vit.cls_token" in state else torch.zeros(1)
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="do not match the model: .*unexpected encoder.extra") as error:
        build_model(set_weights(VIT, str(tmp_path / "other.safetensors")), 3)
    assert "head.bias is (4,), needs (3,)" in str(error.value)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("gone.safetensors", "weights 'gone.safetensors' does not exist"),
        ("pretraind", "weights 'pretraind' is not a choice; use pretrained"),
        ("model.pth", "weights 'model.pth' is not a choice"),
    ],
)
def test_a_weights_file_that_is_missing_or_of_another_kind_is_refused(weights, message):
    for refuse in (settle_weights, lambda config: build_model(config, 3)):
        with pytest.raises(ModelError, match=message):
            refuse(set_weights(VIT, weights))


def test_a_broken_file_is_refused(tmp_path):
    (tmp_path / "broken.safetensors").write_bytes(b"not tensors")
    with pytest.raises(ModelError, match="is not a .safetensors file"):
        build_model(set_weights(VIT, str(tmp_path / "broken.safetensors")), 3)
