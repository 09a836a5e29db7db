"""Primitives of a trilinear form: both modes of differentiation, under every kind of `jax.vmap`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mamljax.models.trilinear import Trilinear, differentiable

TRIPLE = Trilinear(
    output=lambda a, b: jnp.einsum("i,ij->j", a, b),
    of_first=lambda c, b: jnp.einsum("j,ij->i", c, b),
    of_second=lambda a, c: jnp.einsum("i,j->ij", a, c),
)


def derivatives(product):
    """``(a, b) ->`` everything to third order that modes over modes give."""

    def bent(a, b):
        return jnp.sum(jnp.tanh(product(a, b)))

    def every(a, b):
        slope = jax.grad(bent, (0, 1))
        first = slope(a, b)
        reverse = jax.vjp(slope, a, b)[1](first)
        forward = jax.jvp(slope, (a, b), first)[1]
        along = jax.grad(lambda a, b: jax.jvp(bent, (a, b), first)[1], (0, 1))(a, b)
        third = jax.jvp(lambda a, b: jax.jvp(slope, (a, b), first)[1], (a, b), first)[1]
        return (
            product(a, b),
            first,
            reverse,
            forward,
            along,
            third,
            jax.linearize(slope, a, b)[1](*first),
        )

    return every


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "axes",
    [(), ((0, 0),), ((0, None),), ((None, 1),), ((1, 0), (None, 0)), ((None, 0), (0, None))],
    ids=str,
)
@pytest.mark.parametrize("order", ["vmap of derivatives", "derivatives of vmap"])
def test_derivatives_are_those_of_automatic_differentiation(axes, order, assert_close):
    """In both modes and to third order, with operands that examples have or share."""
    rng = np.random.default_rng(0)
    shapes = [[3], [3, 4]]
    for size, each in enumerate(axes, start=2):
        for shape, axis in zip(shapes, each, strict=True):
            if axis is not None:
                shape.insert(axis, size)
    a, b = (jnp.asarray(rng.normal(size=shape)) for shape in shapes)
    found = []
    for product in (differentiable(TRIPLE), TRIPLE.output):
        function = derivatives(product) if order == "vmap of derivatives" else product
        for each in axes:
            function = jax.vmap(function, each)
        whole = function if order == "vmap of derivatives" else derivatives(function)
        found.append(jax.jit(whole)(a, b))
    assert_close(*found, 1e-12)


def test_it_is_evaluated_without_a_jit_too():
    a, b = jnp.arange(3.0), jnp.ones((3, 4))
    np.testing.assert_array_equal(differentiable(TRIPLE)(a, b), [3.0] * 4)
    np.testing.assert_array_equal(jax.grad(lambda a: differentiable(TRIPLE)(a, b)[0])(a), [1.0] * 3)


def test_nothing_but_the_operands_is_stored():
    a, b = jnp.arange(3.0), jnp.ones((3, 4))
    _, pull = jax.vjp(differentiable(TRIPLE), a, b)
    assert sorted(x.shape for x in jax.tree.leaves(pull)) == [(3,), (3, 4)]
