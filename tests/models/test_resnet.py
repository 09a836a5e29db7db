"""ResNet-12: the published number of parameters, the same numbers as a plain twin, its choices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mamljax import Batch, Task, losses, maml
from mamljax.checks import ArgumentError
from mamljax.models import resnet12
from mamljax.partition import all_but

KEY = jax.random.key(0)
WIDTHS = (2, 3, 4, 5)


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def shapes_of(model, side=84):
    return jax.eval_shape(model.init, KEY, jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32))


def published(widths):
    """Convolutions of three by three, thrice, and of one by one, and four norms, in each block."""
    inputs = (3, *widths)
    return sum(
        9 * a * b + 2 * 9 * b * b + a * b + 4 * 2 * b for a, b in zip(inputs, widths, strict=False)
    )


def test_it_has_the_published_number_of_parameters():
    assert count(shapes_of(resnet12(None))) == published((64, 160, 320, 640)) == 12_424_320
    assert count(shapes_of(resnet12(5))) == 12_424_320 + 640 * 5 + 5
    narrow = (64, 128, 256, 512)
    assert count(shapes_of(resnet12(None, widths=narrow))) == published(narrow)
    _, shared = all_but("norm").split(shapes_of(resnet12(5)))
    assert count(shared) == 4 * 2 * (64 + 160 + 320 + 640)


@pytest.mark.parametrize(("readout", "features"), [("mean", 640), ("flatten", 640 * 5 * 5)])
def test_features_of_84_by_84(readout, features):
    model = resnet12(None, readout=readout)
    images = jax.ShapeDtypeStruct((2, 84, 84, 3), jnp.float32)
    assert jax.eval_shape(model.apply, shapes_of(model), images).shape == (2, features)


def twin(params, x):
    """The same network in the words of its paper, by `lax`."""

    def conv(x, part):
        x = jax.lax.conv_general_dilated(
            x, part["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = (x - x.mean((0, 1, 2), keepdims=True)) / jnp.sqrt(
            x.var((0, 1, 2), keepdims=True) + 1e-5
        )
        return x * part["norm"]["scale"].reshape(1, 1, 1, -1) + part["norm"]["offset"].reshape(
            1, 1, 1, -1
        )

    def leaky(x):
        return jnp.maximum(x, 0.1 * x)

    for i in range(4):
        block = params[f"block_{i}"]
        out = leaky(conv(leaky(conv(x, block["conv_0"])), block["conv_1"]))
        x = leaky(conv(out, block["conv_2"]) + conv(x, block["shortcut"]))
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return x.mean((1, 2)) @ params["head"]["kernel"] + params["head"]["bias"].reshape(1, -1)


def test_it_computes_what_its_twin_does(randomised):
    model = resnet12(3, widths=WIDTHS)
    images = jax.random.normal(KEY, (4, 17, 17, 3))
    params = randomised(shapes_of(model, side=17))  # compiling init would take longer than the rest
    found, expected = jax.jit(lambda p, x: (model.apply(p, x), twin(p, x)))(params, images)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("norm", "parts"), [("batch", {"norm"}), ("layer", {"norm"}), ("none", {"bias"})]
)
def test_a_norm_or_a_bias_follows_every_convolution(norm, parts):
    for layer in shapes_of(resnet12(None, widths=WIDTHS, norm=norm))["block_2"].values():
        assert layer.keys() == parts | {"kernel"}


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
def test_it_meta_learns_with_every_norm(norm):
    model = resnet12(2, widths=(2, 2, 2, 2), norm=norm)
    images = jax.random.normal(KEY, (1, 4, 16, 16, 3))
    labels = jnp.tile(jnp.arange(2), 2)[None]
    params = model.init(KEY, images[0])
    learner = maml(model, losses.cross_entropy, inner_lr=0.1)
    data = Batch(images, labels)
    gradient, metrics = jax.jit(learner.meta_gradient)(params, Task(data, data), KEY)
    assert np.isfinite(metrics.loss)
    assert all(np.any(np.asarray(leaf) != 0) for leaf in jax.tree.leaves(gradient["head"]))


def test_wrong_arguments():
    for options in ({"widths": (2, 0)}, {"norm": "bach"}, {"readout": "max"}, {"norm_steps": 0}):
        with pytest.raises(ArgumentError):
            resnet12(5, **options)
    with pytest.raises(ArgumentError, match="use images of at least 16 pixels"):
        shapes_of(resnet12(5, widths=WIDTHS), side=12)
