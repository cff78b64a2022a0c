"""The face model: a Swin transformer and the published head, in PyTorch."""

from __future__ import annotations

import torch
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

from fmmt_deploy.architecture import SwinSizes
from fmmt_deploy.types import EMOTIONS, FACE_PIXELS

__all__ = ["FaceModel", "normalised_pixels"]


def normalised_pixels(faces: Tensor) -> Tensor:
    """Scales `faces` uint8 (N, 224, 224, 3) to [−1, 1] as (N, 3, 224, 224); BGR stays BGR, as published."""
    return ((faces.float() / 255 - 0.5) / 0.5).permute(0, 3, 1, 2)


class FaceModel(nn.Module):
    """Emotion logits of faces (reference: Liu et al., Swin Transformer, 2021; head of FacialMMT).

    There is no pooling: all final tokens are normalised, flattened row-major and projected.

    Args:
        sizes: Depths, heads and widths.
        drop_path_rate: Stochastic depth, used in training only (published: 0.3).
    """

    def __init__(self, sizes: SwinSizes, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        self.backbone = SwinTransformer(
            img_size=FACE_PIXELS,
            patch_size=4,
            window_size=7,
            embed_dim=sizes.embed_dim,
            depths=sizes.depths,
            num_heads=sizes.heads,
            num_classes=0,
            drop_path_rate=drop_path_rate,
        )
        self.backbone.norm = nn.Identity()
        channels = sizes.embed_dim * 2 ** (len(sizes.depths) - 1)
        tokens = (FACE_PIXELS // 4 // 2 ** (len(sizes.depths) - 1)) ** 2
        self.output_layer = nn.Sequential(
            nn.LayerNorm(channels),
            nn.Flatten(),
            nn.Linear(tokens * channels, sizes.feature_size),
            nn.BatchNorm1d(sizes.feature_size),
        )
        self.linear = nn.Linear(sizes.feature_size, sizes.linear_size)
        self.classifier = nn.Linear(sizes.linear_size, len(EMOTIONS))

    def forward(self, faces: Tensor) -> Tensor:
        """Maps `faces` uint8 (N, 224, 224, 3), BGR, to logits (N, 7)."""
        return self.head(self.tokens(normalised_pixels(faces)))

    def tokens(self, pixels: Tensor) -> Tensor:
        """Maps normalised `pixels` (N, 3, 224, 224) to the last stage's tokens (N, 49, channels)."""
        tokens: Tensor = self.backbone.forward_features(pixels).flatten(1, 2)
        return tokens

    def head(self, tokens: Tensor) -> Tensor:
        """Maps `tokens` (N, 49, channels) to logits (N, 7)."""
        features = self.output_layer(tokens)
        logits: Tensor = self.classifier(torch.relu(self.linear(features)))
        return logits
