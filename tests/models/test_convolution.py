"""Convolution in its forms: equal to `lax` in value and every derivative."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from jax.test_util import check_grads

from mamljax.models import convolution, max_pool
from mamljax.models.convolution import FORMS

# The module, whose name the function of the package hides.
convolutions = sys.modules["mamljax.models.convolution"]


def draw(*shapes):
    rng = np.random.default_rng(0)
    return tuple(jnp.asarray(rng.normal(size=shape)) for shape in shapes)


def orders(form, stride):
    """``(images, kernel) ->`` value, gradient and Hessian times gradient of a function of them.

    The convolution is bent by tanh, so that the derivatives of second order are there in both
    arguments; reverse mode over reverse mode, as in MAML, and forward mode over it.
    """

    def loss(images, kernel):
        value = convolution(images, kernel, stride=stride, form=form)
        return jnp.sum(jnp.tanh(value)), value

    def every(images, kernel):
        derivative = jax.grad(loss, (0, 1), has_aux=True)
        gradient, pull, value = jax.vjp(derivative, images, kernel, has_aux=True)
        pushed = jax.jvp(derivative, (images, kernel), gradient, has_aux=True)[1]
        return value, gradient, pull(gradient), pushed

    return every


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("shape", "stride", "size"),
    [
        *(((7, 8, 3), stride, size) for stride in (1, 2, 3) for size in (1, 2, 3, 5)),
        ((5, 7, 6), 1, 3),  # a kernel's gradient by halves
        ((7, 5, 6), 1, 2),
        ((4, 3, 1), 1, 5),  # a window larger than the image
        ((4, 3, 1), 2, 2),
        ((4, 3, 1), 3, 1),
        ((1, 6, 1), 3, 5),
    ],
    ids=str,
)
def test_forms_agree_to_second_order(shape, stride, size, assert_close):
    data = draw((2, *shape), (size, size, shape[2], 2))
    forms = FORMS if stride == 1 else FORMS[1:]  # with a stride the first two are the same
    *found, expected = jax.jit(lambda *data: [orders(form, stride)(*data) for form in forms])(*data)
    assert expected[0].shape == (2, -(-shape[0] // stride), -(-shape[1] // stride), 2)
    for each in found:
        assert_close(each, expected, 1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("form", "stride", "axes"),
    [
        ("direct", 1, (0, 0)),
        ("direct", 1, (None, 0)),
        ("direct", 1, (0, None)),
        ("patches", 1, (0, 0)),
        ("patches", 2, (0, 0)),
        ("patches", 2, (None, 0)),
    ],
    ids=str,
)
def test_forms_agree_under_a_kernel_per_task(form, stride, axes, assert_close):
    images, kernels = draw((3, 2, 5, 6, 2), (3, 3, 3, 2, 4))
    images = images if axes[0] == 0 else images[0]
    kernels = kernels if axes[1] == 0 else kernels[0]
    found = jax.jit(jax.vmap(orders(form, stride), axes))(images, kernels)
    lax = jax.jit(orders("lax", stride))
    each = [
        lax(images[i] if axes[0] == 0 else images, kernels[i] if axes[1] == 0 else kernels)
        for i in range(3)
    ]
    assert_close(found, jax.tree.map(lambda *leaves: np.stack(leaves), *each), 1e-12)


@pytest.fixture
def in_blocks(monkeypatch):
    """Of how many entries the patches of a block may be."""
    monkeypatch.setattr(convolutions, "BLOCK_SIZE", {"cpu": 200})
    convolutions._trilinear.cache_clear()
    yield
    convolutions._trilinear.cache_clear()


@pytest.mark.usefixtures("x64", "in_blocks")
@pytest.mark.parametrize("count", [1, 4, 5], ids="{} images".format)
@pytest.mark.parametrize("stride", [1, 2])
def test_blocks_of_images_agree_to_second_order(count, stride, assert_close):
    data = draw((2, count, 4, 3, 4), (2, 3, 3, 4, 3))
    every = [jax.vmap(orders(form, stride)) for form in ("patches", "lax")]
    *found, expected = jax.jit(lambda *data: [each(*data) for each in every])(*data)
    for each in found:
        assert_close(each, expected, 1e-12)


def test_single_precision_is_as_exact_as_products(assert_close):
    images, kernel = (x.astype(jnp.float32) for x in draw((3, 40, 40, 3), (3, 3, 3, 4)))
    found = jax.jit(orders("direct", 1))(images, kernel)
    with jax.enable_x64(True):
        exact = jax.jit(orders("lax", 1))(*(np.asarray(x, np.float64) for x in (images, kernel)))
    assert_close(found, exact, 2e-6)


def test_types_are_promoted():
    images, kernel = (x.astype(jnp.float32) for x in draw((1, 5, 4, 2), (3, 3, 2, 2)))
    for form in FORMS:
        half = convolution(images, kernel.astype(jnp.bfloat16), form=form)
        expected = convolution(images, kernel.astype(jnp.bfloat16).astype(jnp.float32), form="lax")
        assert half.dtype == jnp.float32
        np.testing.assert_allclose(half, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("count", "size", "expected"), [(75, 200, 1), (75, 66, 3), (75, 7, 25), (75, 2, 75), (7, 50, 1)]
)
@pytest.mark.usefixtures("in_blocks")
def test_blocks_divide_the_images_and_fit(count, size, expected):
    assert convolutions._block(count, size) == expected


@pytest.mark.usefixtures("x64")
def test_derivatives_are_those_of_finite_differences():
    images, kernel = draw((1, 4, 5, 2), (3, 3, 2, 2))

    def bent(images, kernel):
        strided = jnp.tanh(convolution(images, kernel, stride=2, form="patches"))
        return strided, jnp.tanh(convolution(images, kernel, form="direct"))

    check_grads(jax.jit(bent), (images, kernel), order=2, rtol=1e-5)


def test_value_by_hand():
    # The middle of a 3x3 window sees itself; its first tap the neighbour above and to the left.
    images = jnp.arange(1.0, 10.0).reshape(1, 3, 3, 1)
    kernel = jnp.zeros((3, 3, 1, 2)).at[1, 1, 0, 0].set(1.0).at[0, 0, 0, 1].set(1.0)
    for form in FORMS:
        itself, neighbour = jnp.moveaxis(convolution(images, kernel, form=form)[0], -1, 0)
        np.testing.assert_array_equal(itself, images[0, :, :, 0])
        np.testing.assert_array_equal(neighbour, [[0, 0, 0], [0, 1, 2], [0, 4, 5]])


def test_preferred_form_is_one_of_them(monkeypatch):
    images, kernel = draw((1, 6, 6, 1), (3, 3, 1, 2))
    expected = convolution(images, kernel, form="lax")
    np.testing.assert_allclose(convolution(images, kernel), expected, rtol=1e-5, atol=1e-6)
    monkeypatch.setattr(jax, "default_backend", lambda: "a new one")
    np.testing.assert_allclose(convolution(images, kernel), expected, rtol=1e-5, atol=1e-6)


def test_a_form_for_all_that_is_traced():
    images, kernel = draw((1, 6, 6, 1), (3, 3, 1, 2))

    def primitives():
        program = jax.make_jaxpr(lambda *data: convolution(*data))(images, kernel)
        return [equation.primitive.name for equation in program.eqns]

    with convolutions.in_form("lax"):
        assert "conv_general_dilated" in primitives()
        assert "conv_general_dilated" not in str(
            jax.make_jaxpr(lambda *data: convolution(*data, form="patches"))(images, kernel)
        )
    assert "conv_general_dilated" not in primitives()
    with pytest.raises(ValueError, match="form must be one of"), convolutions.in_form("fft"):
        pass


@pytest.mark.parametrize(
    ("images", "kernel", "options", "message"),
    [
        ((6, 6, 1), (3, 3, 1, 2), {}, r"images must have shape \[K, H, W, C\].*got \(6, 6, 1\)"),
        ((1, 6, 6, 1), (3, 3, 2), {}, r"the kernel \[k, l, C, F\]; got .* and \(3, 3, 2\)"),
        ((1, 6, 6, 3), (3, 3, 1, 2), {}, r"got \(1, 6, 6, 3\) and \(3, 3, 1, 2\)"),
        ((1, 6, 6, 1), (3, 3, 1, 2), {"stride": 0}, "stride must be an integer of at least 1"),
        ((1, 6, 6, 1), (3, 3, 1, 2), {"form": "patch"}, "form must be .*Did you mean 'patches'"),
    ],
)
def test_wrong_arguments_are_explained(images, kernel, options, message):
    with pytest.raises(ValueError, match=message):
        convolution(jnp.zeros(images), jnp.zeros(kernel), **options)


@pytest.mark.parametrize("shape", [(2, 4, 6, 3), (2, 5, 7, 1), (1, 2, 3, 2)])
def test_max_pool_leaves_out_an_odd_last_row_and_column(shape, assert_close):
    images, weights = draw(shape, (shape[0], shape[1] // 2, shape[2] // 2, shape[3]))

    def pooled_and_gradient(pool):
        return pool(images), jax.grad(lambda x: jnp.sum(weights * pool(x)))(images)

    @jax.jit
    def both():
        return pooled_and_gradient(max_pool), pooled_and_gradient(
            lambda x: linen.max_pool(x, (2, 2), (2, 2))
        )

    assert_close(*both(), 1e-6)


@pytest.mark.usefixtures("x64")
def test_max_pool_is_differentiable_again_and_again(assert_close):
    images, weights = draw((2, 5, 4, 3), (2, 2, 2, 3))

    def derivatives(pool):
        def slope(x):
            return jax.grad(lambda x: jnp.sum(jnp.sin(weights * pool(x))))(x)

        def curvature(x):
            return jax.grad(lambda x: jnp.sum(jnp.cos(x) * slope(x)))(x)

        pushed = jax.jvp(slope, (images,), (jnp.cos(images),))[1]
        return slope(images), curvature(images), pushed

    assert_close(
        derivatives(max_pool), derivatives(lambda x: linen.max_pool(x, (2, 2), (2, 2))), 1e-9
    )


def test_equal_maxima_share_the_gradient():
    images = jnp.array([[1.0, 1.0, 3.0, 2.0], [0.0, 1.0, 2.0, 3.0]]).reshape(1, 2, 4, 1)
    gradient = jax.grad(lambda x: jnp.vdot(jnp.array([6.0, 8.0]), max_pool(x)))(images)
    np.testing.assert_allclose(gradient[0, :, :, 0], [[2, 2, 4, 0], [0, 2, 0, 4]])
