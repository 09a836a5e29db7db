"""The methods that compare queries with an embedded support set, against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

from mamljax import Batch, PerStep, Task, evaluate, init_state, meta_step, models, tasks
from mamljax.baselines import matching, nearest_neighbour, prototypical, siamese
from mamljax.baselines.metric import (
    Pairs,
    cosine_similarity,
    negative_squared_distance,
    pair_loss,
)
from mamljax.losses import accuracy, cross_entropy
from mamljax.models.head import class_means
from mamljax.types import Weighted

EMBEDDING = models.from_function(
    lambda params, x: jnp.tanh(x @ params["w"]),
    lambda key, x: {"w": jax.random.normal(key, (x.shape[1], 5), x.dtype)},
)
KEY = jax.random.key(0)
METHODS = [prototypical, matching, siamese, nearest_neighbour]


def adapted(learner, task, seed=1):
    """Meta-parameters, and the task's adapted parameters."""
    meta_params = learner.init(jax.random.key(seed), task.support.inputs)
    return meta_params, jax.jit(learner.adapt)(meta_params, task.support, KEY).params


def squared_distances(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return ((a[:, None] - b) ** 2).sum(-1)


def test_prototypes_are_class_means_and_logits_minus_squared_distances(clusters_of):
    task = clusters_of(ways=3, shots=2)(None, KEY)
    learner = prototypical(EMBEDDING, ways=3)
    meta_params, params = adapted(learner, task)
    features = np.asarray(EMBEDDING.apply(meta_params, task.support.inputs))
    means = np.stack([features[np.asarray(task.support.targets) == n].mean(0) for n in range(3)])
    np.testing.assert_allclose(class_means(*params.memory), means, rtol=1e-6, atol=1e-6)
    queries = EMBEDDING.apply(meta_params, task.query.inputs)
    logits = learner.predict(params, task.query.inputs)
    np.testing.assert_allclose(logits, -squared_distances(queries, means), rtol=1e-4, atol=1e-5)


def test_matching_attends_by_cosine_similarity(clusters_of):
    task = clusters_of(ways=3, shots=2)(None, KEY)
    learner = matching(EMBEDDING, ways=3)
    meta_params, params = adapted(learner, task)
    support, queries = (
        np.asarray(EMBEDDING.apply(meta_params, batch.inputs), np.float64) for batch in task
    )
    lengths = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(support, axis=1)
    weights = np.exp(queries @ support.T / lengths)
    weights /= weights.sum(1, keepdims=True)
    expected = np.log(weights @ np.eye(3)[task.support.targets])
    outputs = learner.predict(params, task.query.inputs)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5)
    nll = -expected[np.arange(len(expected)), task.query.targets].mean()
    assert learner.loss(params, task.query, None, 0) == pytest.approx(nll, rel=1e-5)


def test_matching_by_distances_is_prototypical_at_one_shot(clusters_of):
    task = clusters_of(ways=3, shots=1)(None, KEY)
    by_distance = matching(EMBEDDING, ways=3, similarity="euclidean")
    prototypes = prototypical(EMBEDDING, ways=3)
    _, params = adapted(by_distance, task)
    expected = jax.nn.log_softmax(prototypes.predict(params, task.query.inputs))
    found = by_distance.predict(params, task.query.inputs)
    likely = expected > -50  # the floor under the others is another one
    np.testing.assert_allclose(found[likely], expected[likely], rtol=1e-4, atol=1e-5)
    assert np.count_nonzero(likely) >= len(expected)
    with pytest.raises(ValueError, match="similarity must be one of"):
        matching(EMBEDDING, ways=3, similarity="dot")


def test_matching_survives_a_class_without_support(clusters_of):
    task = clusters_of(ways=3)(None, KEY)
    learner = matching(EMBEDDING, ways=4)
    grads, metrics = jax.jit(learner.meta_gradient)(
        learner.init(KEY, task.support.inputs), jax.tree.map(lambda x: x[None], task), KEY
    )
    assert np.isfinite(metrics.loss)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize("similarity", ["euclidean", "cosine"])
