"""Free parameters among the inputs of a network."""

import jax.numpy as jnp

from mamljax import checks
from mamljax.checks import ArgumentError
from mamljax.types import Model


def with_context(model: Model, shape: tuple[int, ...]) -> Model:
    """A model with free parameters z concatenated to the last axis of its inputs.

    Its parameters are ``{"context": z, "model": the model's}``. z starts at 0: the weights it meets
    are random, so its entries learn differently from the first step.

    Batch normalisation after the first layer subtracts whatever all examples and positions share.
    For images take the full map ``(H, W, 3)``: a constant per channel, ``(1, 1, 3)``, would be
    erased, but for the borders where the convolution pads. For the same reason a context does
    nothing at all in a dense network with batch normalisation after its first layer.

    Args:
      model: takes inputs with that many more features or channels.
      shape: of z: ``(5,)`` for five more features of inputs ``[K, D]`` or ``[E, H, D]``,
        ``(H, W, 3)`` for three more channels of images ``[K, H, W, C]``. An axis of length 1 is
        repeated.

    Raises:
      ArgumentError: for what is no model, an empty shape, or one that does not fit the inputs.
    """
    checks.is_model("model", model)
    shape = checks.sizes("shape", shape)
    if not shape:
        raise ArgumentError("shape must name at least the number of features; got an empty tuple.")

    def extended(context, inputs):
        if inputs.ndim <= len(shape) or any(
            length not in (1, found)
            for length, found in zip(shape[:-1], inputs.shape[-len(shape) : -1], strict=True)
        ):
            raise ArgumentError(
                f"a context of shape {shape} does not fit inputs of shape {inputs.shape}: give it "
                "the inputs' shape without the examples, but its own number of features."
            )
        context = jnp.broadcast_to(context, (*inputs.shape[:-1], shape[-1]))
        return jnp.concatenate([inputs, context.astype(inputs.dtype)], axis=-1)

    def init(key, inputs):
        context = jnp.zeros(shape, inputs.dtype)
        return {"context": context, "model": model.init(key, extended(context, inputs))}

    def apply(params, inputs, *, key=None, step=0):
        inputs = extended(params["context"], inputs)
        return model.apply(params["model"], inputs, key=key, step=step)

    def condition(params, inputs, step=0):
        assert model.condition is not None
        inputs = extended(params["context"], inputs)
        return params | {"model": model.condition(params["model"], inputs, step)}

    return Model(init, apply, model.condition and condition)
