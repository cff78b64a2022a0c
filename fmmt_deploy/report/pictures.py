"""Faces as small pictures that a page carries inside it."""

from __future__ import annotations

import base64
from pathlib import Path

from fmmt_deploy.data.faces import read_face

__all__ = ["SIDE", "picture_from_face"]

SIDE = 144
"""Pixels: twice what a page shows, for sharp screens."""

_QUALITY = 80


def picture_from_face(path: Path) -> str:
    """A face as the face model reads it, as the `data:` address of a JPEG of a few kilobytes.

    Raises:
        DataError: The image can't be read.
    """
    import cv2

    small = cv2.resize(read_face(path), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}"
