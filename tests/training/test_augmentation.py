"""Changed faces, held against torchvision, which has all but the keyed draws."""

from dataclasses import replace
from itertools import permutations

import cv2
import numpy as np
import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from fmmt_deploy.training.augmentation import Jitter, augmented_face, draw_jitter, erased, jittered, jittered_face
from fmmt_deploy.training.draws import generator
from fmmt_deploy.training.settings import FaceSettings
from fmmt_deploy.types import PixelArray

ORDER = ("brightness", "contrast", "saturation", "hue")
NOTHING = FaceSettings(published_probabilities=False, grey=0, jitter=0, blur=0, erase=0)


def face(seed: int = 0, size: int = 224) -> PixelArray:
    """Blots of all colours, some of them black, white or grey."""
    noise = np.random.default_rng(seed).normal(128, 400, (size, size, 3))
    blots = np.clip(cv2.GaussianBlur(noise, (0, 0), 3) + 20, 0, 255).astype(np.uint8)
    blots[: size // 8] = blots[: size // 8, :, :1]
    return blots


def torchvision_image(pixels: PixelArray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)


def by_torchvision(pixels: PixelArray, jitter: Jitter) -> PixelArray:
    image = torchvision_image(pixels)
    for change in jitter.order:
        image = getattr(functional, f"adjust_{change}")(image, getattr(jitter, change))
    return np.asarray(image.permute(1, 2, 0).numpy(), np.uint8)


@pytest.mark.parametrize("change", ORDER)
@pytest.mark.parametrize("draw", [0.0, 0.2, 0.55, 0.9, 0.999])
def test_each_change_is_torchvisions(change: str, draw: float) -> None:
    jitter = replace(draw_jitter(0.5, np.full(5, draw)), order=(change,))
    difference = jittered_face(face(), jitter).astype(int) - by_torchvision(face(), jitter)
    assert abs(difference).max() <= 1
    assert abs(difference).mean() < 0.6  # torchvision rounds the grey levels down, too


@pytest.mark.parametrize("seed", range(6))
def test_all_changes_one_after_the_other_are_torchvisions(seed: int) -> None:
    jitter = draw_jitter(0.5, np.random.default_rng(seed).random(5))
    difference = jittered_face(face(seed), jitter).astype(int) - by_torchvision(face(seed), jitter)
    assert abs(difference).mean() < 0.8  # a level, which a step behind may double; a hue of dark pixels more
    assert (abs(difference) > 3).mean() < 0.01


def test_the_draws_are_as_wide_as_torchvisions() -> None:
    drawn = [draw_jitter(0.4, row) for row in np.random.default_rng(0).random((4000, 5))]
    assert {jitter.order for jitter in drawn} == set(permutations(ORDER))
    published = v2.ColorJitter(0.4, 0.4, 0.4, 0.4)
    for name in ORDER:
        low, high = getattr(published, name)
        values = np.array([getattr(jitter, name) for jitter in drawn])
        assert low <= values.min() < low + 0.01
        assert high - 0.01 < values.max() <= high
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.02)


def test_a_strength_above_one_takes_no_colour_below_nothing() -> None:
    jitter = draw_jitter(1.5, np.zeros(5))
    assert (jitter.brightness, jitter.hue) == (0, -0.5)
    assert draw_jitter(1.5, np.full(5, 0.5)).brightness == 1.25


def test_a_face_does_not_depend_on_those_behind_it() -> None:
    faces = np.stack([face(0), face(1), face(2)])
    changed = jittered(faces, 0.5, generator(1, "jitter", 1, "u"))
    np.testing.assert_array_equal(changed[:2], jittered(faces[:2], 0.5, generator(1, "jitter", 1, "u")))
    assert (jittered(faces[:1], 0.5, generator(1, "jitter", 2, "u")) != changed[:1]).any()
    np.testing.assert_array_equal(jittered(faces, 0.0, generator(1, "jitter", 1, "u")), faces)


def test_without_augmentation_a_face_is_resized_and_normalised() -> None:
    for size in (112, 224, 300):
        small = face(3, size)
        resized = functional.resize(
            torchvision_image(small), [224, 224], interpolation=v2.InterpolationMode.BICUBIC, antialias=True
        )
        expected = functional.normalize(resized / 255, [0.5] * 3, [0.5] * 3)
        found = augmented_face(small, NOTHING, generator(0, "x"))
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)
        assert found.dtype == np.float32


def test_grey_is_torchvisions() -> None:
    found = augmented_face(face(), replace(NOTHING, grey=1), generator(0, "x"))
    grey = functional.rgb_to_grayscale(torchvision_image(face()), 3).numpy()
    assert abs((found + 1) * 127.5 - grey).max() < 1.01
    assert (found[0] == found[2]).all()


def test_blur_is_torchvisions() -> None:
    found = augmented_face(face(), replace(NOTHING, blur=1), generator(0, "x"))
    draws = generator(0, "x")
    draws.random(8)
    sigma = draws.uniform(0.1, 2)
    blurred = functional.gaussian_blur(torchvision_image(face()), [13, 13], [sigma, sigma]).numpy()
    assert abs((found + 1) * 127.5 - blurred).max() < 1.01


@pytest.mark.parametrize("published", [True, False])
def test_shares_of_faces_that_are_changed(published: bool) -> None:
    settings = FaceSettings(published_probabilities=published)
    shown = face(5)[:32, :32]
    plain = augmented_face(shown, NOTHING, generator(0, "x"))
    found = {"grey": 0, "erase": 0, "other": 0}
    count = 400
    for index in range(count):
        changed = augmented_face(shown, settings, generator(7, "augment", 1, index))
        found["erase"] += bool((abs(changed) > 1).any())
        alone = augmented_face(
            shown, replace(settings, blur=float(published), erase=0), generator(7, "augment", 1, index)
        )
        found["grey"] += bool((alone[0] == alone[1]).all())
        found["other"] += bool((alone == plain).all())
    # of four binomial standard deviations; grey before the jitter stays grey behind it
    shares = {"grey": 0.2 if published else 0.8, "erase": 0.25, "other": 0.8 * 0.2 if published else 0.2 * 0.8}
    for name, share in shares.items():
        assert found[name] / count == pytest.approx(share, abs=4 * (share * (1 - share) / count) ** 0.5), name


def test_erased_rectangles_have_noise_and_the_area_of_timms() -> None:
    areas, values = [], []
    for seed in range(300):
        pixels = erased(np.full((3, 224, 224), 9, np.float32), np.random.default_rng(seed))
        rows, columns = np.nonzero((pixels != 9).all(axis=0))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert len(rows) == height * width
        areas.append(height * width / 224**2)
        assert 0.28 < height / width < 3.6
        values.append(pixels[:, rows[0], columns[0]])
    assert 0.015 < min(areas) < 0.03
    assert 0.31 < max(areas) < 0.34
    assert np.mean(areas) == pytest.approx(0.175, abs=0.025)  # of timm, over 3000: 0.175
    assert np.std(values) == pytest.approx(1, abs=0.1)
