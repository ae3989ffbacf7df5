"""Architectures of torchvision, with random weights."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import torch
from torch import nn

from zoo.architecture import Architecture, images

BATCH_NORMALISED = (
    "resnet18", "resnet50", "vgg16_bn", "densenet121", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small",
    "efficientnet_b0", "regnet_y_400mf", "regnet_x_400mf", "googlenet", "inception_v3", "mnasnet1_0",
    "shufflenet_v2_x1_0",
)  # fmt: skip
OTHERS = ("squeezenet1_0", "convnext_tiny", "vit_b_16")

# Builders that start from slow initial values, or that fix the image size.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "googlenet": {"init_weights": False, "aux_logits": True},
    "inception_v3": {"init_weights": False, "aux_logits": True},
    "vit_b_16": {"image_size": 64},
}
SIZES = {"inception_v3": 299}  # its auxiliary head, used in training, takes no smaller images


def importable() -> Any:
    """The package `torchvision`, also beside a CPU build of torch, where its compiled operations are missing.

    Its models do not use them, but its import looks for the schemas of two.
    """
    try:
        import torchvision
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _DEFINED.append(library)
        import torchvision
    return torchvision


_DEFINED: list[torch.library.Library] = []  # definitions go with the object that made them


def architecture(name: str) -> Architecture:
    """The one that torchvision calls `name`."""

    def build() -> nn.Module:
        models = importable().models
        arguments = ARGUMENTS.get(name, {})
        if "weights_backbone" in inspect.signature(models.get_model_builder(name)).parameters:
            arguments = {**arguments, "weights_backbone": None}  # else it is downloaded
        return models.get_model(name, weights=None, **arguments)

    inputs = images(SIZES.get(name, 64 if name in (*BATCH_NORMALISED, *OTHERS) else 224))
    return Architecture(name, f"torchvision.models.{name}", build, inputs, name in BATCH_NORMALISED)


def architectures() -> list[Architecture]:
    return [architecture(name) for name in (*BATCH_NORMALISED, *OTHERS)]
