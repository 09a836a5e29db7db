"""The baselines against what defines them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mamljax import losses, maml, models, tasks
from mamljax.baselines import oracle, pretrain, train_regressors
from mamljax.evaluate import evaluate
from mamljax.sharding import task_mesh
from mamljax.tuning import tune_inner_lr

MSE = losses.mean_squared_error
MODEL = models.mlp((8, 1))
LINEAR = models.from_function(
    lambda params, x: x @ params["w"],
    lambda key, x: {"w": jax.random.normal(key, (x.shape[-1], 1))},
)


def drawn_tasks(number=4, **options):
    return tasks.sample_tasks(tasks.sinusoid(5, 6, **options), None, jax.random.key(1), number)


def test_pretraining_is_joint_training_and_adapts_like_gradient_descent():
    learner = pretrain(MODEL, MSE, inner_lr=0.1, num_steps=3)
    batch = drawn_tasks()
    params = learner.init(jax.random.key(0), batch.query.inputs[0])

    def joint(params):
        return MSE(
            MODEL.apply(params, batch.query.inputs.reshape(-1, 1)),
            batch.query.targets.reshape(-1, 1),
        )

    grads, _ = learner.meta_gradient(params, batch, jax.random.key(2))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        grads,
        jax.grad(joint)(params),
    )
    support = jax.tree.map(lambda x: x[0], batch.support)
    ours = learner.adapt(params, support, jax.random.key(0)).params
    theirs = maml(MODEL, MSE, inner_lr=0.1, num_steps=3).adapt(params, support, jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs.params)


def test_the_oracle_sees_the_task_and_never_moves():
    learner = oracle(MODEL, MSE)
    sampler = tasks.sinusoid(5, 6, reveal=True)
    params = learner.init(jax.random.key(0), sampler(None, jax.random.key(0)).query.inputs)
    scores = evaluate(learner, params, sampler, jax.random.key(1), num_tasks=7, num_steps=3)
    assert scores.values[:, 0].std() > 0
    still = scores.values[:, :1].repeat(4, axis=1)
    np.testing.assert_allclose(scores.values, still, rtol=1e-5)  # but for rounding


def test_tuning_finds_the_best_candidate_and_equals_separate_evaluations():
    candidates = (1e-4, 0.1, 0.3, 1e6)
    params = MODEL.init(jax.random.key(0), jnp.zeros((1, 1)))

    def build(inner_lr):
        return pretrain(MODEL, MSE, inner_lr=inner_lr)

    sampler, key = tasks.sinusoid(10, 20), jax.random.key(3)
    options = {"num_tasks": 30, "num_steps": 4}
    tuned = tune_inner_lr(build, params, sampler, key, candidates=candidates, **options)
    for rate in candidates[:3]:
        alone = evaluate(build(rate), params, sampler, key, **options).mean[1:].mean()
        assert tuned.scores[rate] == pytest.approx(alone, rel=1e-4)
    assert not np.isfinite(tuned.scores[1e6])  # reported as it is, never chosen
    assert tuned.inner_lr == min(candidates[:3], key=tuned.scores.get)
    shared = {"candidates": candidates, "mesh": task_mesh(jax.devices()[:3]), **options}
    assert tune_inner_lr(build, params, sampler, key, **shared).scores == pytest.approx(
        tuned.scores, rel=1e-5, nan_ok=True
    )
    with pytest.raises(ValueError, match="all diverge"):
        tune_inner_lr(build, params, sampler, key, candidates=(1e7, 1e8), **options)
    with pytest.raises(ValueError, match="candidates"):
        tune_inner_lr(build, params, sampler, key, candidates=(), **options)


def regress(penalty, strength=0.0, number=6, task_chunk=50, num_steps=300, start="own"):
    return train_regressors(
        LINEAR,
        MSE,
        tasks.sinusoid(20, 20, reveal=True),
        jax.random.key(5),
        num_regressors=number,
        num_steps=num_steps,
        tx=optax.sgd(0.02),
        penalty=penalty,
        strength=strength,
        start=start,
        task_chunk=task_chunk,
    )


@pytest.mark.parametrize("penalty", ["none", "mean"])
@pytest.mark.parametrize("start", ["own", "common", "previous"])
def test_regressors_begin_from_weights_of_their_own_from_common_ones_or_go_on(penalty, start):
    """Without a step and without a penalty the mean is that of the initial weights."""
    sampler, tx = tasks.sinusoid(20, 20, reveal=True), optax.sgd(0.02)
    first, second = (
        LINEAR.init(jax.random.split(key)[1], sampler(None, key).support.inputs)["w"]
        for key in jax.random.split(jax.random.key(5), 2)
    )
    still = train_regressors(
        LINEAR, MSE, sampler, jax.random.key(5), num_regressors=2, num_steps=1,
        tx=optax.set_to_zero(), penalty=penalty, start=start,
    )  # fmt: skip
    expected = (first + second) / 2 if start == "own" else first
    np.testing.assert_allclose(still.params["w"], expected, rtol=1e-6)
    # Only what goes on from the previous one is further after two tasks than after the first.
    one, two = (
        train_regressors(
            LINEAR, MSE, sampler, jax.random.key(5), num_regressors=number, num_steps=1, tx=tx,
            penalty=penalty, start=start,
        ).params["w"]
        for number in (1, 2)
    )  # fmt: skip
    task = sampler(None, jax.random.split(jax.random.split(jax.random.key(5), 2)[1])[0])
    begun = {"own": second, "common": first, "previous": one}[start]
    x, y = task.support
    trained = begun - 0.02 * 2 * x.T @ (x @ begun - y) / len(x)
    np.testing.assert_allclose(two, (one + trained) / 2, rtol=1e-4)


def test_averages_do_not_depend_on_how_many_are_trained_at_a_time():
    whole, parts = regress("none"), regress("none", task_chunk=4)
    np.testing.assert_allclose(whole.params["w"], parts.params["w"], rtol=1e-5)
    np.testing.assert_allclose(whole.errors, parts.errors, rtol=1e-5)


def test_l2_reaches_the_ridge_solution():
    """Full-batch descent on mean squared error + strength |w|^2 has a closed form."""
    strength = 0.5
    found = regress("l2", strength, number=3, num_steps=3000).params["w"]
    solutions = []
    for key in jax.random.split(jax.random.key(5), 3):
        batch = tasks.sinusoid(20, 20, reveal=True)(None, jax.random.split(key)[0]).support
        x, y = (np.asarray(a, np.float64) for a in batch)
        gram = x.T @ x / len(x) + strength * np.eye(3)
        solutions.append(np.linalg.solve(gram, x.T @ y / len(x)))
    np.testing.assert_allclose(found, np.mean(solutions, axis=0), rtol=1e-3, atol=1e-4)


def test_mean_penalty_draws_each_regressor_to_the_mean_of_those_before_it():
    """The recursion, unrolled by hand with the closed form of each regressor."""
    strength, trained = 0.5, []
    for key in jax.random.split(jax.random.key(5), 3):
        batch = tasks.sinusoid(20, 20, reveal=True)(None, jax.random.split(key)[0]).support
        x, y = (np.asarray(a, np.float64) for a in batch)
        before = np.mean(trained, axis=0) if trained else np.zeros((3, 1))
        gram = x.T @ x / len(x) + strength * np.eye(3)
        trained.append(np.linalg.solve(gram, x.T @ y / len(x) + strength * before))
    found = regress("mean", strength, number=3, num_steps=3000).params["w"]
    np.testing.assert_allclose(found, np.mean(trained, axis=0), rtol=1e-3, atol=1e-4)


def test_an_unknown_penalty_is_refused_with_a_hint():
    with pytest.raises(ValueError, match="Did you mean 'mean'"):
        regress("means")
