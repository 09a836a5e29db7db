"""Fine-tuning: plain training on all classes, then a fresh head on the pretrained body."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mamljax import Batch, PerStep, Task, evaluate, fit, init_state, meta_step, models
from mamljax.baselines import fine_tune, minibatches, nearest_neighbour
from mamljax.losses import accuracy, cross_entropy
from mamljax.models import with_head
from mamljax.partition import by_path
from mamljax.tasks import episodes
from mamljax.tuning import tune_inner_lr

KEY = jax.random.key(0)
BODY = models.from_function(
    lambda params, x: jnp.tanh(x.reshape(x.shape[0], -1) @ params["w"]),
    lambda key, x: {"w": jax.random.normal(key, (x[0].size, 7), x.dtype)},
)
# Six classes of 2x3 images: its own shade at each pixel, and noise.
RNG = np.random.default_rng(0)
SHADES = RNG.uniform(60, 190, (6, 1, 2, 3, 1)) + RNG.normal(0, 20, (6, 10, 2, 3, 1))
IMAGES = SHADES.clip(0, 255).astype(np.uint8)


@pytest.fixture
def task():
    return episodes(IMAGES, ways=3, shots=2, queries=4)(None, KEY)


@pytest.fixture
def meta_params(task):
    return with_head(BODY, 6).init(KEY, task.support.inputs)


def test_a_head_is_a_linear_layer_of_the_flattened_features(meta_params, task):
    assert jax.tree.map(jnp.shape, meta_params["head"]) == {"kernel": (7, 6), "bias": (6,)}
    head = jax.tree.map(np.asarray, meta_params["head"]) | {"bias": np.arange(6.0)}
    features = np.asarray(BODY.apply(meta_params["body"], task.support.inputs))
    logits = with_head(BODY, 6).apply(meta_params | {"head": head}, task.support.inputs)
    np.testing.assert_allclose(logits, features @ head["kernel"] + np.arange(6), rtol=1e-5)


def test_training_is_plain_classification_of_the_query_set(meta_params, task):
    learner = fine_tune(BODY, classes=6, ways=3)
    batch = Batch(task.query.inputs, jnp.arange(12) % 6)
    minibatch = jax.tree.map(lambda x: x[None], Task((), batch))
    grads, _ = jax.jit(learner.meta_gradient)(meta_params, minibatch, KEY)

    def plain(params):
        features = BODY.apply(params["body"], batch.inputs)
        bias = jnp.broadcast_to(params["head"]["bias"], (12, 6))
        return cross_entropy(features @ params["head"]["kernel"] + bias, batch.targets)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        grads,
        jax.jit(jax.grad(plain))(meta_params),
    )


def test_adapting_puts_a_fresh_head_on_the_pretrained_body(meta_params, task):
    learner = fine_tune(BODY, classes=6, ways=3, inner_lr=0.5, num_steps=5)
    seen = learner.adapt(meta_params, task.support, KEY, observe=lambda params, step: params)
    assert seen.params["head"]["kernel"].shape == (7, 3)
    assert not seen.observed["head"]["kernel"][0].any()
    np.testing.assert_allclose(seen.support_losses[0], np.log(3), rtol=1e-6)  # no opinion yet
    assert np.all(np.diff(seen.support_losses) < 0)
    body = seen.observed["body"]["w"]
    np.testing.assert_array_equal(body[1], body[0])  # a head of zeros passes no gradient on
    assert np.abs(body[2] - body[0]).max() > 0
    one = learner.adapt(meta_params, task.support, KEY, num_steps=1)
    assert one.support_losses.shape == (1,)


def test_the_body_stays_when_only_the_head_adapts(meta_params, task):
    head_only = by_path("^head/")
    learner = fine_tune(BODY, classes=6, ways=3, inner_lr=0.5, num_steps=5, partition=head_only)
    adapted = learner.adapt(meta_params, task.support, KEY)
    np.testing.assert_array_equal(adapted.params["body"]["w"], meta_params["body"]["w"])
    assert adapted.support_losses[-1] < adapted.support_losses[0]


def test_fresh_data_for_every_step_may_be_fine_tuned_on(meta_params, task):
    learner = fine_tune(BODY, classes=6, ways=3, inner_lr=0.5, num_steps=2)
    repeated = PerStep(jax.tree.map(lambda x: jnp.stack([x, x]), task.support))
    found, expected = (
        learner.adapt(meta_params, support, KEY).params for support in (repeated, task.support)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)


def test_from_training_to_test(task):
    learner, tx = fine_tune(BODY, classes=6, ways=3), optax.adam(0.05)
    sampler = minibatches(IMAGES, size=32)
    state = init_state(learner.init(KEY, task.support.inputs), tx)
    losses = []
    state = fit(
        meta_step(learner.meta_gradient, tx),
        state,
        sampler,
        KEY,
        num_steps=100,
        meta_batch=1,
        hooks=[lambda call: losses.extend(call.metrics.loss)],
    )
    assert np.mean(losses[-10:]) < 0.5 * losses[0]
    test = episodes(IMAGES, ways=3, shots=2, queries=4)

    def build(inner_lr):
        return fine_tune(BODY, classes=6, ways=3, inner_lr=inner_lr)

    options = {"num_tasks": 30, "num_steps": 3}
    params = state.meta_params
    tuned = tune_inner_lr(build, params, test, KEY, candidates=(1e-4, 0.3), **options)
    assert tuned.inner_lr == pytest.approx(0.3)
    tuned = evaluate(build(tuned.inner_lr), params, test, KEY, metric=accuracy, **options)
    assert tuned.mean.shape == (4,)
    assert tuned.mean[-1] > 0.8
    neighbour = nearest_neighbour(BODY, ways=3)
    found = evaluate(neighbour, params["body"], test, KEY, num_tasks=30, metric=accuracy)
    assert found.mean[0] > 0.8


def test_minibatches_draw_every_image_alike_and_never_the_padding():
    counts, images = np.array([1, 3, 2]), np.zeros((3, 3, 1, 1, 1), np.uint8)
    for c, count in enumerate(counts):
        images[c, :count, 0, 0, 0] = 10 * c + np.arange(count) + 1
    batch = minibatches(images, counts=counts, size=6000)(None, KEY)
    assert batch.support == ()
    assert batch.query.inputs.shape == (6000, 1, 1, 1)
    values = np.asarray(batch.query.inputs).ravel() * 255
    found, times = np.unique(values.round().astype(int), return_counts=True)
    assert found.tolist() == [1, 11, 12, 13, 21, 22]
    assert abs(times - 1000).max() < 150  # five standard deviations
    np.testing.assert_array_equal(batch.query.targets, values.round() // 10)
    negative = minibatches(images, size=2, decode=lambda x: -x.astype(jnp.float32))
    assert negative(None, KEY).query.inputs.max() <= 0


@pytest.mark.parametrize("counts", [[1, 2], [0, 1, 1], [1, 1, 4]])
def test_counts_that_do_not_fit_are_refused(counts):
    with pytest.raises(ValueError, match="from 1 to 3 for each of the 3 classes"):
        minibatches(np.zeros((3, 3, 1, 1, 1), np.uint8), size=2, counts=np.array(counts))


def test_images_that_are_not_bytes_are_refused():
    with pytest.raises(ValueError, match=r"got float64 of shape \(3, 3, 1, 1, 1\)"):
        minibatches(np.zeros((3, 3, 1, 1, 1)), size=2)
