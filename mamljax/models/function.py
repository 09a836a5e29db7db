"""Plain functions as a `Model`."""

import inspect
from collections.abc import Callable

import jax

from mamljax import checks
from mamljax.checks import ArgumentError
from mamljax.types import Model, Params, PyTree


def from_function(
    apply: Callable[[Params, PyTree], PyTree],
    init: Callable[[jax.Array, PyTree], Params] | None = None,
) -> Model:
    """A model from a plain ``apply(params, inputs)``.

    Args:
      apply: the forward pass; it may also take the keywords ``key`` and ``step``.
      init: ``(key, inputs) -> params``; needed only by whoever asks the learner to initialise.
    """
    keywords = ("key", "step")
    checks.is_function("apply", apply, "(params, inputs) -> outputs", offered=keywords)
    asked = [name for name in keywords if name in inspect.signature(apply).parameters]

    def missing(key, inputs):
        raise ArgumentError(
            "this model was made by from_function without init, so it cannot make parameters: "
            "pass init=(key, inputs) -> params, or start from parameters of your own."
        )

    def apply_params(params, inputs, *, key=None, step=0):
        known = {"key": key, "step": step}
        return apply(params, inputs, **{name: known[name] for name in asked})

    return Model(init or missing, apply_params)
