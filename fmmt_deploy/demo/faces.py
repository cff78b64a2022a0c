"""Draws the demo's faces: cartoons whose mouth, brows, eyes and light carry the emotion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from fmmt_deploy.types import EMOTIONS, FloatArray, PixelArray

__all__ = ["draw_face", "write_image"]


@dataclass(frozen=True, slots=True)
class _Expression:
    """Lengths are parts of the face's radius.

    Attributes:
        smile: Height of the mouth's corners over its middle.
        gape: How far the mouth is open.
        brows: Slope of the brows; positive is raised inside, as in sadness, negative is a frown.
        eyes: Height of the eyes.
        light: Brightness of the background, 0 to 255.
        skin: Colour of the face, BGR.
    """

    smile: float
    gape: float
    brows: float
    eyes: float
    light: int
    skin: tuple[int, int, int]


EXPRESSIONS: dict[str, _Expression] = {
    "neutral": _Expression(0.0, 0.02, 0.0, 0.10, 128, (150, 180, 220)),
    "surprise": _Expression(0.0, 0.30, 0.10, 0.22, 215, (165, 200, 235)),
    "fear": _Expression(-0.10, 0.12, 0.25, 0.24, 40, (175, 185, 195)),
    "sadness": _Expression(-0.25, 0.02, 0.25, 0.07, 70, (180, 160, 150)),
    "joy": _Expression(0.30, 0.10, 0.05, 0.08, 190, (120, 190, 245)),
    "disgust": _Expression(-0.15, 0.05, -0.12, 0.05, 100, (120, 190, 160)),
    "anger": _Expression(-0.20, 0.08, -0.28, 0.07, 90, (100, 110, 230)),
}


def draw_face(label: int, rng: np.random.Generator, unclear: bool = False, size: int = 0) -> PixelArray:
    """Draws one face.

    Args:
        label: Index into `EMOTIONS`.
        rng: Draws size, place and noise.
        unclear: Turned away and blurred, as many real crops are: nothing to be read off it.
        size: In pixels; 0 draws one, mostly 160, some 224 or 300, so that every way of resizing is met.

    Returns:
        Pixels (size, size, 3), BGR.
    """
    size = size or int(rng.choice([160, 224, 300], p=[0.8, 0.1, 0.1]))
    expression = EXPRESSIONS["neutral" if unclear else EMOTIONS[label]]
    light = np.clip(expression.light + rng.normal(0, 12), 0, 255)
    image: FloatArray = np.full((size, size, 3), light, np.float32)
    _draw_features(image, expression, size, rng)
    if unclear:
        cv2.GaussianBlur(image, (0, 0), size / 8, dst=image)
    grain = rng.normal(0, 6, (1 + size // 8, 1 + size // 8, 1)).repeat(8, 0).repeat(8, 1)[:size, :size]
    pixels: PixelArray = np.clip(image + grain, 0, 255).astype(np.uint8)
    return pixels


def write_image(path: Path, pixels: PixelArray) -> None:
    """Writes a JPEG.

    Raises:
        OSError: It can't be written; OpenCV itself would not say why, or not even that.
    """
    _, encoded = cv2.imencode(".jpg", pixels)
    path.write_bytes(encoded.tobytes())


def _draw_features(image: FloatArray, look: _Expression, size: int, rng: np.random.Generator) -> None:
    radius = size * rng.uniform(0.36, 0.42)
    x, y = size / 2 + rng.normal(0, size / 40, 2)
    dark = (40, 40, 60)

    def at(dx: float, dy: float) -> tuple[int, int]:
        return round(x + dx * radius), round(y + dy * radius)

    def extent(width: float, height: float) -> tuple[int, int]:
        return max(1, round(width * radius)), max(1, round(height * radius))

    cv2.ellipse(image, at(0, 0), extent(0.85, 1.0), 0, 0, 360, look.skin, -1, cv2.LINE_AA)
    for side in (-1, 1):
        cv2.ellipse(image, at(0.35 * side, -0.2), extent(0.14, look.eyes), 0, 0, 360, dark, -1, cv2.LINE_AA)
        inner, outer = at(0.18 * side, -0.5 - look.brows / 2), at(0.55 * side, -0.5 + look.brows / 2)
        cv2.line(image, inner, outer, dark, max(2, size // 40), cv2.LINE_AA)
    if look.gape > 0.05:
        cv2.ellipse(image, at(0, 0.45), extent(0.25, look.gape), 0, 0, 360, (50, 40, 120), -1, cv2.LINE_AA)
    columns = np.linspace(-0.4, 0.4, 17)
    mouth = [at(dx, 0.45 + look.smile * (0.5 - (dx / 0.4) ** 2)) for dx in columns]
    cv2.polylines(image, [np.array(mouth, np.int32)], False, (40, 30, 110), max(2, size // 40), cv2.LINE_AA)
