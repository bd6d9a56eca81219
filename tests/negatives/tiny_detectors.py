"""GroundingDINO, SAM and SAM 2 with random weights, small enough for any test."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import (
    BertConfig,
    BertTokenizerFast,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoProcessor,
    Sam2Config,
    Sam2HieraDetConfig,
    Sam2MaskDecoderConfig,
    Sam2Model,
    Sam2PromptEncoderConfig,
    Sam2VisionConfig,
    SamConfig,
    SamMaskDecoderConfig,
    SamModel,
    SamPromptEncoderConfig,
    SamVisionConfig,
    SwinConfig,
)
from transformers.models.grounding_dino.image_processing_pil_grounding_dino import GroundingDinoImageProcessorPil

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "banana", "yellow", "car", "red", "dog", "boot", "green")
SIDE = 64


def save_grounding(folder: Path) -> Path:
    """A GroundingDINO of about 160,000 parameters, laid out as the published ones are."""
    config = GroundingDinoConfig(
        backbone_config=SwinConfig(
            image_size=SIDE, patch_size=4, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4,
            out_indices=[2, 3, 4],
        ),
        text_config=BertConfig(
            vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
            max_position_embeddings=64,
        ),
        num_queries=5, encoder_layers=1, decoder_layers=2, encoder_ffn_dim=32, decoder_ffn_dim=32, d_model=32,
        encoder_attention_heads=2, decoder_attention_heads=2, disable_custom_kernels=True, max_text_len=32,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GroundingDinoForObjectDetection(config)
    images = GroundingDinoImageProcessorPil(size={"shortest_edge": 96, "longest_edge": 160})
    tokenizer = BertTokenizerFast(vocab={word: number for number, word in enumerate(WORDS)})
    model.save_pretrained(folder)
    GroundingDinoProcessor(images, tokenizer).save_pretrained(folder)
    published = {**images.to_dict(), "image_processor_type": "GroundingDinoImageProcessor"}
    published["processor_class"] = "GroundingDinoProcessor"
    (folder / "processor_config.json").unlink()
    (folder / "preprocessor_config.json").write_text(json.dumps(published))
    return folder


def save_sam(folder: Path) -> Path:
    """A SAM of one layer that takes 64 pixels."""
    prompts = SamPromptEncoderConfig(hidden_size=32, image_size=SIDE, patch_size=16)
    vision = SamVisionConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=SIDE, patch_size=16, output_channels=32,
        window_size=2, global_attn_indexes=[0], num_pos_feats=16, initializer_range=0.02,
    )  # fmt: skip
    decoder = SamMaskDecoderConfig(hidden_size=32, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=16)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = SamConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)
        SamModel(config).save_pretrained(folder)
    return folder


def save_sam2(folder: Path) -> Path:
    """A SAM 2 of five layers that takes 64 pixels."""
    backbone = Sam2HieraDetConfig(
        hidden_size=8, image_size=[SIDE, SIDE], blocks_per_stage=[1, 1, 2, 1], embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 1, 1, 1], window_size_per_stage=[8, 4, 4, 2], global_attention_blocks=[3],
        window_positional_embedding_background_size=[4, 4],
    )  # fmt: skip
    vision = Sam2VisionConfig(
        backbone_config=backbone, backbone_channel_list=[64, 32, 16, 8], fpn_hidden_size=32,
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
    )  # fmt: skip
    prompts = Sam2PromptEncoderConfig(hidden_size=32, image_size=SIDE, patch_size=16)
    decoder = Sam2MaskDecoderConfig(hidden_size=32, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=16)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        config = Sam2Config(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)
        Sam2Model(config).save_pretrained(folder)
    return folder


SEGMENTERS = {"sam": save_sam, "sam2": save_sam2}
