"""Losses and metrics: against optax and by hand, with derivatives, and never broadcasting."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mamljax.checks import ArgumentError
from mamljax.losses import accuracy, cross_entropy, mean_squared_error
from mamljax.types import Weighted

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
    for wrong in (targets > 0, targets * 1j):
        with pytest.raises(ArgumentError, match=r"must be real numbers; got (bool|complex)"):
            mean_squared_error(outputs, wrong)


# ---------------------------------------------------------------------------------------------
# Labels that name no class, classes that are ruled out, and examples that do not count.

WRONG = [[0, 3, 1, 4, 2, 0], [0, 3, 1, -1, 2, 0], [0, 3, 1, 255, 2, 0]]


@pytest.mark.parametrize("labels", WRONG, ids=str)
def test_a_label_outside_the_classes_is_never_a_number(labels):
    logits, dtype = jnp.asarray(LOGITS), jnp.uint8 if max(labels) == 255 else jnp.int32
    loss, gradient = jax.value_and_grad(cross_entropy)(logits, jnp.array(labels, dtype))
    assert np.isnan(loss)
    # Also the gradient, or an inner step would hide it; that of the other examples is theirs.
    assert np.isnan(gradient[3]).all()
    assert np.isfinite(np.delete(gradient, 3, axis=0)).all()
    assert np.isnan(accuracy(logits, jnp.array(labels, dtype)))


@pytest.mark.parametrize("labels", WRONG, ids=str)
@pytest.mark.parametrize("metric", [cross_entropy, accuracy])
def test_labels_known_in_advance_are_refused(metric, labels):
    found = rf"{metric.__name__}: .* from {min(labels)} to {max(labels)} for N = 4 outputs"
    with pytest.raises(ArgumentError, match=found):
        jax.jit(lambda logits: metric(logits, np.array(labels)))(LOGITS)


def test_more_than_256_classes_with_labels_of_one_byte():
    logits = jnp.zeros((2, 300)).at[0, 10].set(1.0).at[1, 266].set(5.0)  # 266 is 10 in a byte
    np.testing.assert_array_equal(accuracy(logits, jnp.array([10, 10], jnp.uint8)), 0.5)


@pytest.mark.usefixtures("x64")
def test_a_class_may_be_ruled_out():
    logits = jnp.asarray(LOGITS).at[:, 2].set(-jnp.inf)
    labels = jnp.array([0, 3, 1, 1, 0, 0])
    rest = jnp.delete(logits, 2, axis=1)
    loss, gradient = jax.value_and_grad(cross_entropy)(logits, labels)
    expected, slope = jax.value_and_grad(cross_entropy)(rest, jnp.where(labels == 3, 2, labels))
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    np.testing.assert_allclose(gradient, np.insert(slope, 2, 0.0, axis=1), rtol=1e-12)
    assert np.isfinite(jax.hessian(cross_entropy)(logits, labels)).all()
    # Ruled out, and right: infinitely wrong, as in optax.
    assert cross_entropy(logits, jnp.full(6, 2)) == jnp.inf
    np.testing.assert_allclose(accuracy(logits, jnp.full(6, 2)), 0.0)


def of_kept(loss, outputs, targets, kept):
    return loss(jnp.asarray(outputs)[kept], jnp.asarray(targets)[kept])


@pytest.mark.parametrize(
    ("loss", "outputs", "targets", "junk"),
    [
        (cross_entropy, LOGITS, LABELS, -1),
        (accuracy, LOGITS, LABELS, 7),
        (mean_squared_error, LOGITS, LOGITS[::-1], np.nan),
    ],
    ids=["cross_entropy", "accuracy", "mean_squared_error"],
)
@pytest.mark.usefixtures("x64")
def test_what_has_no_weight_does_not_exist(loss, outputs, targets, junk):
    kept = np.array([0, 2, 3])
    counts = np.isin(np.arange(6), kept)
    spoilt = Weighted(
        np.where(counts.reshape(-1, *(1,) * (np.ndim(targets) - 1)), targets, junk), counts
    )
    with_junk = jnp.where(counts[:, None], jnp.asarray(outputs), jnp.nan)
    value, gradient = jax.value_and_grad(loss)(with_junk, spoilt)
    expected = of_kept(loss, outputs, targets, kept)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    slope = jax.grad(loss)(jnp.asarray(outputs)[kept], jnp.asarray(targets)[kept])
    np.testing.assert_allclose(gradient[kept], slope, rtol=1e-12)
    assert not gradient[~counts].any()
    # Nothing counts: no loss, and nothing to learn.
    value, gradient = jax.value_and_grad(loss)(with_junk, spoilt._replace(weights=np.zeros(6)))
    assert value == 0
    assert not gradient.any()


def test_weights_are_relative():
    weights = np.array([2.0, 0.0, 1.0, 3.0, 0.5, 0.0])
    each = optax.softmax_cross_entropy_with_integer_labels(jnp.asarray(LOGITS), LABELS)
    expected = np.average(each, weights=weights)
    for scale in (1, 10):
        found = cross_entropy(LOGITS, Weighted(LABELS, scale * weights))
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    squares = np.average(((LOGITS - 1) ** 2).mean(1), weights=weights)
    found = mean_squared_error(LOGITS, Weighted(np.ones_like(LOGITS), weights))
    np.testing.assert_allclose(found, squares, rtol=1e-5)


@pytest.mark.parametrize("loss", [cross_entropy, accuracy, mean_squared_error])
@pytest.mark.parametrize("weights", [np.ones(5), np.ones((6, 1)), np.ones(())], ids=np.shape)
def test_weights_are_one_for_each_example(loss, weights):
    targets = LOGITS if loss is mean_squared_error else LABELS
    with pytest.raises(ArgumentError, match=r"weights must have shape \[K\], and outputs"):
        loss(LOGITS, Weighted(targets, weights))
