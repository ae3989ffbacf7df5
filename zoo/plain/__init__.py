"""Architectures in plain torch: the ones that need no other library, small enough for every test run."""

from __future__ import annotations

from torch import nn

from prunelab.lab import models
from zoo.architecture import Architecture, images, tokens
from zoo.plain import attention, convolutional, recurrent

SMALL = images(32)
TEXT = tokens(50)


def architectures() -> list[Architecture]:
    """Each with where its kind comes from."""
    return [
        Architecture("plain_vgg", "the course's VGG with BatchNorm, a quarter as wide", lambda: models.vgg(3, width=0.25), SMALL, True),
        Architecture("plain_resnet20", "the course's ResNet-20, padded shortcuts", lambda: models.resnet20(3), SMALL, True),
        Architecture("plain_resnet20_b", "the same with 1 x 1 convolutions as shortcuts", lambda: models.resnet20(3, projection=True), SMALL, True),
        Architecture("plain_bottlenecks", "blocks of ResNet-50", convolutional.bottleneck_net, SMALL, True),
        Architecture("plain_resnext", "grouped convolutions, as in ResNeXt and RegNet", lambda: convolutional.bottleneck_net(4), SMALL, True),
        Architecture("plain_densenet", "concatenation, as in DenseNet", convolutional.DenseNet, SMALL, True),
        Architecture("plain_mobilenet", "inverted residuals with squeeze-and-excitation, as in MobileNetV3", convolutional.mobile_net, SMALL, True),
        Architecture("plain_shufflenet", "split and channel shuffle, as in ShuffleNetV2", convolutional.shuffle_net, SMALL, True),
        Architecture("plain_googlenet", "branches and a head that only runs in training, as in GoogLeNet", convolutional.GoogLeNet, SMALL, True),
        Architecture("plain_unet", "concatenation and transposed convolutions, as in U-Net", convolutional.UNet, SMALL, True),
        Architecture("plain_convnext", "LayerNorm, depthwise convolution and layer scale, as in ConvNeXt", convolutional.convnext, SMALL),
        Architecture("plain_branching", "a branch that depends on the data", convolutional.Branching, SMALL, True),
        Architecture("plain_lstm", "LSTM classifier, one layer", lambda: recurrent.Recurrent(nn.LSTM), TEXT),
        Architecture("plain_lstm2", "LSTM classifier, two layers, both directions", lambda: recurrent.Recurrent(nn.LSTM, layers=2, bidirectional=True), TEXT),
        Architecture("plain_gru", "GRU classifier, both directions", lambda: recurrent.Recurrent(nn.GRU, bidirectional=True), TEXT),
        Architecture("plain_gru2", "GRU classifier, two layers", lambda: recurrent.Recurrent(nn.GRU, layers=2), TEXT),
        Architecture("plain_encoder", "torch's TransformerEncoder", attention.Encoder, TEXT),
        Architecture("plain_encoder_pre", "the same with norms before the branches", lambda: attention.Encoder(norm_first=True), TEXT),
        Architecture("plain_vit", "ViT with fused projections", attention.ViT, SMALL),
        Architecture("plain_gpt", "GPT-2's transposed linear layers and tied embedding", attention.GPT, TEXT),
        Architecture("plain_llama", "Llama's grouped queries, rotary positions, RMSNorm and gated MLP", attention.Llama, TEXT),
        Architecture("plain_t5", "T5's relative positions and tied embedding", attention.T5, TEXT),
    ]  # fmt: skip
