"""Parameters as plain named arrays: to a file, and from networks that others have trained."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mamljax.checks import ArgumentError
from mamljax.types import Params

_PUBLISHED = {
    "kernel": re.compile(r"(?:^|/)conv(\d+)(?::0)?$"),
    "bias": re.compile(r"(?:^|/)b(\d+)(?::0)?$"),
    "offset": re.compile(r"(\d+)[_/.](?:beta|offset)(?::0)?$"),
    "head": re.compile(r"(?:^|/)w(\d+)(?::0)?$"),
}
"""Names of the authors' variables; TensorFlow adds scopes in front and ``:0`` behind."""


def to_arrays(params: Params) -> dict[str, np.ndarray]:
    """Parameters by path, such as ``block_0/conv/kernel``, in its order."""
    return {name: np.asarray(leaf) for name, leaf in sorted(_by_path(params).items())}


def from_arrays(arrays: Mapping[str, Any], like: Params) -> Params:
    """Parameters of a network from named arrays, as `to_arrays` or the MAML authors name them.

    The authors' names are for `omniglot_net` and `miniimagenet_net`: kernels ``conv1`` to
    ``conv4`` (HWIO), their biases ``b1`` to ``b4``, the norms' offsets ``0_beta`` to ``3_beta``
    (or ``0/beta``), the output layer ``w5`` and ``b5``. Other arrays of a checkpoint, such as
    those of optimizers, are left aside.

    Args:
      arrays: arrays by name.
      like: parameters of the same network, such as fresh ones, or their shapes.

    Raises:
      ArgumentError: naming every array that is missing or has another shape than the network.

    >>> from mamljax import models
    >>> net = models.miniimagenet_net(5)
    >>> like = jax.eval_shape(net.init, jax.random.key(0), np.zeros((1, 84, 84, 3), np.float32))
    >>> arrays = {"conv1": np.ones((3, 3, 3, 32)), "w5": np.ones((800, 5)), "b5": np.ones(5)}
    >>> arrays |= {f"conv{i}": np.ones((3, 3, 32, 32)) for i in (2, 3, 4)}
    >>> arrays |= {f"b{i + 1}": np.ones(32) for i in range(4)}
    >>> arrays |= {f"{i}_beta": np.zeros(32) for i in range(4)}
    >>> from_arrays(arrays, like)["head"]["kernel"].shape
    (800, 5)
    """
    expected = _by_path(like)
    named = dict(arrays) if expected.keys() <= arrays.keys() else _from_published(arrays)
    wrong = [
        f"  {name}: expected {leaf.shape}, got "
        + (str(np.shape(named[name])) if name in named else "nothing")
        for name, leaf in expected.items()
        if name not in named or np.shape(named[name]) != leaf.shape
    ]
    if wrong:
        raise ArgumentError(
            "the arrays do not fit the network:\n"
            + "\n".join(wrong)
            + f"\nThere are {', '.join(sorted(arrays)) or 'none'}."
        )
    leaves = [jax.numpy.asarray(named[name], leaf.dtype) for name, leaf in expected.items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _by_path(params: Params) -> dict[str, Any]:
    """Leaves by the names down to them, of dictionaries and of tuples with names alike."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _from_published(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays under the authors' names, by the paths of `conv_net`."""
    found: dict[str, dict[int, Any]] = {kind: {} for kind in _PUBLISHED}
    for name, array in arrays.items():
        for kind, pattern in _PUBLISHED.items():
            if match := pattern.search(name):
                found[kind][int(match.group(1))] = array
    named = {}
    for number, kernel in found["kernel"].items():
        named[f"block_{number - 1}/conv/kernel"] = kernel
        named[f"block_{number - 1}/conv/bias"] = found["bias"].get(number)
    named |= {f"block_{i}/norm/offset": offset for i, offset in found["offset"].items()}
    for number, kernel in found["head"].items():
        named |= {"head/kernel": kernel, "head/bias": found["bias"].get(number)}
    return {name: array for name, array in named.items() if array is not None}


def save(path: Path, params: Params) -> None:
    """Write parameters as ``.npz``, see `to_arrays`."""
    arrays: dict[str, Any] = to_arrays(params)
    np.savez(path, **arrays)


def load(path: Path, like: Params) -> Params:
    """Read parameters from an ``.npz`` file, see `from_arrays`."""
    with np.load(path, allow_pickle=False) as arrays:
        return from_arrays(dict(arrays), like)
