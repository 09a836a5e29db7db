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


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("offset", [False, True])
def test_norms_by_hand(norm, scale, offset, randomised):
    model = models.mlp((5, 2), norm=norm, norm_scale=scale, norm_offset=offset)
    params = randomised(model.init(KEY, INPUTS))
    x = affine(params["Dense_0"], INPUTS)
    own = params.get("norm_0", {})
    if norm == "none":
        assert own == {}
    else:
        names = {"scale": scale, "offset": offset}
        assert own.keys() == {name for name in names if names[name]}
        axis = 0 if norm == "batch" else 1
        x = (x - x.mean(axis, keepdims=True)) / np.sqrt(x.var(axis, keepdims=True) + 1e-3)
        x = x * np.asarray(own.get("scale", 1.0)) + np.asarray(own.get("offset", 0.0))
    expected = affine(params["Dense_1"], np.maximum(x, 0.0))
    np.testing.assert_allclose(model.apply(params, INPUTS), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu", "elu"])
def test_activations_by_hand(activation, randomised):
    model = models.mlp((5, 4, 2), activation=activation)
    params = randomised(model.init(KEY, INPUTS))
    x = INPUTS
    for layer in ("Dense_0", "Dense_1"):
        x = np.asarray(getattr(jax.nn, activation)(affine(params[layer], x)))
    expected = affine(params["Dense_2"], x)
    np.testing.assert_allclose(model.apply(params, INPUTS), expected, rtol=1e-4, atol=1e-5)


def affine(layer, x):
    return np.asarray(x) @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])


def test_norms_are_named_by_their_layer():
    # Whoever wants them shared or adapted finds them by "norm".
    params = models.mlp((4, 4, 4, 2), norm="batch").init(KEY, INPUTS)
    assert params.keys() == {*(f"Dense_{i}" for i in range(4)), *(f"norm_{i}" for i in range(3))}


def test_images_are_flattened(randomised):
    model = models.mlp((5, 2), norm="batch")
    images = np.random.default_rng(0).normal(size=(7, 4, 3, 2)).astype(np.float32)
    params = randomised(model.init(KEY, images))
    assert params["Dense_0"]["kernel"].shape == (24, 5)
    flat = model.apply(params, images.reshape(7, 24))
    np.testing.assert_array_equal(model.apply(params, images), flat)
    assert flat.shape == (7, 2)


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        ((), {}, "features must name at least the output width"),
        (40, {}, "features must be a sequence of integers of at least 1; got 40"),
        ((40, 0), {}, "features must be an integer of at least 1; got 0"),
        ((40, 1.5), {}, "features must be an integer of at least 1; got 1.5"),
        ((1,), {"init": "xavier_unifrm"}, "init must be .*Did you mean 'xavier_uniform'"),
        ((1,), {"init_std": -0.1}, "init_std must be a finite number >= 0; got -0.1"),
        ((1,), {"norm": "batchnorm"}, "norm must be .*Did you mean 'batch'"),
        ((1,), {"activation": "rellu"}, "activation must be .*Did you mean 'relu'"),
        (
            (1,),
            {"activation": "swish?"},
            r"one of \['elu', 'gelu', 'relu', 'tanh'\]; got 'swish\?'\.$",
        ),
    ],
)
def test_wrong_arguments_are_explained(features, options, message):
    with pytest.raises(ValueError, match=message):
        models.mlp(features, **options)
