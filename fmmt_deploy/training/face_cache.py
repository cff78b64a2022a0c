"""Keeps decoded faces on disk for the next epoch, shared by all processes that read data.

The file has no name: it is gone with the last process that has it open, also if that is killed. It is written and read
rather than mapped, because a write to a full disk is then an error and not a signal that ends the process.
"""

from __future__ import annotations

import logging
import mmap
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from fmmt_deploy.data.faces import read_face
from fmmt_deploy.types import FACE_PIXELS, PixelArray

__all__ = ["FACE_BYTES", "FaceCache"]

FACE_BYTES = FACE_PIXELS * FACE_PIXELS * 3
_SPARE = 1 << 30
"""Left free on the disk: the training's own checkpoints may go to the same."""

_LOG = logging.getLogger(__name__)
_EMPTY, _FILLED = 0, 1


class FaceCache:
    """Decoded faces, by number; those beyond its size are decoded each time.

    Processes that are forked from this one share it.

    Args:
        faces: How many there are.
        gib: Its size in GiB; 0 keeps none.
        folder: Where its file is; default the system's folder for temporary files.

    Attributes:
        capacity: How many faces it can hold.
        note: What a person should know about it, or nothing.
    """

    def __init__(self, faces: int, gib: float, folder: Path | None = None) -> None:
        self._file = -1
        place = Path(tempfile.gettempdir()) if folder is None else folder
        self.capacity, self.note = _affordable(min(faces, int(gib * 2**30) // FACE_BYTES), place)
        if self.capacity:
            try:
                self._file, name = tempfile.mkstemp(prefix="fmmt-faces-", dir=place)
                Path(name).unlink()
            except OSError as problem:
                self.capacity, self.note = 0, f"Faces are decoded anew each time: {place} can't be written ({problem})."
        # the first byte says whether the disk is full, the others which faces are there; anonymous, so forks share it
        self._filled = mmap.mmap(-1, 1 + self.capacity)

    def read(self, number: int, path: Path) -> PixelArray:
        """One face, as `read_face` gives it.

        Args:
            number: Which, from 0.
            path: Its image.

        Raises:
            DataError: If it can't be read or is no image.
        """
        if number >= self.capacity:
            return read_face(path)
        if self._filled[1 + number] == _FILLED:
            return self._kept(number)
        face = read_face(path)
        if not self._filled[0]:
            self._keep(number, face)
        return face

    def close(self) -> None:
        """Gives the disk's space back, once all processes have."""
        if self._file >= 0:
            os.close(self._file)
            self._file, self.capacity = -1, 0

    def __del__(self) -> None:
        self.close()

    def _kept(self, number: int) -> PixelArray:
        face = np.empty((FACE_PIXELS, FACE_PIXELS, 3), np.uint8)
        read = os.preadv(self._file, [face.data.cast("B")], number * FACE_BYTES)
        assert read == FACE_BYTES, f"face {number} of the cache is cut off"
        return face

    def _keep(self, number: int, face: PixelArray) -> None:
        try:
            written = os.pwrite(self._file, np.ascontiguousarray(face).data.cast("B"), number * FACE_BYTES)
        except OSError as problem:
            self._filled[0] = 1
            _LOG.warning("no more faces are kept, the rest is decoded each time: %s", problem)
            return
        if written == FACE_BYTES:
            self._filled[1 + number] = _FILLED


def _affordable(faces: int, folder: Path) -> tuple[int, str]:
    """How many of so many faces the disk has room for, and what is to be said about it."""
    if faces <= 0:
        return 0, ""
    if os.name != "posix":
        return 0, "Faces are decoded anew each time: this system has no files without a name."
    try:
        free = shutil.disk_usage(folder).free
    except OSError as problem:
        return 0, f"Faces are decoded anew each time: {folder} can't be used ({problem})."
    room = max(0, free - _SPARE) // FACE_BYTES
    if room >= faces:
        return faces, ""
    note = f"{folder} has {free / 2**30:.1f} GiB free: {room} decoded faces are kept instead of {faces}."
    return room, note
