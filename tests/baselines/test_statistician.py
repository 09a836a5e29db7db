"""The neural statistician: its terms in closed form, a toy with a known optimum, what it draws."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mamljax import Batch, Task, evaluate, fit, init_state, meta_step, models
from mamljax.baselines import statistician
from mamljax.baselines.metric import identity
from mamljax.baselines.statistician import Normal, _some, kl_divergence, log_likelihood
from mamljax.losses import accuracy

KEY = jax.random.key(0)
SIZES = {"context": 2, "latent": 3, "hidden": 4}


@pytest.fixture
def task():
    """Two classes of three bright or dark vectors, with pixels in [0, 1]."""
    pixels = jnp.array([[0.9, 0.8], [0.1, 0.3], [1.0, 0.7], [0.0, 0.1], [0.9, 1.0], [0.2, 0.0]])
    labels = jnp.array([0, 1, 0, 1, 0, 1])
    return Task(Batch(pixels[:2], labels[:2]), Batch(pixels[2:], labels[2:]))


@pytest.fixture
def constant():
    """Parameters whose networks return what they are told: all zeros but the last biases."""

    def build(learner, **outputs):
        params = jax.tree.map(jnp.zeros_like, learner.init(KEY, jnp.zeros((1, 2))))
        last = {"after": "Dense_2", "posterior": "Dense_3", "prior": "Dense_3"}
        for name, values in outputs.items():
            params[name][last[name]]["bias"] = jnp.array(values)
        return params

    return build


def test_the_divergence_is_that_of_its_integral():
    p, q = Normal(jnp.array([0.5]), jnp.array([-0.7])), Normal(jnp.array([-1.0]), jnp.array([0.4]))
    x = np.linspace(-15, 15, 200_001)

    def log_density(normal):
        mean, log_variance = (float(x[0]) for x in normal)
        square = (x - mean) ** 2 / np.exp(log_variance)
        return -0.5 * (square + log_variance + np.log(2 * np.pi))

    integrand = np.exp(log_density(p)) * (log_density(p) - log_density(q))
    np.testing.assert_allclose(kl_divergence(p, q), np.trapezoid(integrand, x), rtol=1e-5)
    assert float(kl_divergence(p, p)) == 0
    both = Normal(jnp.array([0.5, -1.0]), jnp.array([-0.7, 0.4]))
    swapped = jax.tree.map(lambda x: x[::-1], both)
    np.testing.assert_allclose(
        kl_divergence(both, swapped), kl_divergence(p, q) + kl_divergence(q, p), rtol=1e-5
    )


def test_the_likelihood_is_that_of_bernoulli():
    logits, pixels = jnp.array([[0.0, 2.0, -1.0]]), jnp.array([[1.0, 0.0, 0.25]])
    p = 1 / (1 + np.exp(-np.asarray(logits)))
    expected = np.log(0.5) + np.log(1 - p[0, 1])
    expected += 0.25 * np.log(p[0, 2]) + 0.75 * np.log(1 - p[0, 2])
    np.testing.assert_allclose(log_likelihood(logits, pixels), [expected], rtol=1e-6)


def test_the_bound_is_the_sum_of_its_terms(task, constant):
    """With networks that are constant every expectation is a number."""
    learner = statistician(identity(), (2,), ways=2, **SIZES).learner
    # Nothing in the codes, pixels even: the likelihood alone, of two pixels at one half.
    found = learner.objective(constant(learner), task, KEY)
    np.testing.assert_allclose(found, 2 * np.log(2), rtol=1e-6)
    params = constant(
        learner,
        after=[0.5, -1.0, 0.3, -0.2],
        posterior=[1.0, 0.0, -2.0, 0.1, 0.2, -0.4],
        prior=[0.0, 1.0, 0.0, 0.5, 0.0, 0.0],
    )
    of_context = 0.5 * (0.5**2 + 1 + np.exp(0.3) + np.exp(-0.2) - 2 - 0.1)
    squares = np.array([np.exp(-0.5), 1, 4])
    log_ratio = np.array([0.1 - 0.5, 0.2, -0.4])
    of_latent = 0.5 * np.sum(squares + np.exp(log_ratio) - 1 - log_ratio)
    # Two contexts for six images, one latent code for each.
    expected = 2 * np.log(2) + of_latent + 2 * of_context / 6
    np.testing.assert_allclose(learner.objective(params, task, KEY), expected, rtol=1e-5)


def test_the_bound_is_below_the_likelihood_it_bounds(task, randomised):
    """The likelihood of both classes, by integration over contexts and latent codes."""
    learner, _ = statistician(identity(), (2,), ways=2, **SIZES)
    params = randomised(learner.init(KEY, jnp.zeros((1, 2))))
    bounds = jax.vmap(lambda key: -learner.objective(params, task, key))(
        jax.random.split(KEY, 2_000)
    )
    draws = jax.random.split(jax.random.key(1), 20_000)
    prior = models.mlp((4, 4, 4, 6), activation="elu", norm="layer")
    pixels, labels = jax.tree.map(lambda *both: jnp.concatenate(both), *task)

    def log_joint(key):
        context_key, latent_key = jax.random.split(key)
        contexts = jax.random.normal(context_key, (2, 2))[labels]
        mean, log_variance = jnp.split(prior.apply(params["prior"], contexts), 2, 1)
        noise = jax.random.normal(latent_key, mean.shape)
        codes = jnp.concatenate([mean + jnp.exp(log_variance / 2) * noise, contexts], axis=1)
        first, second = (params["decoder"][f"Dense_{i}"] for i in range(2))
        hidden = jax.nn.elu(codes @ first["kernel"] + first["bias"][None])
        return jnp.sum(log_likelihood(hidden @ second["kernel"] + second["bias"][None], pixels))

    joint = jax.vmap(log_joint)(draws)
    evidence = (jax.nn.logsumexp(joint) - np.log(len(draws))) / len(pixels)
    assert float(jnp.mean(bounds)) < float(evidence)


def test_a_query_has_the_class_of_the_nearest_posterior(task, randomised):
    learner = statistician(identity(), (2,), ways=2, **SIZES).learner
    params = randomised(learner.init(KEY, jnp.zeros((1, 2))))
    support = jax.tree.map(lambda *both: jnp.concatenate(both), *task)
    adapted = learner.adapt(params, support, KEY).params
    queries = jnp.array([[0.3, 0.9], [0.5, 0.5], [0.1, 0.0]])
    logits = learner.predict(adapted, queries)
    # A query is a set of one example: its posterior is what adapting to it alone finds.
    for query, row in zip(queries, logits, strict=True):
        alone = learner.adapt(params, Batch(query[None], jnp.array([0])), KEY).params.memory
        alone = jax.tree.map(lambda x: x[:1], alone)
        np.testing.assert_allclose(row, -kl_divergence(adapted.memory, alone), rtol=1e-4)
    # A set has no order.
    other = jax.tree.map(lambda x: x[::-1], support)
    again = learner.adapt(params, other, KEY).params.memory
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), adapted.memory, again
    )


def test_on_two_classes_it_finds_the_optimum_and_draws_from_it():
    """Pixels are all on with the class's probability 0.9 or 0.1, and else all off.

    A task's classes are opposite, so no classifier of one query is right more often than 0.9, and
    that of whether it looks like most of the support set is. What is drawn is on as often.
    """

    def sampler(meta_params, key):
        del meta_params
        flip_key, noise_key = jax.random.split(key)
        labels = jnp.tile(jnp.arange(2), 12)
        bright = labels ^ jax.random.bernoulli(flip_key)
        off = jax.random.bernoulli(noise_key, 0.1, labels.shape)
        pixels = jnp.repeat((bright ^ off).astype(float)[:, None], 4, axis=1)
        cut = 16
        return Task(Batch(pixels[:cut], labels[:cut]), Batch(pixels[cut:], labels[cut:]))

    learner, sample = statistician(
        identity(), (4,), ways=2, context=2, latent=2, hidden=16, filters=1
    )
    tx = optax.adam(0.01)
    state = init_state(learner.init(KEY, jnp.zeros((1, 4))), tx)
    step = meta_step(learner.meta_gradient, tx)
    state = fit(step, state, sampler, KEY, num_steps=400, meta_batch=16)
    scores = evaluate(
        learner, state.meta_params, sampler, jax.random.key(1), num_tasks=300, metric=accuracy
    )
    assert scores.mean[0] == pytest.approx(0.9, abs=0.02)
    task = sampler(None, jax.random.key(2))
    adapted = learner.adapt(state.meta_params, task.support, KEY).params
    drawn = sample(adapted, jax.random.key(3), 200).reshape(2, 200, 4)
    seen = jnp.stack([jnp.mean(task.support.inputs[c::2]) for c in range(2)])
    # Eight examples leave no doubt which of the two kinds a class is.
    expected = jnp.where(seen > 0.5, 0.9, 0.1)
    np.testing.assert_allclose(jnp.mean(drawn, axis=(1, 2)), expected, atol=0.08)


@pytest.mark.parametrize("shape", [(6, 5, 1), (9, 8, 3)])
def test_it_draws_images_of_any_shape(shape, randomised):
    learner, sample = statistician(identity(), shape, ways=2, **SIZES, filters=2)
    support = Batch(jnp.ones((4, *shape)), jnp.array([0, 1, 0, 1]))
    adapted = learner.adapt(learner.init(KEY, support.inputs), support, KEY).params
    drawn = sample(adapted, KEY, 3)
    assert drawn.shape == (6, *shape)
    assert float(drawn.min()) >= 0
    assert float(drawn.max()) <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ways": 0}, "ways must be an integer of at least 1"),
        ({"latent": 0}, "latent must be an integer of at least 1"),
        ({"shape": 4}, "shape must be a sequence"),
    ],
)
def test_impossible_sizes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        statistician(identity(), **{"shape": (2,), "ways": 2, **SIZES} | options)


def test_of_every_class_some_examples_stay_in_training():
    labels = jax.nn.one_hot(jnp.array([0, 0, 0, 0, 1]), 3)
    keys = jax.random.split(KEY, 2_000)
    kept = jax.vmap(lambda key: _some(labels, key, 0.5))(keys)
    assert bool(jnp.all((kept == labels[None]) | (kept == 0)))
    numbers = jnp.sum(kept, axis=1)
    assert bool(jnp.all(numbers[:, 1] == 1))  # the only one
    assert bool(jnp.all(numbers[:, 2] == 0))
    # Four coins, where one stays if all fall: 0.5 of each, and one more in 16 draws.
    assert float(jnp.mean(numbers[:, 0])) == pytest.approx(4 / 2 + 1 / 16, abs=0.06)
    assert float(jnp.min(numbers[:, 0])) == 1
    np.testing.assert_allclose(jnp.mean(kept[:, :4, 0], axis=0), 0.5 + 1 / 64, atol=0.04)
    np.testing.assert_array_equal(_some(labels, KEY, 0.0), labels)
    assert float(_some(labels, KEY, 1.0).sum()) == 2


def test_the_statistic_knows_how_many_examples_it_is_of(task, randomised):
    learner = statistician(identity(), (2,), ways=2, **SIZES).learner
    params = randomised(learner.init(KEY, jnp.zeros((1, 2))))
    twice = jax.tree.map(lambda x: jnp.concatenate([x, x]), task.support)
    once, doubled = (
        learner.adapt(params, b, KEY).params.memory.mean for b in (task.support, twice)
    )
    assert not np.allclose(once, doubled)
    # It is one more feature, the logarithm of the number: without its weights both are the same.
    params["after"]["Dense_0"]["kernel"] = params["after"]["Dense_0"]["kernel"].at[-1].set(0)
    once, doubled = (
        learner.adapt(params, b, KEY).params.memory.mean for b in (task.support, twice)
    )
    np.testing.assert_allclose(once, doubled, rtol=1e-5)
