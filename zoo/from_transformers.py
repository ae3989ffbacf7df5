"""Architectures of transformers: small configurations, with random weights.

Sizes are chosen so that embeddings hold about the share of the parameters that they hold in the published model, and
that heads times their size differs from the width where the configuration allows it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from zoo.architecture import Architecture, Inputs, images, tokens
from zoo.from_torchvision import importable

VOCABULARY = 400
TEXT = tokens(VOCABULARY)


def named(name: str, inputs: Callable[[int], Any]) -> Callable[[int], Inputs]:
    return lambda batch: {name: inputs(batch)}


def masked_text(batch: int) -> Inputs:
    """Token numbers with an attention mask that hides the last three tokens of the first sentence."""
    mask = torch.ones(batch, 12, dtype=torch.long)
    mask[0, -3:] = 0
    return {"input_ids": TEXT(batch), "attention_mask": mask}


def both_texts(batch: int) -> Inputs:
    return {"input_ids": TEXT(batch), "decoder_input_ids": tokens(VOCABULARY, 9)(batch)}


@dataclass(frozen=True)
class Recipe:
    """Class and configuration class of transformers, the configuration's arguments, and the inputs."""

    model: str
    config: str
    arguments: dict[str, Any]
    inputs: Callable[[int], Inputs]
    batch_normalised: bool = False


def encoder(**more: Any) -> dict[str, Any]:
    """The arguments that most encoders share: 3 layers of width 64 with 4 heads and an MLP of 256."""
    shared = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 256}
    return {**shared, **more}


def decoder(**more: Any) -> dict[str, Any]:
    """Grouped-query attention: 8 query heads of size 16 (128 in all) on a width of 96, 4 key and value heads."""
    grouped = {"hidden_size": 96, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 16}
    sizes = {"vocab_size": VOCABULARY, "max_position_embeddings": 64, "pad_token_id": 0}
    return {**encoder(), **grouped, **sizes, **more}


def bert(**more: Any) -> dict[str, Any]:
    return encoder(vocab_size=VOCABULARY, max_position_embeddings=64, **more)


VIT = encoder(image_size=64, patch_size=16)
PIXELS = named("pixel_values", images())
SEGFORMER = {
    "num_encoder_blocks": 4, "depths": [1, 1, 1, 1], "sr_ratios": [8, 4, 2, 1], "hidden_sizes": [16, 32, 48, 64],
    "num_attention_heads": [1, 2, 3, 4], "mlp_ratios": [4, 4, 4, 4], "decoder_hidden_size": 64,
}  # fmt: skip
MOBILEVIT = {
    "image_size": 64, "hidden_sizes": [48, 64, 80], "neck_hidden_sizes": [16, 32, 48, 64, 80, 96, 128],
    "num_attention_heads": 4,
}  # fmt: skip
T5 = {
    "vocab_size": VOCABULARY, "d_model": 64, "d_kv": 24, "d_ff": 256, "num_layers": 2, "num_heads": 4,
    "decoder_start_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
BART = {
    "vocab_size": VOCABULARY, "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 256, "decoder_ffn_dim": 256, "max_position_embeddings": 64,
}  # fmt: skip
OPT = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "ffn_dim": 256, "num_hidden_layers": 3, "num_attention_heads": 4,
    "word_embed_proj_dim": 64, "max_position_embeddings": 64,
}  # fmt: skip
GPT2 = {"vocab_size": VOCABULARY, "n_positions": 64, "n_embd": 64, "n_layer": 3, "n_head": 4}
DISTILBERT = {
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 64,
    "dim": 64,
    "n_layers": 3,
    "n_heads": 4,
    "hidden_dim": 256,
}
RESNET = {"embedding_size": 32, "hidden_sizes": [64, 128, 256], "depths": [2, 2, 2]}
CONVNEXT = {"hidden_sizes": [32, 64, 128, 256], "depths": [2, 2, 2, 2]}

RECIPES = {
    "resnet": Recipe("ResNetForImageClassification", "ResNetConfig", RESNET, PIXELS, batch_normalised=True),
    "convnext": Recipe("ConvNextForImageClassification", "ConvNextConfig", CONVNEXT, PIXELS),
    "vit": Recipe("ViTForImageClassification", "ViTConfig", VIT, PIXELS),
    "beit": Recipe("BeitForImageClassification", "BeitConfig", {**VIT, "use_relative_position_bias": True}, PIXELS),
    "dinov2": Recipe("Dinov2ForImageClassification", "Dinov2Config", {**VIT, "mlp_ratio": 4}, PIXELS),
    "segformer": Recipe("SegformerForSemanticSegmentation", "SegformerConfig", SEGFORMER, PIXELS),
    "mobilevit": Recipe("MobileViTForImageClassification", "MobileViTConfig", MOBILEVIT, PIXELS),
    "bert": Recipe("BertForSequenceClassification", "BertConfig", bert(), masked_text),
    "roberta": Recipe("RobertaForSequenceClassification", "RobertaConfig", bert(pad_token_id=1), masked_text),
    "distilbert": Recipe("DistilBertForMaskedLM", "DistilBertConfig", DISTILBERT, masked_text),
    "albert": Recipe("AlbertForMaskedLM", "AlbertConfig", bert(embedding_size=32), masked_text),
    "gpt2": Recipe("GPT2LMHeadModel", "GPT2Config", GPT2, named("input_ids", TEXT)),
    "opt": Recipe("OPTForCausalLM", "OPTConfig", OPT, masked_text),
    "llama": Recipe("LlamaForCausalLM", "LlamaConfig", decoder(), named("input_ids", TEXT)),
    "qwen2": Recipe("Qwen2ForCausalLM", "Qwen2Config", decoder(), masked_text),
    "qwen3": Recipe("Qwen3ForCausalLM", "Qwen3Config", decoder(), masked_text),
    "gemma3": Recipe("Gemma3ForCausalLM", "Gemma3TextConfig", decoder(), named("input_ids", TEXT)),
    "mixtral": Recipe("MixtralForCausalLM", "MixtralConfig", decoder(num_local_experts=4), named("input_ids", TEXT)),
    "t5": Recipe("T5ForConditionalGeneration", "T5Config", T5, both_texts),
    "bart": Recipe("BartForConditionalGeneration", "BartConfig", BART, both_texts),
}


def architecture(name: str) -> Architecture:
    recipe = RECIPES[name]

    def build() -> nn.Module:
        importable()  # transformers imports torchvision where it finds it
        import transformers

        config = getattr(transformers, recipe.config)(**recipe.arguments)
        return getattr(transformers, recipe.model)(config)

    source = f"transformers.{recipe.model}, a small configuration"
    return Architecture(f"hf_{name}", source, build, recipe.inputs, recipe.batch_normalised)


def architectures() -> list[Architecture]:
    return [architecture(name) for name in RECIPES]
