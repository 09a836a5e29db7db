"""Convolution that stays fast when every task has a kernel of its own.

`jax.vmap` of `lax.conv` over kernels makes a grouped convolution, which is tens of times slower
than it need be. Here a convolution is a matrix product with the patches of the image, and products
stay products under `vmap`. Automatic differentiation of that form is right but slow on CPU: the
gradient of the patches becomes nine scattered sums, and the weight gradient a product with both
sides transposed. Both have their derivatives written out below, in terms of each other, so that
derivatives of every order stay fast.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from mamljax import checks

FORMS = ("patches", "lax")
"""The ways to compute a convolution; all agree in value and in every derivative."""

PREFERRED = {"cpu": "patches", "gpu": "patches", "tpu": "patches"}
"""The form that each backend uses: measured on CPU, elsewhere inferred from what `lax` does with
per-task kernels."""

CACHED_SIZE = 2**16
"""Entries of an array whose transposed copy costs less than it saves, see `_product_weight`."""


def convolution(
    images: jax.Array, kernel: jax.Array, *, stride: int = 1, form: str | None = None
) -> jax.Array:
    """Two-dimensional convolution with "SAME" padding, as `lax.conv` and TensorFlow define it.

    Reverse-mode differentiable to any order; for `jax.jvp` take ``form="lax"``.

    Args:
      images: ``[K, H, W, C]``.
      kernel: ``[k, l, C, F]``.
      stride: of both axes.
      form: one of `FORMS`; None takes the backend's preferred one.

    Returns:
      ``[K, ceil(H / stride), ceil(W / stride), F]``.

    Raises:
      ValueError: if the shapes do not fit.
    """
    checks.at_least("stride", stride, 1)
    if images.ndim != 4 or kernel.ndim != 4 or images.shape[3] != kernel.shape[2]:
        raise ValueError(
            "convolution: images must have shape [K, H, W, C] and the kernel [k, l, C, F]; got "
            f"{images.shape} and {kernel.shape}."
        )
    form = PREFERRED.get(jax.default_backend(), "patches") if form is None else form
    checks.one_of("form", form, FORMS)
    if form == "lax":
        return lax.conv_general_dilated(
            images, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    rows, columns, _, filters = kernel.shape
    windows = _extract(images, (rows, columns), stride)
    product = _product(windows.reshape(-1, windows.shape[-1]), kernel.reshape(-1, filters))
    return product.reshape(*windows.shape[:3], filters)


def max_pool(images: jax.Array) -> jax.Array:
    """The maximum of each 2x2 window, ``[K, H, W, C] -> [K, H // 2, W // 2, C]``.

    An odd last row or column is left out ("VALID"). Equal maxima share the gradient, where
    `lax.reduce_window` and TensorFlow give it all to the first.
    """
    count, height, width, channels = images.shape
    height, width = height // 2, width // 2
    windows = images[:, : 2 * height, : 2 * width].reshape(count, height, 2, width, 2, channels)
    rows = jnp.maximum(windows[:, :, 0], windows[:, :, 1])
    return jnp.maximum(rows[:, :, :, 0], rows[:, :, :, 1])


# Matrix products: three faces of one trilinear form <dy, x w>, each the derivative of the others.


@jax.custom_vjp
def _product(x, w):
    """``[R, P], [P, F] -> [R, F]``."""
    return x @ w


@jax.custom_vjp
def _product_input(dy, w):
    """The gradient of `_product` in its input, ``[R, F], [P, F] -> [R, P]``."""
    return lax.dot_general(dy, w, (((1,), (1,)), ((), ())))


@jax.custom_vjp
def _product_weight(x, dy):
    """The gradient of `_product` in its weight, ``[R, P], [R, F] -> [P, F]``."""
    # XLA's CPU product with a transposed left side runs at two thirds of the rate of a plain one.
    # So the smaller side is transposed beforehand, as long as that stays in the processor's cache;
    # the barrier keeps XLA from undoing it.
    if dy.size <= CACHED_SIZE:
        return (lax.optimization_barrier(dy.T) @ x).T
    return lax.dot_general(x, dy, (((0,), (0,)), ((), ())))


_product.defvjp(
    lambda x, w: (_product(x, w), (x, w)),
    lambda saved, dy: (_product_input(dy, saved[1]), _product_weight(saved[0], dy)),
)
_product_input.defvjp(
    lambda dy, w: (_product_input(dy, w), (dy, w)),
    lambda saved, x: (_product(x, saved[1]), _product_weight(x, saved[0])),
)
_product_weight.defvjp(
    lambda x, dy: (_product_weight(x, dy), (x, dy)),
    lambda saved, w: (_product_input(saved[1], w), _product(saved[0], w)),
)


# Patches and their transpose: linear, so each is the derivative of the other.


def _extract(images, window, stride):
    """The patches of `images`, ``[K, H, W, C] -> [K, OH, OW, k * k * C]``."""
    shape = images.shape[1:3]

    @jax.custom_vjp
    def extract(images):
        return _patches(images, window, stride)

    @jax.custom_vjp
    def overlay(patches):
        return _overlay(patches, shape, window, stride)

    extract.defvjp(lambda x: (extract(x), None), lambda _, dy: (overlay(dy),))
    overlay.defvjp(lambda x: (overlay(x), None), lambda _, dy: (extract(dy),))
    return extract(images)


def _patches(images, window, stride):
    (top, high, bottom), (left, wide, right) = (
        _padding(*sizes, stride) for sizes in zip(images.shape[1:3], window, strict=True)
    )
    # The barriers keep XLA from fusing the slices into the concatenation, which it would then
    # compute element by element instead of copying rows.
    padded = lax.optimization_barrier(
        jnp.pad(images, ((0, 0), (top, bottom), (left, right), (0, 0)))
    )
    reach = (high - 1) * stride + 1, (wide - 1) * stride + 1
    slices = [
        padded[:, i : i + reach[0] : stride, j : j + reach[1] : stride]
        for i in range(window[0])
        for j in range(window[1])
    ]
    return jnp.concatenate(lax.optimization_barrier(slices), axis=-1)


def _overlay(patches, shape, window, stride):
    """Add every patch to the place it was taken from, one axis after the other."""
    patches = patches.reshape(*patches.shape[:3], *window, -1)
    rows = _overlay_axis(jnp.moveaxis(patches, 3, 2), 1, shape[0], stride)
    return _overlay_axis(rows, 2, shape[1], stride)


def _overlay_axis(windows, axis, length, stride):
    """Overlay ``[..., O, k, ...]``, with `O` at `axis`, into ``[..., length, ...]``."""
    count, size = windows.shape[axis : axis + 2]
    reach = math.ceil(size / stride)  # how many windows overlap at one place

    def placed(tap):
        """One tap of every window, at the window it falls in when counted by strides."""
        moved = tap // stride
        pads = [(0, 0)] * (windows.ndim - 1)
        pads[axis] = (moved, reach - 1 - moved)
        return jnp.pad(lax.index_in_dim(windows, tap, axis + 1, keepdims=False), pads)

    # Positions of one remainder modulo the stride meet the same taps; interleaving puts the
    # remainders side by side. Nothing is scattered.
    phases = [
        sum((placed(tap) for tap in range(first + stride, size, stride)), start=placed(first))
        for first in range(min(stride, size))
    ]
    phases += [jnp.zeros_like(phases[0])] * (stride - len(phases))
    interleaved = jnp.stack(phases, axis + 1)
    flat = (*windows.shape[:axis], (count + reach - 1) * stride, *windows.shape[axis + 2 :])
    before = _padding(length, size, stride)[0]
    short = max(before + length - flat[axis], 0)  # a stride beyond the window reads no last column
    pads = [(0, short if i == axis else 0) for i in range(len(flat))]
    padded = jnp.pad(interleaved.reshape(flat), pads)
    return lax.slice_in_dim(padded, before, before + length, axis=axis)


def _padding(length, size, stride):
    """ "SAME" padding of one axis: before, the number of outputs, after."""
    outputs = math.ceil(length / stride)
    total = max((outputs - 1) * stride + size - length, 0)
    return total // 2, outputs, total - total // 2
