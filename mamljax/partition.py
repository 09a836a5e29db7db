"""Partitions: which part of the meta-parameters adapts in the inner loop."""

import re
from collections.abc import Callable

import jax
import jax.numpy as jnp

from mamljax import checks
from mamljax.checks import ArgumentError
from mamljax.types import Params, Partition, PyTree


def all_parameters() -> Partition:
    """Every parameter adapts, as in MAML (Finn et al. 2017)."""
    return Partition(
        split=lambda meta_params: (meta_params, ()), merge=lambda adapting, _: adapting
    )


def by_path(select: str | Callable[[str], bool], *, name: str = "by_path: select") -> Partition:
    """Only the parameters whose path is selected adapt; the others are shared by all tasks.

    A path joins the keys down to a leaf with slashes, such as ``"Dense_2/kernel"``.

    Args:
      select: a regular expression searched in the path, or a predicate of the path.
      name: what errors call it.

    Raises:
      ArgumentError: when no path, or a malformed expression, is selected; the paths are listed.

    >>> by_path("head").split({"body": 1.0, "head": 2.0})
    ({'body': None, 'head': 2.0}, {'body': 1.0, 'head': None})
    """
    selected = _searching(select, name) if isinstance(select, str) else select
    checks.is_function(name, selected, "path -> bool, or a regular expression")
    return _selecting(selected, f"{name}={select!r}")


def all_but(pattern: str, *, name: str = "all_but: pattern") -> Partition:
    """Every parameter adapts but those in whose path the regular expression is found, if any.

    ``all_but("norm")`` shares the parameters of the norms between tasks, as the MAML authors'
    classification code does.

    Args:
      pattern: the regular expression.
      name: what errors call it.

    >>> all_but("norm").split({"dense": 1.0, "norm": 2.0})
    ({'dense': 1.0, 'norm': None}, {'dense': None, 'norm': 2.0})
    """
    excluded = _searching(pattern, name)
    return _selecting(lambda path: not excluded(path), f"{name}={pattern!r}")


def fresh_context(shape: tuple[int, ...]) -> Partition:
    """Only a context adapts, which begins every task at zero; all meta-parameters are shared.

    For models from `models.with_context`. The context is not meta-learned: the meta-parameters are
    those of the model without it.

    >>> adapting, shared = fresh_context((2,)).split({"kernel": 1.0})
    >>> print(adapting["context"])
    [0. 0.]
    """

    def split(meta_params: Params) -> tuple[PyTree, PyTree]:
        dtype = jnp.result_type(*jax.tree.leaves(meta_params))
        return {"context": jnp.zeros(shape, dtype)}, meta_params

    def merge(adapting: PyTree, shared: PyTree) -> Params:
        return {**adapting, "model": shared}

    return Partition(split, merge)


def _selecting(selected: Callable[[str], bool], what: str) -> Partition:
    def split(meta_params: Params) -> tuple[PyTree, PyTree]:
        mask = jax.tree_util.tree_map_with_path(
            lambda path, _: bool(selected(_path_name(path))), meta_params
        )
        if not any(jax.tree.leaves(mask)):
            paths = [_path_name(p) for p, _ in jax.tree_util.tree_leaves_with_path(meta_params)]
            raise ArgumentError(
                f"{what} selects none of the parameters {paths}, so nothing would adapt; select "
                "at least one of them."
            )
        adapting = jax.tree.map(lambda keep, leaf: leaf if keep else None, mask, meta_params)
        shared = jax.tree.map(lambda keep, leaf: None if keep else leaf, mask, meta_params)
        return adapting, shared

    def merge(adapting: PyTree, shared: PyTree) -> Params:
        return jax.tree.map(
            lambda a, b: b if a is None else a, adapting, shared, is_leaf=lambda x: x is None
        )

    return Partition(split, merge)


def _searching(pattern: str, name: str) -> Callable[[str], bool]:
    if not isinstance(pattern, str):
        raise ArgumentError(f"{name} must be a regular expression, as a string; got {pattern!r}.")
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ArgumentError(f"{name}={pattern!r} is not a regular expression: {error}.") from error
    return lambda path: compiled.search(path) is not None


def _path_name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
