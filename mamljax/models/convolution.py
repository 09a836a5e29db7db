"""Convolution that stays fast when every task has a kernel of its own.

`jax.vmap` of `lax.conv` over kernels makes a grouped convolution, which is tens of times slower
than it need be. Here a convolution is a matrix product with the patches of the image, and products
stay products under `vmap`. Automatic differentiation of that form is right but slow on CPU: the
gradient of the patches becomes nine scattered sums, and the weight gradient a product with both
sides transposed. The derivatives are written out below, in terms of each other, so that those of
every order stay fast. Patches are made anew where they are needed instead of being stored: they are
nine times as many as the image has entries, and of large images only a block at a time.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from mamljax import checks
from mamljax.checks import ArgumentError

FORMS = ("patches", "lax")
"""The ways to compute a convolution; all agree in value and in every derivative."""

PREFERRED = {"cpu": "patches", "gpu": "patches", "tpu": "patches"}
"""The form that each backend uses: measured on CPU, elsewhere inferred from what `lax` does with
per-task kernels."""

CACHED_SIZE = 2**16
"""Entries of an array whose transposed copy costs less than it saves, see `_transposed_product`."""

BLOCK_SIZE = {"cpu": 2**19}
"""Entries of the patches that are made at a time; on other backends all. On CPU they should stay in
its cache, since memory is slower than the products."""


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
      ArgumentError: if the shapes do not fit.
    """
    checks.at_least("stride", stride, 1)
    if images.ndim != 4 or kernel.ndim != 4 or images.shape[3] != kernel.shape[2]:
        raise ArgumentError(
            "convolution: images must have shape [K, H, W, C] and the kernel [k, l, C, F]; got "
            f"{images.shape} and {kernel.shape}."
        )
    form = PREFERRED.get(jax.default_backend(), "patches") if form is None else form
    checks.one_of("form", form, FORMS)
    if form == "lax":
        return lax.conv_general_dilated(
            images, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    return _trilinear(images.shape, kernel.shape, stride)(images, kernel)


@jax.custom_vjp
def max_pool(images: jax.Array) -> jax.Array:
    """The maximum of each 2x2 window, ``[K, H, W, C] -> [K, H // 2, W // 2, C]``.

    An odd last row or column is left out ("VALID"). Equal maxima share the gradient, where
    `lax.reduce_window` and TensorFlow give it all to the first. Reverse-mode differentiable to any
    order.
    """
    return functools.reduce(jnp.maximum, _corners(_windows(images)))


def _max_pool_forward(images):
    pooled = max_pool(images)
    return pooled, (images, pooled)


def _max_pool_backward(saved, gradient):
    # By itself, automatic differentiation pads each corner of the windows to the size of the image.
    images, pooled = saved
    windows = _windows(images)
    is_max = windows == pooled[:, :, None, :, None]
    share = gradient / sum(corner.astype(gradient.dtype) for corner in _corners(is_max))
    spread = jnp.where(is_max, share[:, :, None, :, None], 0)
    height, width = (2 * size for size in pooled.shape[1:3])
    left_out = [
        (0, size - used) for size, used in zip(images.shape[1:3], (height, width), strict=True)
    ]
    spread = spread.reshape(-1, height, width, images.shape[3])
    return (jnp.pad(spread, ((0, 0), *left_out, (0, 0))),)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def _windows(images):
    """``[K, H, W, C] -> [K, H // 2, 2, W // 2, 2, C]``."""
    count, height, width, channels = images.shape
    height, width = height // 2, width // 2
    return images[:, : 2 * height, : 2 * width].reshape(count, height, 2, width, 2, channels)


def _corners(windows):
    return [windows[:, :, i, :, j] for i in range(2) for j in range(2)]


@functools.cache
def _trilinear(image_shape, kernel_shape, stride):
    """Convolution of images of one shape.

    Three faces of one trilinear form ``<dy, convolution(x, w)>``, each of them the derivative
    of the others.
    """
    count, *shape, channels = image_shape
    *window, _, filters = kernel_shape
    places = [_padding(*sizes, stride)[1] for sizes in zip(shape, window, strict=True)]
    block = _block(count, math.prod((*places, *window, channels)))

    def patches_of(x):
        return _patches(x, window, stride).reshape(-1, math.prod(window) * channels)

    @jax.custom_vjp
    def output(x, w):
        """``[K, H, W, C], [k, l, C, F] -> [K, OH, OW, F]``."""

        def each(x):
            return (patches_of(x) @ w.reshape(-1, filters)).reshape(-1, *places, filters)

        return _in_blocks(each, block, x)

    @jax.custom_vjp
    def of_images(dy, w):
        """The gradient of `output` in the images."""

        def each(dy):
            product = (((1,), (1,)), ((), ()))
            patches = lax.dot_general(dy.reshape(-1, filters), w.reshape(-1, filters), product)
            patches = patches.reshape(-1, *places, *window, channels)
            return _overlay(patches, shape, stride)

        return _in_blocks(each, block, dy)

    @jax.custom_vjp
    def of_kernel(x, dy):
        """The gradient of `output` in the kernel."""

        def each(x, dy):
            return _transposed_product(patches_of(x), dy.reshape(-1, filters))

        return _sum_of_blocks(each, block, x, dy).reshape(kernel_shape)

    output.defvjp(
        lambda x, w: (output(x, w), (x, w)),
        lambda saved, dy: (of_images(dy, saved[1]), of_kernel(saved[0], dy)),
    )
    of_images.defvjp(
        lambda dy, w: (of_images(dy, w), (dy, w)),
        lambda saved, x: (output(x, saved[1]), of_kernel(x, saved[0])),
    )
    of_kernel.defvjp(
        lambda x, dy: (of_kernel(x, dy), (x, dy)),
        lambda saved, w: (of_images(saved[1], w), output(saved[0], w)),
    )
    return output


def _block(count, size):
    """Return how many of `count` images with `size` entries of patches each to take at a time.

    All of them where `count` is a symbol of `jax.export`, which no number is known to divide.
    """
    if not isinstance(count, int):
        return count
    limit = max(BLOCK_SIZE.get(jax.default_backend(), count * size) // size, 1)
    return max(n for n in range(1, min(limit, count) + 1) if count % n == 0)


def _in_blocks(function, block, images):
    if block == images.shape[0]:
        return function(images)
    found = lax.map(function, images.reshape(-1, block, *images.shape[1:]))
    return found.reshape(-1, *found.shape[2:])


def _sum_of_blocks(function, block, *arrays):
    if block == arrays[0].shape[0]:
        return function(*arrays)
    blocks = [x.reshape(-1, block, *x.shape[1:]) for x in arrays]
    found = jax.eval_shape(function, *(x[0] for x in blocks))
    add = lambda total, each: (total + function(*each), None)  # noqa: E731
    return lax.scan(add, jnp.zeros(found.shape, found.dtype), blocks)[0]


def _transposed_product(x, dy):
    """``[R, P], [R, F] -> [P, F]``."""
    # XLA's CPU product with a transposed left side runs at two thirds of the rate of a plain one.
    # So the smaller side is transposed beforehand, as long as that stays in the processor's cache;
    # the barrier keeps XLA from undoing it.
    if isinstance(dy.size, int) and dy.size <= CACHED_SIZE:  # not a symbol of jax.export
        return (lax.optimization_barrier(dy.T) @ x).T
    return lax.dot_general(x, dy, (((0,), (0,)), ((), ())))


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


def _overlay(patches, shape, stride):
    """Add every patch, ``[K, OH, OW, k, l, C]``, to its place, one axis after the other."""
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
