"""The fully connected network: shapes, starting weights, norms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mamljax import models

KEY = jax.random.key(0)
INPUTS = jax.random.normal(jax.random.key(1), (7, 3))


def test_shapes_and_zero_biases():
    model = models.mlp((40, 30, 2))
    params = model.init(KEY, INPUTS)
    assert jax.tree.map(jnp.shape, params) == {
        "Dense_0": {"kernel": (3, 40), "bias": (40,)},
        "Dense_1": {"kernel": (40, 30), "bias": (30,)},
        "Dense_2": {"kernel": (30, 2), "bias": (2,)},
    }
    assert all(np.all(layer["bias"] == 0) for layer in params.values())
    assert model.apply(params, INPUTS).shape == (7, 2)


@pytest.mark.parametrize(
    ("options", "std", "largest"),
    [
        # Cutting a normal distribution at two standard deviations leaves 0.8796 of its own.
        ({"init": "truncated_normal"}, 0.008796, 0.02),
        ({"init": "truncated_normal", "init_std": 0.5}, 0.4398, 1.0),
        ({}, np.sqrt(2 / 400), np.sqrt(6 / 400)),  # Xavier: 2 / (fan in + fan out)
        ({"init": "he_normal"}, np.sqrt(2 / 200), 2 * np.sqrt(2 / 200) / 0.8796),
        ({"init": lambda key, shape, dtype: jnp.full(shape, 3.0, dtype)}, 0.0, 3.0),
    ],
    ids=["truncated_normal", "init_std", "xavier_uniform", "he_normal", "function"],
)
def test_distribution_of_the_starting_weights(options, std, largest):
    params = models.mlp((200, 1), **options).init(KEY, jnp.zeros((1, 200)))
    kernel = np.asarray(params["Dense_0"]["kernel"], np.float64)
    np.testing.assert_allclose(kernel.std(), std, rtol=0.02, atol=1e-12)
    # 40,000 draws come close to the bound, and never pass it.
    assert 0.98 * largest < np.abs(kernel).max() <= largest * (1 + 1e-6)


@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
def test_layers_by_hand(norm, activation):
    model = models.mlp((5, 2), norm=norm, activation=activation)
    params = model.init(KEY, INPUTS)
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    params = unravel(jax.random.normal(KEY, flat.shape))
    dense, last = params["Dense_0"], params["Dense_1"]
    scale, offset = (
        params["BatchNorm_0" if norm == "batch" else "LayerNorm_0"][name][None]
        for name in ("scale", "bias")
    )
    x = INPUTS @ dense["kernel"] + dense["bias"][None]
    axis, epsilon = (0, 1e-3) if norm == "batch" else (1, 1e-6)
    x = (x - x.mean(axis, keepdims=True)) / jnp.sqrt(x.var(axis, keepdims=True) + epsilon)
    x = getattr(jax.nn, activation)(x * scale + offset)
    expected = x @ last["kernel"] + last["bias"][None]
    np.testing.assert_allclose(model.apply(params, INPUTS), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        ((), {}, "features must name at least the output width"),
        ((40, 0), {}, "features must be an integer of at least 1; got 0"),
        ((40, 1.5), {}, "features must be an integer of at least 1; got 1.5"),
        ((1,), {"init": "xavier_unifrm"}, "init must be .*Did you mean 'xavier_uniform'"),
        ((1,), {"norm": "batchnorm"}, "norm must be .*Did you mean 'batch'"),
        ((1,), {"activation": "rellu"}, "activation must be .*Did you mean 'relu'"),
        ((1,), {"activation": "swish?"}, r"one of \['gelu', 'relu', 'tanh'\]; got 'swish\?'\.$"),
    ],
)
def test_wrong_arguments_are_explained(features, options, message):
    with pytest.raises(ValueError, match=message):
        models.mlp(features, **options)
