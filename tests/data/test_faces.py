"""Face images against OpenCV's own functions, used as the reference states."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from fmmt_deploy.data.faces import read_face, read_faces
from fmmt_deploy.errors import DataError
from tests.golden import GOLDEN

FACES = sorted((GOLDEN / "roberta/faces").glob("*.jpg"))


def literal(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    if image.shape[0] > 224:
        return cv2.resize(image, (224, 224), interpolation=cv2.INTER_AREA)
    if image.shape[0] < 224:
        return cv2.resize(image, (224, 224), interpolation=cv2.INTER_CUBIC)
    return image


def assert_same_pixels(found: np.ndarray, path: Path) -> None:
    """Equal but for OpenCV's bicubic on uint8, which is up to one level off the rounded exact value, and not everywhere
    the same; the golden face logits (tests/export) say that ours is the published one's."""
    assert found.dtype == np.uint8
    enlarged = cv2.imread(str(path)).shape[0] < 224
    np.testing.assert_allclose(found.astype(int), literal(path).astype(int), rtol=0, atol=int(enlarged))


def test_larger_smaller_and_equal_faces() -> None:
    one_of_each = {cv2.imread(str(path)).shape[0]: path for path in FACES}
    assert min(one_of_each) < 224 < max(one_of_each)
    assert 224 in one_of_each
    for path in one_of_each.values():
        assert_same_pixels(read_face(path), path)


@pytest.mark.parametrize(("height", "width"), [(300, 100), (100, 300), (225, 224), (223, 224), (1, 1)])
def test_the_height_alone_decides(tmp_path: Path, height: int, width: int) -> None:
    path = tmp_path / "x.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))
    assert_same_pixels(read_face(path), path)


def test_the_channels_stay_blue_green_red(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    cv2.imwrite(str(path), np.full((224, 224, 3), (255, 0, 0), np.uint8))
    assert read_face(path)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("threads", [1, 3])
def test_many_faces_keep_their_order(threads: int) -> None:
    paths = [*FACES[:20], FACES[0]]
    for face, path in zip(read_faces(paths, threads), paths, strict=True):
        assert_same_pixels(face, path)
    assert read_faces([], threads).shape == (0, 224, 224, 3)


def test_unreadable_faces(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    with pytest.raises(DataError, match=r"x\.jpg can't be read\nNo such file"):
        read_face(path)
    whole = FACES[0].read_bytes()
    for content, message in [
        (b"", "not an image"),
        (b"no image", "not an image"),
        (whole[: len(whole) // 2], "breaks off"),
        (whole[:-2], "breaks off"),
    ]:
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            read_face(path)
        with pytest.raises(DataError, match=message):
            read_faces([FACES[0], path, FACES[1]], 2)


def test_a_face_224_high_must_be_as_wide(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    cv2.imwrite(str(path), np.zeros((224, 100, 3), np.uint8))
    with pytest.raises(DataError, match="100 × 224"):
        read_face(path)