def test_nearest_neighbour_is_brute_force_on_pixels(similarity):
    rng = np.random.default_rng(0)
    support, queries = (rng.normal(size=(n, 4, 3, 2)).astype(np.float32) for n in (12, 50))
    labels = rng.permutation(np.arange(12) % 4)
    learner = nearest_neighbour(ways=4, similarity=similarity)
    params = learner.adapt((), Batch(jnp.asarray(support), jnp.asarray(labels)), KEY).params
    logits = learner.predict(params, jnp.asarray(queries))
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (queries, support))
    if similarity == "cosine":
        a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    distances = squared_distances(a, b)
    np.testing.assert_array_equal(np.argmax(logits, 1), labels[distances.argmin(1)])
    nearest = np.stack([distances[:, labels == n].min(1) for n in range(4)], 1)
    expected = 1 - nearest / 2 if similarity == "cosine" else -nearest
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-6)


def test_nearest_neighbour_on_features_and_its_ties(clusters_of):
    learner = nearest_neighbour(EMBEDDING, ways=3)
    task = clusters_of(ways=3, shots=1)(None, KEY)
    meta_params = EMBEDDING.init(KEY, task.support.inputs)
    params = learner.adapt(meta_params, task.support, KEY).params
    assert accuracy(learner.predict(params, task.support.inputs), task.support.targets) == 1
    twice = Batch(jnp.tile(task.support.inputs[:1], (3, 1)), jnp.array([2, 1, 0]))
    params = learner.adapt(meta_params, twice, KEY).params
    np.testing.assert_array_equal(np.argmax(learner.predict(params, twice.inputs), 1), 0)


def test_small_distances_between_large_features_are_not_lost():
    a = jnp.array([[1000.0, 1000.0]])
    b = a + jnp.array([[0.0, 0.0], [0.0, 0.0625]])
    np.testing.assert_array_equal(negative_squared_distance(a, b), [[0.0, -(0.0625**2)]])


def test_cosine_of_a_zero_vector_is_zero_and_has_a_finite_gradient():
    zeros, ones = jnp.zeros((1, 3)), jnp.ones((1, 3))
    assert cosine_similarity(zeros, ones) == 0
    assert np.isfinite(jax.grad(lambda a: cosine_similarity(a, ones).sum())(zeros)).all()


def test_twins_are_symmetric_and_a_query_scores_the_mean_of_its_pairs(clusters_of):
    task = clusters_of(ways=3, shots=2, queries=2)(None, KEY)
    learner = siamese(EMBEDDING, ways=3)
    meta_params, params = adapted(learner, task)
    head = jax.tree.map(np.asarray, meta_params["head"])

    def log_odds(first, second):
        a, b = (np.asarray(EMBEDDING.apply(meta_params["body"], x)) for x in (first, second))
        return np.abs(a[:, None] - b) @ head["kernel"][:, 0] + head["bias"]

    pairs = log_odds(task.query.inputs, task.support.inputs)
    backwards = log_odds(task.support.inputs, task.query.inputs)
    np.testing.assert_allclose(pairs, backwards.T, rtol=1e-5, atol=1e-6)
    scores = learner.predict(params, task.query.inputs)
    labels = np.asarray(task.support.targets)
    expected = np.stack([pairs[:, labels == n].mean(1) for n in range(3)], 1)
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-6)

    # The gradient too: swapping two sets of the same classes transposes the pairs, no more.
    both = jax.tree.map(lambda a, b: jnp.stack([a, b]), task, Task(*task[::-1]))
    gradient = jax.jit(jax.vmap(jax.grad(learner.objective), (None, 0, None)))
    first, second = gradient(meta_params, both, KEY)["head"]["kernel"]
    np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-6)
    assert np.abs(first).max() > 0


def test_a_twin_of_itself_has_a_finite_gradient(clusters_of):
    support = clusters_of()(None, KEY).support
    learner = siamese(EMBEDDING, ways=3)
    task = jax.tree.map(lambda x: x[None], Task(support, support))
    grads, _ = jax.jit(learner.meta_gradient)(learner.init(KEY, support.inputs), task, KEY)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_equal_and_unequal_pairs_weigh_the_same():
    log_odds = jnp.array([[2.0, -1.0, 0.5, 0.0]])
    pairs = Pairs(log_odds, jnp.eye(4))
    of_same = np.log1p(np.exp(1.0))
    of_other = np.log1p(np.exp([2.0, 0.5, 0.0])).mean()
    assert pair_loss(pairs, jnp.array([1])) == pytest.approx((of_same + of_other) / 2)


