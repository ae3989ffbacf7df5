"""Architectures of timm, with random weights."""

from __future__ import annotations

from typing import Any

from torch import nn

from zoo.architecture import Architecture, images
from zoo.from_torchvision import importable

# Those that fix the image size are told a small one.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": {"img_size": 64},
    "deit_tiny_patch16_224": {"img_size": 64},
    "mixer_s32_224": {"img_size": 128},
    "levit_128s": {"img_size": 128},
}
NAMES = (*ARGUMENTS, "repvgg_a0", "resnetv2_50")
BATCH_NORMALISED = ("repvgg_a0", "resnetv2_50")


def architecture(name: str) -> Architecture:
    """The one that timm calls `name`; one that is not listed above gets images of its own default size."""

    def build() -> nn.Module:
        importable()  # timm imports it
        import timm

        return timm.create_model(name, pretrained=False, **ARGUMENTS.get(name, {}))

    size = ARGUMENTS.get(name, {}).get("img_size") or (64 if name in NAMES else _default_size(name))
    return Architecture(f"timm_{name}", f"timm {name}", build, images(size), name in BATCH_NORMALISED)


def _default_size(name: str) -> int:
    importable()
    import timm

    return timm.get_pretrained_cfg(name, allow_unregistered=False).input_size[-1]


def architectures() -> list[Architecture]:
    return [architecture(name) for name in NAMES]
