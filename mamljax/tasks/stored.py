"""Images that stay on disk: read where a sampler draws them, and ahead of that."""

import functools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.tree_util import Partial

from mamljax.types import Array

AHEAD_BYTES = 2**26
"""Size of the images that are read before they are asked for, at most."""
READERS = max(2, min(8, len(os.sched_getaffinity(0))))
"""Threads that read them."""


@jax.tree_util.register_static
class Stored:
    """Images ``[C, M, H, W, ch]`` of 8 bits, to be indexed by classes and places like an array.

    `episodes` and `baselines.minibatches` take one in place of an array, and draw the same from the
    same key; a program holds the images of one draw alone. Reading is a callback of the compiled
    program to the host. `fit` and `evaluate` tell what will be drawn, so that it has been read when
    it is asked for.

    Args:
      read: ``at [n, 2] -> [n, H, W, ch]``, the images at classes and places; called by several
        threads at once.
      shape: ``(C, M, H, W, ch)``.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, read: Callable[[np.ndarray], np.ndarray], shape: Sequence[int]):
        self.shape, self.ndim = tuple(shape), len(shape)
        self._ahead = _Ahead(read, int(np.prod(self.shape[2:])))

    def __getitem__(self, where: tuple[Any, Any]) -> Array:
        """The images at ``(classes, places)``, integers that broadcast against each other."""
        at = _stacked(where)
        shape = jax.ShapeDtypeStruct((*at.shape[:-1], *self.shape[2:]), self.dtype)
        fetch = functools.partial(self._fetch, at.ndim)
        return jax.pure_callback(fetch, shape, at, vmap_method="broadcast_all")

    def expect(self, wanted: np.ndarray) -> None:
        """Begin to read what will be asked for, ``[draws, ..., 2]``, in this order."""
        self._ahead.expect(wanted)

    def _fetch(self, rank: int, at: Any) -> np.ndarray:
        """The images of one draw, whose indices have `rank` axes, or of a batch of draws."""
        at = np.asarray(at)
        found = np.empty((*at.shape[:-1], *self.shape[2:]), np.uint8)
        batch = at.shape[: at.ndim - rank]
        for draw in np.ndindex(batch):
            found[draw] = self._ahead.take(at[draw]).reshape(found.shape[len(batch) :])
        return found


def stored_or_on_device(images: Any) -> Any:
    """Images that a sampler can index while it is traced: `Stored`, or an array on the device."""
    return images if isinstance(images, Stored) else jnp.asarray(images)


def read_ahead(sampler: Partial, draw_keys: Callable[[], Array], mesh: Mesh | None = None) -> None:
    """Begin to read what a sampler is about to draw.

    Of a sampler without `Stored` images nothing is known, and nothing done. One with them ignores
    the meta-parameters.

    Args:
      sampler: draws a task.
      draw_keys: makes the keys of the tasks, ``[steps, T]``, in the order of their steps.
      mesh: whose devices draw their share of the tasks; of other processes' nothing is read.
    """
    stored = _stored(sampler)
    if not stored:
        return
    keys = draw_keys()
    if mesh is not None and mesh.is_multi_process:
        own = [device.process_index == jax.process_index() for device in mesh.devices.flat]
        keys = keys[:, np.repeat(own, keys.shape[1] // mesh.size)]
    for images, wanted in zip(stored, _wanted(sampler, keys.reshape(-1)), strict=True):
        images.expect(np.asarray(wanted))


def _stacked(where: tuple[Any, Any]) -> Array:
    return jnp.stack(jnp.broadcast_arrays(*(jnp.asarray(x, jnp.int32) for x in where)), axis=-1)


def _is_stored(leaf: Any) -> bool:
    return isinstance(leaf, Stored)


def _stored(sampler: Partial) -> list[Stored]:
    leaves = jax.tree.leaves(sampler, is_leaf=_is_stored)
    return list({id(x): x for x in leaves if isinstance(x, Stored)}.values())


class _Noted:
    """Stands for `Stored` images; notes where it is indexed, and has nothing but zeros."""

    def __init__(self, images: Stored):
        self.shape, self.ndim, self.dtype = images.shape, images.ndim, images.dtype
        self.at: Array | None = None

    def __getitem__(self, where: tuple[Any, Any]) -> Array:
        self.at = _stacked(where)
        return jnp.zeros((*self.at.shape[:-1], *self.shape[2:]), self.dtype)


@jax.jit
def _wanted(sampler: Partial, keys: Array) -> list[Any]:
    """Where a sampler's draws index each of its `Stored` images, ``[draws, ..., 2]``."""

    def one(key):
        noted = {id(images): _Noted(images) for images in _stored(sampler)}
        tracing = jax.tree.map(lambda x: noted.get(id(x), x), sampler, is_leaf=_is_stored)
        tracing(None, key)
        return [found.at for found in noted.values()]

    return jax.vmap(one)(keys)


class _Ahead:
    """Reading before it is asked for, by threads, as far as memory is set aside for it."""

    def __init__(self, read: Callable[[np.ndarray], np.ndarray], image_bytes: int):
        self._read, self._image_bytes = read, image_bytes
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._waiting: dict[bytes, np.ndarray] = {}
        self._begun: dict[bytes, Future] = {}
        self._room = 0

    def expect(self, wanted: np.ndarray) -> None:
        """Forget what was expected before, and begin with the first of this."""
        draws = [np.ascontiguousarray(at).reshape(-1, 2) for at in wanted]
        with self._lock:
            self._pool = self._pool or ThreadPoolExecutor(READERS, "mamljax-read")
            for future in self._begun.values():
                future.cancel()
            self._begun, self._waiting = {}, {at.tobytes(): at for at in draws}
            self._room = max(AHEAD_BYTES // (len(draws[0]) * self._image_bytes), 1)
            self._fill()

    def take(self, at: np.ndarray) -> np.ndarray:
        """The images of one draw: read before, or now."""
        at = np.ascontiguousarray(at).reshape(-1, 2)
        key = at.tobytes()
        with self._lock:
            future = self._begun.pop(key, None)
            self._waiting.pop(key, None)
            self._fill()
        return self._read(at) if future is None else future.result()

    def _fill(self) -> None:
        while self._pool and self._waiting and len(self._begun) < self._room:
            key = next(iter(self._waiting))
            self._begun[key] = self._pool.submit(self._read, self._waiting.pop(key))
