"""Random changes of images: what they may do, how often, and to which images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from mamljax import baselines
from mamljax.tasks import augment, episodes

KEY = jax.random.key(0)
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)[None].repeat(2000, 0)


def test_every_other_image_is_mirrored():
    found = np.asarray(augment(flip=True)(KEY, IMAGES))
    mirrored = np.all(found == IMAGES[:, :, ::-1], axis=(1, 2, 3))
    np.testing.assert_array_equal(mirrored, ~np.all(found == IMAGES, axis=(1, 2, 3)))
    assert abs(mirrored.mean() - 0.5) < 4 * np.sqrt(0.25 / 2000)


def test_all_shifts_are_equally_likely_and_black_comes_in():
    found = np.asarray(augment(crop=1)(KEY, IMAGES))
    wide = np.pad(IMAGES[0], ((1, 1), (1, 1), (0, 0)))
    shifts = [wide[y : y + 6, x : x + 5] for y in range(3) for x in range(3)]
    fits = np.array([np.all(found == shift, axis=(1, 2, 3)) for shift in shifts])
    np.testing.assert_array_equal(fits.sum(0), 1)
    share = fits.mean(1)
    assert np.abs(share - 1 / 9).max() < 4 * np.sqrt(1 / 9 * 8 / 9 / 2000)


def test_colours_change_as_pillow_changes_them(monkeypatch):
    factors = [0.8, 1.3, 0.6]
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape, **_: jnp.float32(factors))
    found = np.asarray(augment(colour=0.4)(KEY, IMAGES[:1]))[0]
    image = Image.fromarray(IMAGES[0])
    kinds = [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color]
    for kind, factor in zip(kinds, factors, strict=True):
        image = kind(image).enhance(factor)
    # Pillow rounds after each of the three.
    assert np.abs(found.astype(int) - np.asarray(image)).max() <= 2


@pytest.mark.parametrize("channels", [1, 3])
def test_plain_images_change_in_brightness_alone_and_within_bounds(channels):
    plain = np.full((2000, 2, 2, channels), 100, np.uint8)
    found = np.asarray(augment(colour=0.2)(KEY, plain))
    assert found.dtype == np.uint8
    assert np.all(found == found[:, :1, :1, :1])
    assert (found.min(), found.max()) == (80, 120)
    assert abs(found[:, 0, 0, 0].mean() - 100) < 1.5


def marked():
    """Seven classes of six 4 x 4 images, each of one level, black in its left half."""
    levels = np.arange(1, 43, dtype=np.uint8).reshape(7, 6, 1, 1, 1)
    return np.broadcast_to(levels, (7, 6, 4, 4, 1)) * np.uint8([0, 0, 1, 1]).reshape(1, 1, 1, 4, 1)


def test_a_sampler_changes_every_image_by_itself_and_draws_the_same_ones():
    def draw(**options):
        sampler = episodes(
            marked(), ways=5, shots=2, queries=3, decode=lambda images: images, **options
        )
        return jax.jit(sampler)(None, KEY)

    plain, flipped = draw(), draw(augment=augment(flip=True))
    for before, after in zip(plain, flipped, strict=True):
        before, after = np.asarray(before.inputs), np.asarray(after.inputs)
        np.testing.assert_array_equal(before.max((1, 2, 3)), after.max((1, 2, 3)))
        changed = np.any(before != after, axis=(1, 2, 3))
        assert 0 < changed.sum() < len(changed)
        np.testing.assert_array_equal(after[changed], before[changed][:, :, ::-1])


def test_minibatches_too():
    def draw(**options):
        options |= {"decode": lambda images: images}
        return baselines.minibatches(marked(), size=12, **options)(None, KEY).query

    before, after = draw(), draw(augment=augment(flip=True))
    np.testing.assert_array_equal(before.targets, after.targets)
    changed = np.any(np.asarray(before.inputs) != after.inputs, axis=(1, 2, 3))
    assert 0 < changed.sum() < 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flip": 1}, "flip must be True or False; got 1"),
        ({"crop": -1}, "crop must be an integer of at least 0; got -1"),
        ({"colour": 2}, "colour must be .* got 2"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        augment(**options)


def test_only_functions_that_keep_bytes_are_taken():
    draw = episodes(marked(), ways=2, shots=1, queries=1, augment=lambda key, x: x / 255.0)
    with pytest.raises(ValueError, match="augment must return images of type uint8; got float32"):
        draw(None, KEY)
    with pytest.raises(TypeError, match="augment must be a function"):
        episodes(marked(), ways=2, shots=1, queries=1, augment=True)
