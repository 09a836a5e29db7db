"""Parameters as plain named arrays: to a file, and from networks that others have trained."""

import json
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mamljax import files
from mamljax.checks import ArgumentError
from mamljax.types import Params

_DESCRIPTION = "description.json"

_PUBLISHED = {
    "kernel": re.compile(r"(?:^|/)conv(\d+)(?::0)?$"),
    "bias": re.compile(r"(?:^|/)b(\d+)(?::0)?$"),
    "unnamed": re.compile(r"(?:^|/)Variable(?:_(\d+))?(?::0)?$"),
    "offset": re.compile(r"(\d+)[_/.](?:beta|offset)(?::0)?$"),
    "head": re.compile(r"(?:^|/)w(\d+)(?::0)?$"),
}
"""Names of the authors' variables; TensorFlow adds scopes in front and ``:0`` behind, and calls the
biases of convolutions, to which they gave no name, ``Variable``, ``Variable_1``, ..."""


def to_arrays(params: Params) -> dict[str, np.ndarray]:
    """Parameters by path, such as ``block_0/conv/kernel``, in its order.

    Any pytree of numbers: dictionaries, lists, tuples, NNX states. Numbers that NumPy has no type
    for (bfloat16, float8) become the next wider ones that it has; keys become their data.

    Raises:
      ArgumentError: for a leaf that is no array of numbers, or two leaves of one path.
    """
    arrays = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = _name(path)
        if name in arrays:
            raise ArgumentError(
                f"two parameters have the path {name!r}, so that a file cannot tell them apart: "
                "rename one."
            )
        arrays[name] = _plain(name, leaf)
    return dict(sorted(arrays.items()))


def from_arrays(arrays: Mapping[str, Any], like: Params, *, partial: bool = False) -> Params:
    """Parameters of a network from named arrays, as `to_arrays` or the MAML authors name them.

    The authors' names are for `omniglot_net` and `miniimagenet_net`, with any scope in front:
    kernels ``conv1`` to ``conv4`` (HWIO); their biases ``b1`` to ``b4``, or, as the checkpoint of
    their TensorFlow code has them, ``Variable``, ``Variable_1`` to ``Variable_3``; the norms'
    offsets ``0/beta`` to ``3/beta`` (or ``0_beta``); the output layer ``w5`` and ``b5``. Other
    arrays of a checkpoint, such as those of optimizers, are left aside.

    Args:
      arrays: arrays by name.
      like: parameters of the same network, such as fresh ones, or their shapes.
      partial: parameters that `arrays` lacks keep the values of `like`, which has to have values
        for them; at least one has to come.

    Raises:
      ArgumentError: naming every array that is missing or has another shape than the network.

    >>> from mamljax import models
    >>> net = models.miniimagenet_net(5)
    >>> like = jax.eval_shape(net.init, jax.random.key(0), np.zeros((1, 84, 84, 3), np.float32))
    >>> arrays = {"model/conv1": np.ones((3, 3, 3, 32)), "model/w5": np.ones((800, 5))}
    >>> arrays |= {f"model/conv{i}": np.ones((3, 3, 32, 32)) for i in (2, 3, 4)}
    >>> arrays |= {f"model/Variable{i}": np.ones(32) for i in ("", "_1", "_2", "_3")}
    >>> arrays |= {f"model/{i}/beta": np.zeros(32) for i in range(4)} | {"model/b5": np.ones(5)}
    >>> from_arrays(arrays, like)["head"]["kernel"].shape
    (800, 5)
    """
    leaves = {_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(like)}
    named = arrays if leaves.keys() & arrays.keys() else _from_published(arrays)
    without_values = {name for name, x in leaves.items() if isinstance(x, jax.ShapeDtypeStruct)}
    lacking = leaves.keys() - named.keys()
    if not partial or lacking == leaves.keys():
        without_values = lacking
    wrong = [
        f"  {name}: expected {_shape(leaf)}, got "
        + (str(np.shape(named[name])) if name in named else "nothing")
        for name, leaf in leaves.items()
        if (name in lacking & without_values)
        or (name in named and np.shape(named[name]) != _shape(leaf))
    ]
    if wrong:
        raise ArgumentError(
            "the arrays do not fit the network:\n"
            + "\n".join(wrong)
            + f"\nThere are {', '.join(sorted(arrays)) or 'none'}."
        )
    found = [_like(named[name], x) if name in named else x for name, x in leaves.items()]
    return jax.tree.unflatten(jax.tree.structure(like), found)


