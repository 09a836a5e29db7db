"""Whether a split of an image set has enough classes, of enough images, for the tasks of a run."""

from collections.abc import Sequence

from mamljax.data import ImageSet

NAMED = 5
"""Classes that an error names."""


def lacking(split: str, images: ImageSet, ways: int, per_class: int) -> list[str]:
    """What a split lacks for tasks of `ways` classes with `per_class` images: a line for each."""
    found = []
    if len(images.names) < ways:
        found.append(f"{split} has {_classes(images.names)}; a task takes {ways}")
    small = [name for name, n in zip(images.names, images.counts, strict=True) if n < per_class]
    if small:
        fewest = int(images.counts.min())
        found.append(
            f"{split} has {_classes(small)} with fewer than the {per_class} images that a task "
            f"takes of each, the fewest {fewest}"
        )
    return found


def _classes(names: Sequence[str]) -> str:
    listed = ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
    return f"{len(names)} {'class' if len(names) == 1 else 'classes'} ({listed})"
