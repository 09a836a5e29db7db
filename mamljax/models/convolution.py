"""Convolution that stays fast when every task has a kernel of its own.

`jax.vmap` of `lax.conv` over kernels makes a grouped convolution, which is tens of times slower
than it need be, and of the convolutions that its derivatives are, some are slow by themselves. Here
a convolution is one trilinear form of images, kernel and cotangent. Its value and both gradients
are each written in the way that is fastest, and are each other's derivatives, so that those of
every order stay fast.

A matrix product with the patches of the images is fast for all three, and stays a product under
`vmap`. Patches are made anew where they are needed instead of being stored, of large images only a
block at a time. On CPU value and gradient of the images are, without a stride, `lax.conv`, one task
after the other: it reads the patches where they are in the image.
"""

import contextlib
import contextvars
import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mamljax import checks
from mamljax.checks import ArgumentError
from mamljax.models.trilinear import Trilinear, differentiable

FORMS = ("direct", "patches", "lax")
"""The ways to compute a convolution; all agree in value and in every derivative."""

PREFERRED = {"cpu": "direct", "gpu": "patches", "tpu": "patches"}
"""The form that each backend uses: measured on CPU, elsewhere inferred from what `lax` does with
per-task kernels."""

_preferred: contextvars.ContextVar[str | None] = contextvars.ContextVar("form", default=None)

CACHED_SIZE = 2**16
"""Entries of an array whose transposed copy costs less than it saves, see `_transposed_product`."""

BLOCK_SIZE = {"cpu": 2**19}
"""Entries of the patches that are made at a time; on other backends all. On CPU they should stay in
its cache, since memory is slower than the products."""


def convolution(
    images: jax.Array, kernel: jax.Array, *, stride: int = 1, form: str | None = None
) -> jax.Array:
    """Two-dimensional convolution with "SAME" padding, as `lax.conv` and TensorFlow define it.

    Differentiable in both modes, to any order.

    Args:
      images: ``[K, H, W, C]``.
      kernel: ``[k, l, C, F]``.
      stride: of both axes.
      form: one of `FORMS`; None takes that of `in_form`, or else the backend's preferred one.

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
    form = form or _preferred.get() or PREFERRED.get(jax.default_backend(), "patches")
    checks.one_of("form", form, FORMS)
    dtype = jnp.result_type(images, kernel)
    images, kernel = images.astype(dtype), kernel.astype(dtype)
    if form == "lax":
        sizes = zip(images.shape[1:3], kernel.shape[:2], strict=True)
        return _lax(images, kernel, stride, [_padding(*each, stride) for each in sizes])
    return differentiable(_trilinear(form, images.shape, kernel.shape, stride))(images, kernel)


@contextlib.contextmanager
def in_form(form: str) -> Iterator[None]:
    """Let every `convolution` that is traced here, and names no form itself, have this one.

    ``lax`` is for programs that know jax's own primitives alone, such as writers of other formats.

    Args:
      form: one of `FORMS`.
    """
    checks.one_of("form", form, FORMS)
    before = _preferred.set(form)
    try:
        yield
    finally:
        _preferred.reset(before)


@jax.custom_jvp
def max_pool(images: jax.Array) -> jax.Array:
    """The maximum of each 2x2 window, ``[K, H, W, C] -> [K, H // 2, W // 2, C]``.

    An odd last row or column is left out ("VALID"). Equal maxima share the gradient, where
    `lax.reduce_window` and TensorFlow give it all to the first. Differentiable in both modes, to
    any order.
    """
    return functools.reduce(jnp.maximum, _corners(_windows(images)))


@max_pool.defjvp
def _max_pool_jvp(primals, tangents):
    # By itself, automatic differentiation pads each corner of the windows to the size of the image.
    (images,), (moved,) = primals, tangents
    pooled = max_pool(images)
    windows = _windows(images)
    is_max = windows == pooled[:, :, None, :, None]
    number = sum(corner.astype(pooled.dtype) for corner in _corners(is_max))
    return pooled, jnp.sum(jnp.where(is_max, _windows(moved), 0), (2, 4)) / number


def _windows(images):
    """``[K, H, W, C] -> [K, H // 2, 2, W // 2, 2, C]``."""
    count, height, width, channels = images.shape
    height, width = height // 2, width // 2
    return images[:, : 2 * height, : 2 * width].reshape(count, height, 2, width, 2, channels)


def _corners(windows):
    return [windows[:, :, i, :, j] for i in range(2) for j in range(2)]


@functools.cache
def _trilinear(form: str, image_shape, kernel_shape, stride: int) -> Trilinear:
    """The functions of ``<dy, convolution(x, w)>`` for images and kernels of one shape."""
    make = {"direct": _direct, "patches": _as_products}[form]
    return make(image_shape, kernel_shape, stride)


def _as_products(image_shape, kernel_shape, stride):
    """All three as matrix products with patches."""
    count, *shape, channels = image_shape
    *window, _, filters = kernel_shape
    down, across = (_padding(*sizes, stride) for sizes in zip(shape, window, strict=True))
    places = down.outputs, across.outputs
    entries = math.prod(window) * channels
    block = _block(count, math.prod(places) * entries)

    def patches_of(x):
        rows = _taps(x, 2, window[1], across, stride)
        return _taps(rows, 1, window[0], down, stride).reshape(-1, entries)

    def output(x, w):
        def each(x):
            return (patches_of(x) @ w.reshape(-1, filters)).reshape(-1, *places, filters)

        return _in_blocks(each, block, x)

    def of_images(dy, w):
        def each(dy):
            product = (((1,), (1,)), ((), ()))
            patches = lax.dot_general(dy.reshape(-1, filters), w.reshape(-1, filters), product)
            return _overlay(patches.reshape(-1, *places, *window, channels), shape, stride)

        return _in_blocks(each, block, dy)

    def of_kernel(x, dy):
        def each(x, dy):
            return _transposed_product(patches_of(x), dy.reshape(-1, filters))

        return _sum_of_blocks(each, block, x, dy).reshape(kernel_shape)

    def of_kernel_by_halves(x, dy):
        """The taps across from the images, those down, in reverse, from the cotangent."""

        def each(x, dy):
            right = _taps(x, 2, window[1], across).reshape(-1, window[1] * channels)
            below = _taps(dy, 1, window[0], _turned(down)).reshape(-1, window[0] * filters)
            return lax.dot_general(right, below, (((0,), (0,)), ((), ())))

        few = _block(count, math.prod(places) * halves)
        found = _sum_of_blocks(each, few, x, dy).reshape(window[1], channels, window[0], filters)
        return jnp.transpose(found, (2, 0, 1, 3))[::-1]

    halves = window[1] * channels + window[0] * filters
    if stride == 1 and halves < entries + filters:  # less to copy
        return Trilinear(output, of_images, of_kernel_by_halves)
    return Trilinear(output, of_images, of_kernel)


def _direct(image_shape, kernel_shape, stride):
    """Two of the three by `lax.conv` where that is faster than products, and as exact."""
    products = _as_products(image_shape, kernel_shape, stride)
    if stride > 1:
        return products
    sizes = zip(image_shape[1:3], kernel_shape[:2], strict=True)
    padding = [_padding(*each, stride) for each in sizes]

    @_task_by_task
    def output(x, w):
        # Three channels, or another number above it that four does not divide, are slow.
        short = -x.shape[3] % 4 if x.shape[3] > 2 else 0
        x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, short)))
        w = jnp.pad(w, ((0, 0), (0, 0), (0, short), (0, 0)))
        return _lax(x, w, stride, padding)

    @_task_by_task
    def of_images(dy, w):
        return _lax(dy, jnp.swapaxes(w[::-1, ::-1], 2, 3), 1, [_turned(each) for each in padding])

    # The third as a convolution, of the channels as examples, adds up one product after the other:
    # no faster, and ten times less exact.
    return Trilinear(output, of_images, products.of_second)


