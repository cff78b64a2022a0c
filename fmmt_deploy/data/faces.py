"""Face images as the face model reads them: BGR as OpenCV decodes, 224 × 224.

Source: the published preprocessing (Zheng et al., ACL 2023, as released). It feeds BGR as if it were RGB, and chooses
the interpolation by height alone; both are kept. Scaling and normalising are in the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from fmmt_deploy.errors import DataError
from fmmt_deploy.types import FACE_PIXELS, PixelArray

__all__ = ["decoded_face", "read_face", "read_faces"]

_FIX = "Replace the image, or take it out of the list of faces."


def read_face(path: Path) -> PixelArray:
    """Read one face.

    Args:
        path: A JPEG, or any other format OpenCV reads.

    Returns:
        `(224, 224, 3)`, BGR: shrunk by area if higher than 224, enlarged bicubically if lower, else as it is.

    Raises:
        DataError: If the file is missing, truncated or no image, or is 224 high and not as wide.
    """
    image = decoded_face(path)
    height, width = image.shape[:2]
    if height == FACE_PIXELS:
        if width != FACE_PIXELS:
            what = f"{path} is {width} × {height}; an image of that height is not resized and must be as wide"
            raise DataError(what, fix=_FIX, path=path)
        return image
    size = (FACE_PIXELS, FACE_PIXELS)
    if height > FACE_PIXELS:
        return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    # OpenCV's bicubic on uint8 differs by a level or two between processors (it has a path of its own for Intel's);
    # on float32, rounded once, it is the same everywhere, and nearest to what the published code was measured with
    enlarged = cv2.resize(image.astype(np.float32), size, interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip(np.rint(enlarged), 0, 255), np.uint8)


def read_faces(paths: Sequence[Path], threads: int = 1) -> PixelArray:
    """Read many faces, several at a time.

    Args:
        paths: The images, N of them.
        threads: How many to decode at a time (OpenCV lets go of Python's lock).

    Returns:
        `(N, 224, 224, 3)`, in the order of the paths.

    Raises:
        DataError: As `read_face`, for the first that fails.
    """
    cv2.setNumThreads(1)  # our threads are one an image; OpenCV's own on top would only get in their way
    faces = np.empty((len(paths), FACE_PIXELS, FACE_PIXELS, 3), np.uint8)

    def read(index: int) -> None:
        faces[index] = read_face(paths[index])

    if threads <= 1 or len(paths) <= 1:
        for index in range(len(paths)):
            read(index)
        return faces
    with ThreadPoolExecutor(min(threads, len(paths)), thread_name_prefix="faces") as pool:
        list(pool.map(read, range(len(paths))))
    return faces


def decoded_face(path: Path) -> PixelArray:
    try:
        encoded = path.read_bytes()
    except OSError as problem:
        reason = problem.strerror or type(problem).__name__
        raise DataError(f"face image {path} can't be read", why=reason, fix=_FIX, path=path) from problem
    if encoded.startswith(b"\xff\xd8") and encoded.rfind(b"\xff\xd9") < encoded.rfind(b"\xff\xda"):
        # OpenCV would fill what is missing with grey; inside a scan neither marker can stand, so this is exact
        raise DataError(f"face image {path} is a JPEG that breaks off in mid-image", fix=_FIX, path=path)
    try:
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR) if encoded else None
    except cv2.error as problem:
        raise DataError(f"face image {path} can't be decoded", why=problem.err, fix=_FIX, path=path) from problem
    if image is None:
        raise DataError(f"face image {path} is not an image OpenCV can decode", fix=_FIX, path=path)
    return np.asarray(image, np.uint8)
