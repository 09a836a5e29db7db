"""Losses and metrics: against optax and by hand, with derivatives, and never broadcasting."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mamljax.losses import accuracy, cross_entropy, mean_squared_error

RNG = np.random.default_rng(0)
LOGITS = 3.0 * RNG.normal(size=(6, 4))
LABELS = np.array([0, 3, 1, 1, 2, 0])


def test_cross_entropy_is_the_mean_over_examples():
    logits = jnp.asarray(LOGITS)
    expected = optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean()
    np.testing.assert_allclose(cross_entropy(logits, LABELS), expected, rtol=1e-6)
    # Whoever knows nothing loses log N; the authors' code, which sums and divides by the shots,
    # N log N.
    np.testing.assert_allclose(cross_entropy(jnp.zeros((6, 4)), LABELS), np.log(4), rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_derivatives_of_cross_entropy_by_hand():
    # Of the mean over K rows: (p - y) / K, and within each row (diag(p) - p p') / K.
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
    y = np.eye(4)[LABELS]
    gradient, hessian = (
        derivative(cross_entropy)(jnp.asarray(LOGITS), LABELS)
        for derivative in (jax.grad, lambda loss: jax.jacrev(jax.grad(loss)))
    )
    np.testing.assert_allclose(gradient, (p - y) / 6, rtol=1e-12, atol=1e-15)
    expected = np.zeros((6, 4, 6, 4))
    for k, row in enumerate(p):
        expected[k, :, k] = (np.diag(row) - np.outer(row, row)) / 6
    np.testing.assert_allclose(hessian, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("size", [1e4, 1e30])
def test_derivatives_of_cross_entropy_stay_finite(size):
    # Sure of what is right, and sure of what is wrong.
    logits = jnp.float32([[size, 0.0, -size], [size, 0.0, -size]])
    labels = jnp.array([0, 2])
    loss, gradient = jax.value_and_grad(cross_entropy)(logits, labels)
    np.testing.assert_allclose(loss, size, rtol=1e-6)
    np.testing.assert_allclose(gradient, [[0, 0, 0], [0.5, 0, -0.5]], atol=1e-6)
    second = jax.jacrev(jax.grad(cross_entropy))(logits, labels)
    np.testing.assert_array_equal(second, 0.0)


def test_accuracy_by_hand():
    logits = jnp.float32([[0.1, 0.2, 0.0], [5.0, 1.0, 2.0], [-3.0, -2.0, -1.0], [0.0, 0.0, 1.0]])
    for labels, expected in [((1, 0, 2, 2), 1.0), ((1, 0, 2, 0), 0.75), ((0, 1, 1, 0), 0.0)]:
        found = accuracy(logits, jnp.array(labels))
        assert found.dtype == jnp.float32  # a score that `evaluate` takes
        np.testing.assert_array_equal(found, expected)
    # Of equal logits the first counts, so that knowing nothing scores one class, not all.
    np.testing.assert_array_equal(accuracy(jnp.zeros((4, 2)), jnp.array([0, 1, 1, 1])), 0.25)


@pytest.mark.parametrize("metric", [cross_entropy, accuracy])
@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (LOGITS, LABELS[:5], r"labels \[K\]; got \(6, 4\) and \(5,\)"),
        (LOGITS, LABELS[:, None], r"got \(6, 4\) and \(6, 1\)"),
        (LOGITS, np.eye(4)[LABELS], r"got \(6, 4\) and \(6, 4\).* not one-hot rows"),
        (LOGITS[:, 0], LABELS, r"logits must have shape \[K, N\].*got \(6,\)"),
        (LOGITS[0], np.array(1), r"got \(4,\) and \(\)"),
        (LOGITS, LABELS.astype(np.float32), "labels must be integers .*; got dtype float32"),
        (LOGITS, LABELS > 0, "labels must be integers .*; got dtype bool"),
    ],
)
def test_wrong_arguments_are_explained(metric, logits, labels, message):
    with pytest.raises(ValueError, match=rf"{metric.__name__}: .*{message}"):
        metric(logits, labels)


def test_mean_squared_error():
    outputs, targets = np.array([[1.0], [2.0], [4.0]]), np.array([[1.0], [0.0], [1.0]])
    np.testing.assert_allclose(mean_squared_error(outputs, targets), 13 / 3, rtol=1e-6)
    with pytest.raises(ValueError, match=r"outputs have shape \(3, 1\) and targets \(3,\)"):
        mean_squared_error(outputs, targets[:, 0])
