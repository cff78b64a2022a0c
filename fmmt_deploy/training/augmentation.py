"""Faces changed at random, so that they are never learnt by heart: those of utterances, and the labelled ones.

A face's change is a function of the seed, the epoch and which face it is. All of it happens in the channel order that
the model is fed with: BGR as OpenCV decodes, taken for RGB (published; so the first channel is weighed as red is).

Sources: colour jitter as torchvision's `ColorJitter` computes it (here with OpenCV, within two levels of it and ten
times faster); random erasing as Zhong et al., "Random Erasing Data Augmentation" (AAAI 2020), with timm's bounds. For
the blur the published training's description gives no width: a standard deviation of 0.1 to 2 pixels is usual (Chen et
al., SimCLR, 2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import cv2
import numpy as np
import torch
from torch.nn.functional import interpolate

from fmmt_deploy.training.settings import FaceSettings
from fmmt_deploy.types import FACE_PIXELS, FloatArray, PixelArray

__all__ = ["Jitter", "augmented_face", "draw_jitter", "erased", "jittered", "jittered_face"]

_WEIGHTS = np.array([0.299, 0.587, 0.114])
"""Of the three channels in a grey level: ITU-R BT.601."""

_ORDERS = tuple(permutations(("brightness", "contrast", "saturation", "hue")))
_BLUR_PIXELS = (0.1, 2.0)
_BLUR_KERNEL = 13  # three standard deviations to each side
_ERASED_AREA = (0.02, 1 / 3)
_ERASED_ASPECT = (0.3, 1 / 0.3)
_ERASING_TRIES = 10
_DRAWS = 5


@dataclass(frozen=True, slots=True)
class Jitter:
    """One change of colours.

    Attributes:
        brightness: Factor.
        contrast: Factor of the distance to the face's mean grey.
        saturation: Factor of the distance to each pixel's grey.
        hue: Share of a turn of the colour circle, -0.5 to 0.5.
        order: In which the four are applied.
    """

    brightness: float
    contrast: float
    saturation: float
    hue: float
    order: tuple[str, ...]


def draw_jitter(strength: float, uniform: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Jitter:
    """A change within a strength: factors of 1 ± strength (none below 0), turns of ± strength (half a turn at most).

    Args:
        strength: 0 for none.
        uniform: Five draws from [0, 1).
    """
    low, high = max(0.0, 1 - strength), 1 + strength
    brightness, contrast, saturation = (low + (high - low) * float(draw) for draw in uniform[:3])
    hue = min(strength, 0.5) * (2 * float(uniform[3]) - 1)
    return Jitter(brightness, contrast, saturation, hue, _ORDERS[int(uniform[4] * len(_ORDERS))])


def jittered(faces: PixelArray, strength: float, draws: np.random.Generator) -> PixelArray:
    """An utterance's faces, each with colours changed in its own way.

    Args:
        faces: (N, 224, 224, 3), in the utterance's order.
        strength: See `draw_jitter`.
        draws: The utterance's; a face's change does not depend on how many faces follow it.
    """
    uniform = draws.random((len(faces), _DRAWS))
    if strength <= 0:
        return faces
    changed = np.empty_like(faces)
    for index, face in enumerate(faces):
        changed[index] = jittered_face(face, draw_jitter(strength, uniform[index]))
    return changed


def jittered_face(face: PixelArray, jitter: Jitter) -> PixelArray:
    """One face (height, width, 3) with colours changed; as torchvision, rounded down after each of the four."""
    for change in jitter.order:
        if change == "brightness":
            face = _looked_up(face, _LEVELS * jitter.brightness)
        elif change == "contrast":
            grey = float(np.dot(cv2.mean(face)[:3], _WEIGHTS))
            face = _looked_up(face, _LEVELS * jitter.contrast + grey * (1 - jitter.contrast))
        elif change == "saturation":
            face = _saturated(face, jitter.saturation)
        else:
            face = _turned(face, jitter.hue)
    return face


def augmented_face(image: PixelArray, settings: FaceSettings, draws: np.random.Generator) -> FloatArray:
    """A labelled face: resized, perhaps grey, of other colours, blurred; normalised; perhaps partly erased.

    Args:
        image: (height, width, 3), of any size.
        settings: The probabilities.
        draws: This face's in this epoch.

    Returns:
        (3, 224, 224), in [-1, 1], where nothing is erased.
    """
    choices, uniform, sigma = draws.random(3), draws.random(_DRAWS), draws.uniform(*_BLUR_PIXELS)
    face = _resized(image)
    grey, jitter, blur = (
        _applies(choice, probability, settings.published_probabilities)
        for choice, probability in zip(choices, (settings.grey, settings.jitter, settings.blur), strict=True)
    )
    if grey:
        face = np.asarray(cv2.cvtColor(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), np.uint8)
    if jitter:
        face = jittered_face(face, draw_jitter(settings.jitter_strength, uniform))
    if blur:
        face = np.asarray(cv2.GaussianBlur(face, (_BLUR_KERNEL, _BLUR_KERNEL), sigma), np.uint8)
    pixels = _normalised(face)
    return erased(pixels, draws) if draws.random() < settings.erase else pixels


def erased(pixels: FloatArray, draws: np.random.Generator) -> FloatArray:
    """Puts noise of N(0, 1) in place of a rectangle of 2 % to 33 % of the area; `pixels` (3, H, W) are changed."""
    height, width = pixels.shape[1:]
    for _ in range(_ERASING_TRIES):
        area = draws.uniform(*_ERASED_AREA) * height * width
        aspect = np.exp(draws.uniform(*np.log(_ERASED_ASPECT)))
        rows, columns = round(float(np.sqrt(area * aspect))), round(float(np.sqrt(area / aspect)))
        if rows < height and columns < width:
            top, left = int(draws.integers(height - rows + 1)), int(draws.integers(width - columns + 1))
            noise = draws.standard_normal((3, rows, columns), np.float32)
            pixels[:, top : top + rows, left : left + columns] = noise
            break
    return pixels


_LEVELS = np.arange(256, dtype=np.float64)


def _applies(draw: float, probability: float, published: bool) -> bool:
    return bool(draw > probability if published else draw < probability)


def _resized(image: PixelArray) -> PixelArray:
    """Bicubic, antialiased when it shrinks, as torchvision and Pillow do it; OpenCV's is not."""
    if image.shape[:2] == (FACE_PIXELS, FACE_PIXELS):
        return image
    planes = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    resized = interpolate(planes, (FACE_PIXELS, FACE_PIXELS), mode="bicubic", antialias=True)[0]
    return np.ascontiguousarray(resized.permute(1, 2, 0).numpy())