def _lax(x, w, stride, padding):
    return lax.conv_general_dilated(
        x,
        w,
        (stride, stride),
        [(each.before, each.after) for each in padding],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _task_by_task(function):
    """The function of two arrays, which `vmap` calls for one task after the other."""
    one = jax.custom_batching.custom_vmap(function)

    @one.def_vmap
    def tasks(size, batched, first, second):
        del size
        if all(batched):
            return lax.map(lambda both: one(*both), (first, second)), True
        if batched[0]:
            return lax.map(lambda first: one(first, second), first), True
        return lax.map(lambda second: one(first, second), second), True

    return one


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


def _taps(images, axis, size, padding, stride=1):
    """What each tap of a window along one axis sees, ``[..., C] -> [..., size * C]``."""
    sides = [(0, 0)] * images.ndim
    sides[axis] = padding.before, padding.after
    # The barrier keeps XLA from fusing the padding into every slice.
    padded = lax.optimization_barrier(jnp.pad(images, sides))
    reach = (padding.outputs - 1) * stride + 1
    slices = [lax.slice_in_dim(padded, tap, tap + reach, stride, axis) for tap in range(size)]
    return jnp.concatenate(slices, -1)


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
    before = _padding(length, size, stride).before
    short = max(before + length - flat[axis], 0)  # a stride beyond the window reads no last column
    pads = [(0, short if i == axis else 0) for i in range(len(flat))]
    padded = jnp.pad(interleaved.reshape(flat), pads)
    return lax.slice_in_dim(padded, before, before + length, axis=axis)


class _Padding(NamedTuple):
    """Of one axis: zeros before, the number of outputs, zeros after."""

    before: int
    outputs: int
    after: int


def _padding(length, size, stride):
    """ "SAME" padding."""
    outputs = math.ceil(length / stride)
    total = max((outputs - 1) * stride + size - length, 0)
    return _Padding(total // 2, outputs, total - total // 2)


def _turned(padding):
    """The padding of the convolution that goes back, with the kernel turned round."""
    return padding._replace(before=padding.after, after=padding.before)
