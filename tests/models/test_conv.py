"""The convolutional networks: sizes, starting weights, a plain Flax twin, meta-gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from mamljax import Batch, Task, losses, maml, models
from mamljax.models import conv_net, miniimagenet_net, omniglot_net
from mamljax.partition import all_but

KEY = jax.random.key(4)
CHARACTERS, PHOTOGRAPHS = (6, 28, 28, 1), (6, 84, 84, 3)


def shapes_of(model, inputs):
    return jax.eval_shape(model.init, KEY, jax.ShapeDtypeStruct(inputs, jnp.float32))


def outputs_shape(model, inputs):
    images = jax.ShapeDtypeStruct(inputs, jnp.float32)
    return jax.eval_shape(model.apply, shapes_of(model, inputs), images).shape


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


# ---------------------------------------------------------------------------------------------
# Sizes and starting weights.


@pytest.mark.parametrize(
    ("model", "inputs", "weights", "offsets"),
    [
        (omniglot_net(5), CHARACTERS, 111_749, 256),
        (omniglot_net(20), CHARACTERS, 112_724, 256),
        (miniimagenet_net(5), PHOTOGRAPHS, 32_645, 128),
        (
            models.mlp((256, 128, 64, 64, 5), init="truncated_normal", norm="batch"),
            CHARACTERS,
            246_597,
            512,
        ),
    ],
    ids=["omniglot, 5 ways", "omniglot, 20 ways", "miniimagenet", "omniglot, no convolution"],
)
def test_networks_of_the_paper_have_their_number_of_parameters(model, inputs, weights, offsets):
    adapting, shared = all_but("norm").split(shapes_of(model, inputs))
    assert (count(adapting), count(shared)) == (weights, offsets)
    assert outputs_shape(model, inputs)[0] == 6


def test_names_and_shapes_of_the_parameters():
    params = shapes_of(omniglot_net(5, norm_scale=True), CHARACTERS)
    norm = {"scale": (64,), "offset": (64,)}
    expected = {
        f"block_{i}": {
            "conv": {"kernel": (3, 3, 64 if i else 1, 64), "bias": (64,)},
            "norm": norm,
        }
        for i in range(4)
    }
    expected["head"] = {"kernel": (64, 5), "bias": (5,)}
    assert jax.tree.map(jnp.shape, params) == expected
    mini = shapes_of(miniimagenet_net(5), PHOTOGRAPHS)
    assert mini["head"]["kernel"].shape == (5 * 5 * 32, 5)


@pytest.mark.parametrize(
    ("model", "inputs", "features"),
    [
        (omniglot_net(7), CHARACTERS, 7),
        (omniglot_net(None), CHARACTERS, 64),
        (miniimagenet_net(None), PHOTOGRAPHS, 800),
        (miniimagenet_net(None, readout="mean", filters=8), PHOTOGRAPHS, 8),
        # Halves are rounded up by a stride, 13-7-4 by 10-5-3, and down by pooling, 6-3 by 5-2.
        (conv_net(None, filters=2, blocks=2, readout="flatten"), (6, 13, 10, 2), 4 * 3 * 2),
        (
            conv_net(None, filters=2, blocks=2, readout="flatten", downsample="max_pool"),
            (6, 13, 10, 2),
            3 * 2 * 2,
        ),
    ],
)
def test_shapes(model, inputs, features):
    assert outputs_shape(model, inputs) == (6, features)


def test_without_outputs_it_is_the_embedding_before_the_head():
    images = np.random.default_rng(1).normal(size=(4, 8, 8, 1)).astype(np.float32)
    whole, embedding = (conv_net(n, filters=3, blocks=1) for n in (2, None))
    params = jax.jit(whole.init)(KEY, images)
    body = {name: value for name, value in params.items() if name != "head"}
    features = embedding.apply(body, images)
    expected = features @ params["head"]["kernel"]  # the bias starts at 0
    np.testing.assert_allclose(whole.apply(params, images), expected, rtol=1e-5)
    assert jax.tree.structure(shapes_of(embedding, images.shape)) == jax.tree.structure(body)


@pytest.mark.parametrize(
    ("model", "inputs", "head_std"),
    [
        (omniglot_net(20), CHARACTERS, 1.0),
        (miniimagenet_net(20), PHOTOGRAPHS, np.sqrt(2 / 820)),  # Xavier: 2 / (fan in + fan out)
        (conv_net(20, filters=64, head_init=linen.initializers.normal(0.1)), CHARACTERS, 0.1),
    ],
    ids=["omniglot", "miniimagenet", "own"],
)
def test_starting_weights(model, inputs, head_std):
    params = jax.jit(model.init)(KEY, jnp.zeros(inputs))
    for name, block in params.items():
        if name == "head":
            kernel, bias = block["kernel"], block["bias"]
            np.testing.assert_allclose(np.std(kernel), head_std, rtol=0.05)
        else:
            kernel, bias = block["conv"]["kernel"], block["conv"]["bias"]
            bound = np.sqrt(6 / (9 * sum(kernel.shape[2:])))
            assert 0.98 * bound < np.abs(kernel).max() <= bound * (1 + 1e-6)
            np.testing.assert_allclose(np.std(kernel), bound / np.sqrt(3), rtol=0.05)
            np.testing.assert_array_equal(block["norm"]["offset"], 0.0)
        np.testing.assert_array_equal(bias, 0.0)
        np.testing.assert_allclose(np.mean(kernel), 0.0, atol=0.1 * np.std(kernel))


# ---------------------------------------------------------------------------------------------
# The same network, written with what Flax has.


class Twin(linen.Module):
    """Two blocks of Flax layers, for three classes."""

    downsample: str
    norm: str
    scale: bool

    @linen.compact
    def __call__(self, x):
        pooled = self.downsample == "max_pool"
        for _ in range(2):
            x = linen.Conv(4, (3, 3), 1 if pooled else 2, padding="SAME")(x)
            if self.norm == "batch":
                x = linen.BatchNorm(use_running_average=False, use_scale=self.scale, epsilon=1e-3)(
                    x
                )
            elif self.norm == "layer":
                x = linen.LayerNorm(
                    use_scale=self.scale, epsilon=1e-3, reduction_axes=(1, 2, 3), feature_axes=-1
                )(x)
            x = linen.relu(x)
            if pooled:
                x = linen.max_pool(x, (2, 2), (2, 2))
        x = x.reshape(len(x), -1) if pooled else jnp.mean(x, (1, 2))
        return linen.Dense(3)(x)


def as_twin(params, norm):
    """Our parameters under the names Flax gives to its layers."""
    layer = "BatchNorm" if norm == "batch" else "LayerNorm"
    renamed = {"Dense_0": params["head"]}
    for index in range(2):
        block = params[f"block_{index}"]
        renamed[f"Conv_{index}"] = block["conv"]
        if "norm" in block:
            own_name = {"offset": "bias", "scale": "scale"}
            renamed[f"{layer}_{index}"] = {
                own_name[name]: value for name, value in block["norm"].items()
            }
    return renamed


@pytest.mark.parametrize("downsample", ["stride", "max_pool"])
@pytest.mark.parametrize(
    ("norm", "scale"),
    [("batch", False), ("batch", True), ("layer", False), ("layer", True), ("none", False)],
)
def test_equals_a_network_of_flax_layers(downsample, norm, scale, randomised):
    readout = "flatten" if downsample == "max_pool" else "mean"
    model = conv_net(
        3, filters=4, blocks=2, downsample=downsample, readout=readout, norm=norm, norm_scale=scale
    )
    images = np.random.default_rng(1).normal(size=(5, 9, 10, 2)).astype(np.float32)
    params = randomised(shapes_of(model, images.shape))
    assert ("norm" in params["block_0"]) == (norm != "none")
    twin = models.from_linen(Twin(downsample, norm, scale))
    expected = jax.jit(twin.apply)(as_twin(params, norm), images)
    found = jax.jit(model.apply)(params, images)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("outputs", "options", "message"),
    [
        (0, {}, "outputs must be an integer of at least 1; got 0"),
        (5, {"filters": 0}, "filters must be an integer of at least 1; got 0"),
        (5, {"blocks": 1.5}, "blocks must be an integer of at least 1; got 1.5"),
        (5, {"downsample": "maxpool"}, "downsample must be .*Did you mean 'max_pool'"),
        (5, {"readout": "flat"}, "readout must be .*Did you mean 'flatten'"),
        (5, {"norm": "batchnorm"}, "norm must be .*Did you mean 'batch'"),
    ],
)
@pytest.mark.parametrize("build", [omniglot_net, miniimagenet_net])
def test_wrong_arguments_are_explained(build, outputs, options, message):
    with pytest.raises(ValueError, match=message):
        build(outputs, **options)


# ---------------------------------------------------------------------------------------------
# Meta-gradients.


def random_tasks(num_tasks):
    """Three-way two-shot tasks of noise, ``[T, 6, 8, 8, 1]``."""
    rng, labels = np.random.default_rng(1), np.tile(np.repeat(np.arange(3), 2), (num_tasks, 1))
    images = rng.normal(size=(2, num_tasks, 6, 8, 8, 1))
    return Task(*(Batch(jnp.asarray(x), jnp.asarray(labels)) for x in images))


@pytest.fixture
def setting(randomised):
    """A tiny learner with any options of the network and of `maml`, its parameters, two tasks."""

    def build(net, **options):
        model, tasks = conv_net(3, filters=3, blocks=2, **net), random_tasks(2)
        learner = maml(model, losses.cross_entropy, inner_lr=0.2, **options)
        inputs = tasks.support.inputs[0]
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, inputs.dtype), shapes_of(model, inputs.shape)
        )
        # Offsets are not left at 0, where their gradients would hide a missing factor.
        return learner, randomised(shapes), tasks

    return build


POOLED = {"downsample": "max_pool", "readout": "flatten"}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("net", "num_steps", "adapt_norm"),
    [
        ({}, 1, False),
        ({}, 3, True),
        (POOLED, 1, True),
        (POOLED, 3, False),
        (POOLED | {"norm": "layer", "norm_scale": True}, 2, True),
    ],
    ids=str,
)
def test_meta_gradient_is_that_of_finite_differences(
    net, num_steps, adapt_norm, setting, assert_finite_differences
):
    partition = None if adapt_norm else all_but("norm")
    assert_finite_differences(*setting(net, num_steps=num_steps, partition=partition))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("net", "adapt_norm"), [({}, False), (POOLED, True)], ids=str)
def test_first_order_gradient_is_the_query_gradient_at_the_adapted_parameters(
    net, adapt_norm, setting, assert_close
):
    partition = None if adapt_norm else all_but("norm")
    learner, params, tasks = setting(net, num_steps=2, first_order=True, partition=partition)

    def query_gradient(task):
        adapted = learner.adapt(params, task.support, KEY).params
        return jax.grad(learner.loss)(adapted, task.query, None, 2)

    expected = jax.tree.map(lambda g: g.mean(0), jax.jit(jax.vmap(query_gradient))(tasks))
    gradient, _ = jax.jit(learner.meta_gradient)(params, tasks, KEY)
    # Biases before a batch norm change nothing: what is left there is rounding.
    found, expected = (all_but("conv/bias").split(tree)[0] for tree in (gradient, expected))
    assert_close(found, expected, 1e-10)


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
def test_a_prediction_depends_on_its_batch_only_under_batch_norm(norm, setting):
    learner, params, tasks = setting({"norm": norm})
    images = np.asarray(tasks.query.inputs[0])
    neighbours = np.concatenate([images[:1], 2 * images[1:]])
    predict = jax.jit(learner.predict)
    first, other = (np.asarray(predict(params, x))[0] for x in (images, neighbours))
    if norm == "batch":
        assert np.all(np.abs(first - other) > 1e-3)
    else:
        np.testing.assert_allclose(first, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("readout", ["mean", "flatten"])
def test_pooling_all_of_the_image_away_is_refused(readout):
    net = models.conv_net(5, filters=3, downsample="max_pool", readout=readout)
    with pytest.raises(ValueError, match="4 blocks leave nothing of the images"):
        net.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