def _normalised(face: PixelArray) -> FloatArray:
    pixels = np.multiply(face.transpose(2, 0, 1), np.float32(2 / 255), dtype=np.float32, order="C")
    pixels -= 1
    return pixels


def _looked_up(face: PixelArray, levels: np.ndarray[tuple[int], np.dtype[np.float64]]) -> PixelArray:
    return np.asarray(cv2.LUT(face, np.clip(levels, 0, 255).astype(np.uint8)), np.uint8)


def _saturated(face: PixelArray, factor: float) -> PixelArray:
    matrix = np.empty((3, 4), np.float32)
    matrix[:, :3] = factor * np.eye(3) + (1 - factor) * _WEIGHTS
    matrix[:, 3] = -0.5  # OpenCV rounds to the nearest
    return np.asarray(cv2.transform(face, matrix), np.uint8)


def _turned(face: PixelArray, turn: float) -> PixelArray:
    hsv = cv2.cvtColor(np.multiply(face, np.float32(1 / 255), dtype=np.float32), cv2.COLOR_RGB2HSV)
    hsv[:, :, 0] += np.float32(360 * (turn % 1))  # OpenCV takes more than a full turn, but nothing below 0
    rgb = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return np.asarray(cv2.convertScaleAbs(rgb, alpha=255.999, beta=-0.5), np.uint8)