@pytest.mark.parametrize("method", METHODS)
def test_evaluate_scores_once_and_above_chance(method, clusters_of):
    learner = method(EMBEDDING, ways=3)
    sampler = clusters_of(ways=3, shots=2)
    meta_params = learner.init(KEY, jnp.zeros((1, 4)))
    if method is siamese:  # untrained twins know no sign: less alike the farther apart
        meta_params["head"]["kernel"] = -jnp.ones((5, 1))
    report = evaluate(learner, meta_params, sampler, KEY, num_tasks=100, metric=accuracy)
    assert report.mean.shape == (1,)
    assert 0.6 < report.mean[0] <= 1


def test_twins_train_some_tasks_at_a_time(clusters_of):
    batch = tasks.sample_tasks(clusters_of(ways=3, shots=1, noise=0.8), None, KEY, 12)
    learner, tx = siamese(EMBEDDING, ways=3, task_chunk=5), optax.adam(0.02)
    state = init_state(learner.init(KEY, batch.support.inputs[0]), tx)
    step = jax.jit(meta_step(learner.meta_gradient, tx))
    losses = []
    for _ in range(20):
        state, metrics = step(state, batch, KEY)
        losses.append(metrics.loss)
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("method", METHODS)
def test_meta_gradient_is_the_derivative(method, clusters_of):
    task = clusters_of(ways=3, shots=2, queries=2)(None, KEY)
    learner = method(EMBEDDING, ways=3)
    meta_params = learner.init(KEY, task.support.inputs)
    objective = jax.jit(lambda params: learner.objective(params, task, KEY))
    check_grads(objective, (meta_params,), 1, ["rev"], eps=1e-5)


def test_maps_are_flattened_to_features(clusters_of):
    def square(params, inputs, *, key=None, step=0):
        return EMBEDDING.apply(params, inputs)[:, :4].reshape(-1, 2, 2, 1)

    task = clusters_of()(None, KEY)
    learner = prototypical(models.from_function(square, EMBEDDING.init), ways=3)
    assert adapted(learner, task)[1].memory.features.shape == (6, 4)


def test_what_cannot_be_read_is_refused(clusters_of):
    support = clusters_of()(None, KEY).support
    learner = prototypical(EMBEDDING, ways=3)
    meta_params = learner.init(KEY, support.inputs)
    with pytest.raises(ValueError, match=r"num_steps=3.*takes no inner steps"):
        learner.adapt(meta_params, support, KEY, num_steps=3)
    with pytest.raises(TypeError, match="PerStep"):
        learner.adapt(meta_params, PerStep(support), KEY)
    with pytest.raises(ValueError, match=r"got dtype float32 and shape \(6, 3\)"):
        learner.adapt(meta_params, Batch(support.inputs, jax.nn.one_hot(support.targets, 3)), KEY)
    with pytest.raises(ValueError, match="ways must be an integer"):
        prototypical(EMBEDDING, ways=0)
    with pytest.raises(ValueError, match="Did you mean 'cosine'"):
        nearest_neighbour(ways=3, similarity="cosin")


@pytest.mark.parametrize("method", METHODS)
def test_a_wrong_label_among_the_examples_is_never_a_number(method, clusters_of):
    task = clusters_of()(None, KEY)
    learner = method(EMBEDDING, ways=3)
    meta_params = learner.init(KEY, task.support.inputs)
    wrong = task.support._replace(targets=task.support.targets.at[1].set(3))
    params = learner.adapt(meta_params, wrong, KEY).params
    assert np.isnan(learner.predict(params, task.query.inputs)).any()
    padded = task.support._replace(targets=Weighted(task.support.targets, jnp.ones(6)))
    with pytest.raises(ValueError, match="without weights: this takes no padding"):
        learner.adapt(meta_params, padded, KEY)


def test_no_inner_step_observes_once(clusters_of):
    task = clusters_of()(None, KEY)
    learner = prototypical(EMBEDDING, ways=3)
    meta_params = learner.init(KEY, task.support.inputs)

    def observe(params, step):
        return {"step": step, "logits": learner.predict(params, task.query.inputs)}

    seen = learner.adapt(meta_params, task.support, KEY, num_steps=0, observe=observe)
    assert seen.support_losses.shape == (0,)
    assert seen.observed["step"].tolist() == [0]
    assert seen.observed["logits"].shape == (1, 12, 3)
    loss = cross_entropy(seen.observed["logits"][0], task.query.targets)
    np.testing.assert_allclose(learner.objective(meta_params, task, KEY), loss, rtol=1e-6)
