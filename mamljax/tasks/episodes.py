"""N-way K-shot episodes over images that are kept as bytes, on the device or on disk."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from mamljax import checks
from mamljax.checks import ArgumentError
from mamljax.tasks.augment import Augment
from mamljax.tasks.choice import choose
from mamljax.tasks.stored import Stored, stored_or_on_device
from mamljax.types import Array, Batch, Sampler, Task


def episodes(
    images: Array | np.ndarray | Stored,
    *,
    ways: int,
    shots: int,
    queries: int,
    counts: Array | np.ndarray | None = None,
    names: Sequence[str] | None = None,
    rotate: bool = False,
    augment: Augment | None = None,
    decode: Callable[[Array], Array] | None = None,
) -> Sampler:
    """A sampler of classification tasks: distinct classes, disjoint support and query images.

    Args:
      images: uint8 ``[C, M, H, W, ch]``, class by class; `Stored` ones stay on disk.
      ways: classes per task ``N``, labelled 0 to N - 1 in random order.
      shots: support images per class ``K``; inputs are ``[N * K, H, W, ch]``, labels ``[N * K]``.
      queries: query images per class ``Q``.
      counts: ``[C]``, images of each class; rows beyond are padding. All ``M`` by default.
      names: of the classes, for errors, such as those of `mamljax.data.load`.
      rotate: turn the images of each class by a random multiple of 90 degrees (Omniglot).
      augment: random changes of every image, see `tasks.augment`; for training alone.
      decode: from the bytes of a batch to floats; `unit_interval` by default.

    Raises:
      ArgumentError: if there are fewer classes than ways, or a class has fewer than K + Q images.
    """
    checks.at_least("ways", ways, 2)
    checks.at_least("shots", shots, 1)
    checks.at_least("queries", queries, 1)
    decode = unit_interval if decode is None else decode
    checks.is_function("decode", decode, "images -> inputs")
    if augment is not None:
        checks.is_function("augment", augment, "(key, images) -> images")
    counts = images_per_class(images, counts)
    if names is not None and len(names) != len(counts):
        raise ArgumentError(
            f"names must be one for each of the {len(counts)} classes; got {len(names)}."
        )
    num_classes, most = images.shape[:2]
    if num_classes < ways:
        raise ArgumentError(
            f"ways={ways} classes are needed per task, but the images are of {num_classes} "
            "classes: lower ways, or use a split with more classes."
        )
    if (fewest := counts.min()) < shots + queries:
        place = int(counts.argmin())
        name = place if names is None else repr(names[place])
        raise ArgumentError(
            f"shots + queries = {shots + queries} images are needed per class, but class "
            f"{name} has {fewest}: lower shots or queries, or leave the class out."
        )
    if rotate and images.shape[2] != images.shape[3]:
        raise ArgumentError(
            f"rotate needs square images; got {images.shape[2]} x {images.shape[3]}."
        )

    def sampler(images, counts, meta_params, key):
        del meta_params
        class_key, image_key, turn_key = jax.random.split(key, 3)
        classes, chosen = choose(class_key, image_key, counts, most, ways, shots + queries)
        drawn = images[classes[:, None], chosen]  # [N, K + Q, H, W, ch]
        if rotate:
            turns = jax.random.randint(turn_key, (ways,), 0, 4)
            drawn = jax.vmap(_turn)(drawn, turns)
        if augment is not None:
            drawn = augmented(augment, jax.random.fold_in(turn_key, 1), drawn)

        def batch(part, per_class):
            inputs = decode(part.reshape(-1, *part.shape[2:]))
            # Labels by NumPy: what is known when a program is compiled, a loss can check.
            found = Batch(inputs, np.repeat(np.arange(ways, dtype=np.int32), per_class))
            checks.leading_axis("what decode returns and its labels", found)
            return found

        return Task(batch(drawn[:, :shots], shots), batch(drawn[:, shots:], queries))

    # The images travel as an argument: as a constant they would be copied into every program.
    return Partial(sampler, stored_or_on_device(images), jnp.asarray(counts, jnp.int32))


def images_per_class(
    images: Array | np.ndarray | Stored, counts: Array | np.ndarray | None
) -> np.ndarray:
    """The checked number of images of each class, ``[C]``.

    Raises:
      ArgumentError: unless the images are uint8 ``[C, M, H, W, ch]`` and the counts fit them.
    """
    if getattr(images, "ndim", 0) != 5 or getattr(images, "dtype", None) != np.uint8:
        raise ArgumentError(
            "images must be a uint8 array of shape [C, M, H, W, ch]; got "
            f"{getattr(images, 'dtype', type(images).__name__)} of shape {np.shape(images)}."
        )
    num_classes, most = images.shape[:2]
    counts = np.full(num_classes, most) if counts is None else np.asarray(counts)
    integers = np.issubdtype(counts.dtype, np.integer)
    if (
        not integers
        or counts.shape != (num_classes,)
        or not np.all((counts >= 1) & (counts <= most))
    ):
        raise ArgumentError(
            f"counts must hold an integer from 1 to {most} for each of the {num_classes} classes; "
            f"got {counts.tolist()}."
        )
    return counts


def augmented(augment: Augment, key: Array, images: Array) -> Array:
    """Images ``[..., H, W, ch]``, each changed at random.

    Raises:
      ArgumentError: if that changes shape or type.
    """
    changed = augment(key, images.reshape(-1, *images.shape[-3:])).reshape(images.shape)
    if changed.dtype != images.dtype:
        raise ArgumentError(
            f"augment must return images of type {images.dtype}; got {changed.dtype}."
        )
    return changed


def unit_interval(images: Array) -> Array:
    """Bytes to numbers in [0, 1]."""
    return images.astype(jnp.float32) / 255.0


def _turn(images: Array, quarters: Array) -> Array:
    """Square images ``[K, H, W, ch]`` turned by `quarters` times 90 degrees."""
    turns = [lambda x, k=k: jnp.rot90(x, k, (1, 2)) for k in range(4)]
    return jax.lax.switch(quarters, turns, images)
