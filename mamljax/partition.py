"""Partitions: which part of the meta-parameters adapts in the inner loop."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mamljax import checks
from mamljax.checks import ArgumentError
from mamljax.types import Params, Partition, PyTree, WithState


def all_parameters() -> Partition:
    """Every parameter adapts, as in MAML (Finn et al. 2017)."""
    return _selecting(lambda path: True)


def by_path(select: str | Callable[[str], bool], *, name: str = "by_path: select") -> Partition:
    """Only the parameters whose path is selected adapt; the others are shared by all tasks.

    A path joins the keys down to a leaf with slashes, such as ``"Dense_2/kernel"``. The state of a
    `WithState` is never selected, and the paths of its parameters begin below it.

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

    def refuse_none(paths):
        if not any(map(selected, paths)):
            raise ArgumentError(
                f"{name}={select!r} selects none of the parameters {paths}, so nothing would "
                "adapt; select at least one of them."
            )

    return _selecting(selected, refuse_none)


def all_but(pattern: str, *, name: str = "all_but: pattern") -> Partition:
    """Every parameter adapts but those in whose path the regular expression is found.

    ``all_but("norm")`` shares the parameters of the norms between tasks, as the MAML authors'
    classification code does. For a network that has none take `all_parameters`.

    Args:
      pattern: the regular expression.
      name: what errors call it.

    Raises:
      ArgumentError: when the expression is malformed, or is found in no path, or in all of them;
        the paths are listed.

    >>> all_but("norm").split({"dense": 1.0, "norm": 2.0})
    ({'dense': 1.0, 'norm': None}, {'dense': None, 'norm': 2.0})
    """
    excluded = _searching(pattern, name)

    def refuse_none_and_all(paths):
        found = [path for path in paths if excluded(path)]
        if not found:
            raise ArgumentError(
                f"{name}={pattern!r} is found in none of the parameters {paths}, so all would "
                "adapt; mend the expression, or say so by partition.all_parameters()."
            )
        if len(found) == len(paths):
            raise ArgumentError(
                f"{name}={pattern!r} is found in all of the parameters {paths}, so nothing would "
                "adapt; leave at least one of them out."
            )

    return _selecting(lambda path: not excluded(path), refuse_none_and_all)


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


def _selecting(
    selected: Callable[[str], bool], check: Callable[[list[str]], None] = lambda paths: None
) -> Partition:
    """Split by path; `check` is shown the paths of all parameters and may refuse."""

    def split(meta_params: Params) -> tuple[PyTree, PyTree]:
        paths = _paths(meta_params)
        check([path for path in jax.tree.leaves(paths) if path is not False])
        mask = jax.tree.map(lambda path: path is not False and bool(selected(path)), paths)
        adapting = jax.tree.map(lambda keep, leaf: leaf if keep else None, mask, meta_params)
        shared = jax.tree.map(lambda keep, leaf: None if keep else leaf, mask, meta_params)
        return adapting, shared

    def merge(adapting: PyTree, shared: PyTree) -> Params:
        return jax.tree.map(
            lambda a, b: b if a is None else a, adapting, shared, is_leaf=lambda x: x is None
        )

    return Partition(split, merge)


def _paths(meta_params: Params) -> PyTree:
    """Every parameter's path in its place; False where there is state."""

    def path_of(path, node, above=()):
        if isinstance(node, WithState):
            below = jax.tree_util.tree_map_with_path(
                lambda rest, leaf: path_of(rest, leaf, (*above, *path)), node.params
            )
            return WithState(below, jax.tree.map(lambda _: False, node.state))
        return jax.tree_util.keystr((*above, *path), simple=True, separator="/")

    return jax.tree_util.tree_map_with_path(
        path_of, meta_params, is_leaf=lambda x: isinstance(x, WithState)
    )


def _searching(pattern: str, name: str) -> Callable[[str], bool]:
    compiled = checks.regular_expression(name, pattern)
    return lambda path: compiled.search(path) is not None