def _from_published(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays under the authors' names, by the paths of `conv_net`."""
    found: dict[str, dict[int, Any]] = {kind: {} for kind in _PUBLISHED}
    for name, array in arrays.items():
        for kind, pattern in _PUBLISHED.items():
            if match := pattern.search(name):
                found[kind][int(match.group(1) or 0)] = array
    named = {}
    for number, kernel in found["kernel"].items():
        named[f"block_{number - 1}/conv/kernel"] = kernel
        bias = found["bias"].get(number, found["unnamed"].get(number - 1))
        named[f"block_{number - 1}/conv/bias"] = bias
    named |= {f"block_{i}/norm/offset": offset for i, offset in found["offset"].items()}
    for number, kernel in found["head"].items():
        named |= {"head/kernel": kernel, "head/bias": found["bias"].get(number)}
    return {name: array for name, array in named.items() if array is not None}


def save(path: Path, params: Params, description: Mapping[str, Any] | None = None) -> None:
    """Write parameters as ``.npz``, see `to_arrays`.

    The file is replaced in one piece: if parameters are refused, or the disk is full, the old one
    stays.

    Args:
      path: of the file.
      params: to be written.
      description: what JSON can hold, kept in the file beside the arrays, see `description_of`.

    Raises:
      ArgumentError: for another kind of file, or parameters that no file can hold.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise ArgumentError(f"weights are saved as .npz files; got {path}: name it so.")
    arrays = to_arrays(params)
    # Not by np.savez, whose own arguments would be taken for parameters of the same name.
    with files.staged(path) as staging, zipfile.ZipFile(staging, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
        if description is not None:
            entry = zipfile.ZipInfo(_DESCRIPTION)  # without the time: equal runs, equal files
            archive.writestr(entry, json.dumps(description, indent=1))


def description_of(path: Path) -> dict[str, Any] | None:
    """Return the description that `save` put into a file; None for a file that has none.

    Raises:
      ArgumentError: for a file that is no ``.npz``, or is broken.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if _DESCRIPTION not in archive.namelist():
                return None
            found = json.loads(archive.read(_DESCRIPTION))
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ArgumentError(f"{path} cannot be read as an .npz file: {error}.") from error
    return found if isinstance(found, dict) else None


def load(path: Path, like: Params, *, partial: bool = False) -> Params:
    """Read parameters from a file, see `read` and `from_arrays`."""
    return from_arrays(read(path), like, partial=partial)


def read(path: Path) -> dict[str, Any]:
    """Read all arrays of an ``.npz`` or ``.safetensors`` file, by name.

    Raises:
      ArgumentError: for another kind of file, or without the package that reads this one.
    """
    path = Path(path)
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files if name != _DESCRIPTION}
    if path.suffix == ".safetensors":
        try:
            from safetensors.flax import load_file
        except ImportError as error:
            raise ArgumentError(
                f"reading {path} needs the package safetensors: pip install "
                "'mamljax[safetensors]', or convert the file to .npz."
            ) from error
        return dict(load_file(path))
    raise ArgumentError(
        f"weights are read from .npz and .safetensors files; got {path}. The FAQ says how to "
        "convert a checkpoint of TensorFlow."
    )


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _plain(name: str, leaf: Any) -> np.ndarray:
    """A leaf as an array of NumPy's own types."""
    array = np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
    if array.dtype.kind == "V" and jnp.issubdtype(array.dtype, jnp.number):
        wide = np.float32 if jnp.issubdtype(array.dtype, jnp.floating) else np.int8
        return array.astype(wide)  # which holds each of the narrow values
    if array.dtype.kind not in "biufc":
        raise ArgumentError(
            f"{name or 'params'} is not an array of numbers, and cannot be saved; got "
            f"{type(leaf).__name__} of dtype {array.dtype}."
        )
    return array


def _shape(leaf: Any) -> tuple[int, ...]:
    """The shape in which a leaf is saved."""
    return jax.eval_shape(jax.random.key_data, leaf).shape if _is_key(leaf) else np.shape(leaf)


def _like(array: Any, leaf: Any) -> jax.Array:
    if _is_key(leaf):
        return jax.random.wrap_key_data(
            jnp.asarray(array), impl=jax.random.key_impl(jnp.empty((), leaf.dtype))
        )
    return jnp.asarray(array, jnp.result_type(leaf))
