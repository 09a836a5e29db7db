"""Random changes of images that leave their class as it is, made on the device."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mamljax import checks
from mamljax.checks import ArgumentError
from mamljax.types import Array

GREY = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue in how light a colour looks (ITU-R BT.601)."""

Augment = Callable[[Array, Array], Array]
"""``(key, images) -> images``, both uint8 ``[n, H, W, ch]``."""


def augment(*, flip: bool = False, crop: int = 0, colour: float = 0.0) -> Augment:
    """A function for the `augment` of `episodes` and `baselines.minibatches`.

    Every image is changed by itself, anew in every draw.

    Args:
      flip: mirror left and right, every other image.
      crop: move by up to this many pixels along both axes; what comes in from outside is black.
      colour: multiply brightness, contrast and saturation, in this order, by factors between
        1 - `colour` and 1 + `colour`.

    Raises:
      ArgumentError: for a `crop` below 0, or a `colour` outside 0 to 1.
    """
    if not isinstance(flip, (bool, np.bool_)):
        raise ArgumentError(f"flip must be True or False; got {flip!r}.")
    checks.at_least("crop", crop, 0)
    checks.fraction("colour", colour)

    def one(key, image):
        flip_key, crop_key, colour_key = jax.random.split(key, 3)
        if flip:
            image = jnp.where(jax.random.bernoulli(flip_key), image[:, ::-1], image)
        if crop:
            image = _moved(crop_key, image, crop)
        if colour:
            image = _coloured(colour_key, image, colour)
        return image

    return lambda key, images: jax.vmap(one)(jax.random.split(key, len(images)), images)


def _moved(key: Array, image: Array, by: int) -> Array:
    y, x = jax.random.randint(key, (2,), 0, 2 * by + 1)
    wide = jnp.pad(image, ((by, by), (by, by), (0, 0)))
    return jax.lax.dynamic_slice(wide, (y, x, 0), image.shape)


def _coloured(key: Array, image: Array, by: float) -> Array:
    brightness, contrast, saturation = jax.random.uniform(key, (3,), minval=1 - by, maxval=1 + by)
    seen = jnp.clip(image * brightness, 0.0, 255.0)
    seen = _mixed(jnp.mean(_grey(seen)), seen, contrast)
    seen = _mixed(_grey(seen), seen, saturation)
    return jnp.round(seen).astype(image.dtype)


def _mixed(other: Array, image: Array, factor: Array) -> Array:
    return jnp.clip(other + factor * (image - other), 0.0, 255.0)


def _grey(image: Array) -> Array:
    """``[H, W, ch] -> [H, W, 1]``."""
    if image.shape[-1] != len(GREY):
        return jnp.mean(image, -1, keepdims=True)
    return jnp.sum(image * GREY.reshape(1, 1, -1), -1, keepdims=True)
