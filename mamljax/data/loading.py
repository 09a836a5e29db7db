"""Image sets by name."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from mamljax import checks
from mamljax.checks import ArgumentError
from mamljax.data import cache, cifar100, cub, folders, miniimagenet, omniglot, tieredimagenet
from mamljax.data.cache import ImageSet
from mamljax.data.sources import ImageClass, Source
from mamljax.data.splits import SCHEMES, SPLITS, seventy_ten_twenty, split_names


def load(
    source: str,
    split: str,
    *,
    data_dir: str | os.PathLike | None = None,
    cache_dir: str | os.PathLike | None = None,
    scheme: str | None = None,
    download: bool = False,
    image_size: tuple[int, int] | None = None,
    grayscale: bool = False,
    resize: bool = False,
    fractions: Sequence[float] | None = None,
    seed: int = 0,
    on_disk: bool = False,
) -> ImageSet:
    """One split of an image set, as uint8 arrays by class.

    The first call decodes the images into `cache_dir`, which takes seconds to minutes; later ones
    read them from there, or prepare them anew if names or sizes of the files have changed.

    Args:
      source: ``"omniglot"`` (1623 classes of 20, 28 x 28, ink 255), ``"miniimagenet"`` (100 of 600,
        84 x 84 x 3), ``"cifar_fs"`` and ``"fc100"`` (both CIFAR-100: 100 of 600, 32 x 32 x 3),
        ``"tieredimagenet"`` (608 of 732 to 1,300, 84 x 84 x 3), ``"cub"`` (200 of 41 to 60, 84 x 84
        x 3), ``"glyphs"`` (drawn from fonts, no files needed) or ``"folder"`` (your own).
      split: ``"train"``, ``"validation"`` or ``"test"``.
      data_dir: where the files of the set are, themselves or in a folder named after it (for both
        CIFAR sets ``cifar100``). None takes what was prepared before.
      cache_dir: where prepared sets are kept; by default ``mamljax/data`` in ``$XDG_CACHE_HOME``
        or ``~/.cache``.
      scheme: which classes make a split; see `splits`.
      download: fetch what is missing of Omniglot into `data_dir`.
      image_size: for ``"folder"``: height and width.
      grayscale: for ``"folder"``: one channel instead of three.
      resize: for ``"folder"``: bring images of other sizes to `image_size`, instead of refusing
        them.
      fractions: for ``"folder"``, where all classes lie in ``train`` or in no split at all: the
        shares of train, validation and test, such as ``(0.8, 0.1, 0.1)``.
      seed: decides which class belongs to which of these.
      on_disk: leave the images on disk, as `mamljax.tasks.Stored`, and have samplers read
        those that they draw.

    Raises:
      ArgumentError: for unknown names or options that do not belong to the source.
      DataError: (a ValueError) if files are missing or broken, or the cache cannot be written.
    """
    checks.one_of("source", source, (*SOURCES, "folder"))
    if source != "folder" and (image_size or grayscale or resize or fractions):
        raise ArgumentError(
            f"image_size, grayscale, resize and fractions are for folder, not for {source}."
        )
    shares = folders.check_fractions(fractions) if fractions else None
    choose = _choice(source, split, scheme, shares, seed)
    folder = None if data_dir is None else _folder_of(source, Path(data_dir))
    if download:
        _download(source, folder)
    if source == "folder":
        described = _own(
            folder, image_size, grayscale=grayscale, resize=resize, divided=shares is not None
        )
    else:
        described = SOURCES[source]()
    place = cache.default_folder() if cache_dir is None else Path(cache_dir)
    found = cache.read(described, choose, folder, place, on_disk=on_disk)
    if source == "folder":
        prefix = f"{split if shares is None else 'train'}/"
        return found._replace(names=tuple(name.removeprefix(prefix) for name in found.names))
    return found


def _choice(
    source: str,
    split: str,
    scheme: str | None,
    fractions: tuple[float, float, float] | None,
    seed: int,
) -> cache.Choose:
    """The function that picks the class names of a split."""
    if source in SCHEMES:
        chosen = split_names(source, scheme)
        checks.one_of("split", split, chosen)
        return lambda names: chosen[split]
    checks.one_of("split", split, SPLITS)
    if scheme is not None:
        raise ArgumentError(f"{source} has no schemes; got scheme={scheme!r}.")
    if source == "glyphs":
        return lambda names: [name for name in names if seventy_ten_twenty(name) == split]
    if fractions is not None:
        return lambda names: folders.divided(names, split, fractions, seed)
    return lambda names: folders.of_split(names, split)


def _folder_of(source: str, data_dir: Path) -> Path:
    """The folder of a set: the one named after it in `data_dir`, or that itself."""
    named = data_dir / {"cifar_fs": "cifar100", "fc100": "cifar100"}.get(source, source)
    return named if source != "folder" and named.is_dir() else data_dir


def _download(source: str, folder: Path | None) -> None:
    if source != "omniglot":
        raise ArgumentError(f"download is for omniglot; the files of {source} go into data_dir.")
    if folder is None:
        raise ArgumentError("download needs data_dir, the folder to put the files into.")
    omniglot.download(folder)


def _own(folder: Path | None, size: tuple[int, int] | None, **options: bool) -> Source:
    if folder is None:
        raise ArgumentError("folder needs data_dir, the folder of your images.")
    if size is None or len(size) != 2:
        raise ArgumentError(f"folder needs image_size=(height, width); got {size!r}.")
    height, width = (checks.at_least("image_size", side, 1) for side in size)
    return folders.source(folder, (height, width), **options)


def _glyphs() -> Source:
    from mamljax.data import glyphs

    shape = (glyphs.SIDE, glyphs.SIDE, 1)

    def classes(files: list) -> list[ImageClass]:
        del files  # there are none: the images are drawn
        images, names = glyphs.draw()
        return [
            ImageClass(name, len(drawings), partial(np.asarray, drawings))
            for name, drawings in zip(names, images, strict=True)
        ]

    return Source("glyphs", f"glyphs-{glyphs.VERSION}", shape, None, classes)


SOURCES: dict[str, Callable[[], Source]] = {
    "omniglot": omniglot.source,
    "miniimagenet": miniimagenet.source,
    "cifar_fs": cifar100.source,
    "fc100": cifar100.source,
    "tieredimagenet": tieredimagenet.source,
    "cub": cub.source,
    "glyphs": _glyphs,
}
