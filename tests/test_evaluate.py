"""Meta-testing: the right numbers, on the same tasks for everyone, with nothing left out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mamljax import Batch, Task, evaluate, sharding, tasks
from mamljax.checks import ArgumentError
from mamljax.evaluate import query_curves, summarise

KEY = jax.random.key(2)


@pytest.fixture
def report_of(learner_of):
    """`evaluate` a small learner on sinusoids, always from the same starting parameters."""

    def report(*, shots=5, sampler=None, learner=None, **options):
        learner = learner_of(num_steps=2) if learner is None else learner
        sampler = tasks.sinusoid(shots, 6) if sampler is None else sampler
        meta_params = learner.init(jax.random.key(0), jnp.zeros((1, 1)))
        return evaluate(learner, meta_params, sampler, KEY, **{"num_tasks": 20, **options})

    return report


def test_statistics_are_those_of_all_tasks(report_of):
    report = report_of()
    values = report.values
    assert values.shape == (20, 3)
    assert len(np.unique(values)) == 60
    assert (report.num_tasks, report.num_diverged) == (20, 0)
    np.testing.assert_allclose(report.mean, np.sum(values, axis=0) / 20, rtol=1e-12)
    std = np.sqrt(np.mean((values - values.mean(0)) ** 2, axis=0))
    np.testing.assert_allclose(report.std, std, rtol=1e-12)
    np.testing.assert_allclose(report.ci95, 1.96 * std / np.sqrt(20), rtol=1e-12)
    middle = np.sort(values, axis=0)[9:11].mean(0)
    np.testing.assert_allclose(report.median, middle, rtol=1e-12)


def test_scores_are_query_losses_before_and_after_each_step(report_of, learner_of, tasks_of):
    learner = learner_of(num_steps=3)
    given = tasks_of(2)
    meta_params = learner.init(jax.random.key(0), jnp.zeros((1, 1)))
    report = evaluate(learner, meta_params, tasks=given)
    task = jax.tree.map(lambda x: x[1], given)

    def after(num_steps):
        adapted = learner.adapt(meta_params, task.support, KEY, num_steps=num_steps).params
        return learner.loss(adapted, task.query, None, num_steps)

    np.testing.assert_allclose(report.values[1], [after(s) for s in range(4)], rtol=1e-5)


def test_chunks_of_tasks_change_nothing(report_of, learner_of):
    learner = learner_of(num_steps=2)
    whole = report_of(learner=learner).values
    for task_chunk in (1, 7, 100):
        parts = report_of(learner=learner, task_chunk=task_chunk).values
        np.testing.assert_allclose(parts, whole, rtol=1e-5)


def test_given_tasks_are_tested_once_each(learner_of, tasks_of):
    learner, given = learner_of(num_steps=1), tasks_of(5)
    params = learner.init(jax.random.key(0), jnp.zeros((1, 1)))
    expected = evaluate(learner, params, tasks=given).values
    assert len(np.unique(expected)) == 10
    backwards = jax.tree.map(lambda x: x[::-1], given)
    for options in ({}, {"task_chunk": 2}, {"mesh": sharding.task_mesh(jax.devices()[:5])}):
        found = evaluate(learner, params, tasks=backwards, **options)
        assert (found.num_tasks, found.values.shape) == (5, (5, 2))
        np.testing.assert_allclose(found.values[::-1], expected, rtol=1e-5)


def one_too_short(tasks):
    return tasks._replace(support=tasks.support._replace(targets=tasks.support.targets[:, 1:]))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (lambda t: {"tasks": t, "num_tasks": 2}, "in place of sampler and num_tasks"),
        (lambda t: {"tasks": t, "sampler": tasks.sinusoid(2, 2)}, "in place of sampler"),
        (lambda t: {}, "sampler and num_tasks, or tasks, must be given; got neither"),
        (lambda t: {"sampler": tasks.sinusoid(2, 2), "num_tasks": 2}, "key must be"),
        (lambda t: {"tasks": tuple(t)}, "tasks must be a mamljax.Task .* got tuple"),
        (lambda t: {"tasks": t._replace(query=t.query[0])}, "tasks: query must be a mamljax.Batch"),
        (lambda t: {"tasks": jax.tree.map(lambda x: x[:0], t)}, "holds no tasks"),
        (lambda t: {"tasks": jax.tree.map(lambda x: x[0], t)}, "share their leading axis"),
        (lambda t: {"tasks": one_too_short(t)}, r"the support set must share .*\(4,\).*\(3,\)"),
        (
            lambda t: {"tasks": t._replace(query=t.query._replace(inputs=list(t.query.inputs)))},
            r"query\.inputs in tasks must be an array; got a list of 3.*numpy\.stack",
        ),
    ],
)
def test_a_source_of_tasks_that_is_none_is_explained(learner_of, tasks_of, source, message):
    learner = learner_of(num_steps=1)
    params = learner.init(jax.random.key(0), jnp.zeros((1, 1)))
    with pytest.raises(ArgumentError, match=message):
        evaluate(learner, params, **source(tasks_of(3)))


def test_tasks_of_numpy_are_refused(report_of):
    rng = np.random.default_rng(0)

    def sampler(meta_params, key):
        batch = Batch(rng.normal(size=(4, 1)), rng.normal(size=(4, 1)))
        return Task(batch, batch)

    with pytest.raises(ArgumentError, match=r"does not depend on it.*evaluate\(tasks=...\)"):
        report_of(sampler=sampler)


def test_only_one_chunk_of_tasks_is_ever_drawn(learner_of):
    learner = learner_of()
    meta_params = learner.init(KEY, jnp.zeros((1, 1)))

    def memory(num_tasks):
        sizes = {"num_tasks": num_tasks, "num_steps": 1, "task_chunk": 2}
        curves = functools.partial(query_curves, learner, tasks.sinusoid(100, 100), **sizes)
        lowered = jax.jit(curves).lower(meta_params, KEY)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    # A hundred tasks alone would take 160 kB.
    assert memory(102) - memory(2) < 20_000


def test_further_metrics_are_of_the_same_predictions(report_of):
    def furthest(outputs, targets):
        return jnp.max(jnp.abs(outputs - targets))

    plain, found = report_of(), report_of(info={"furthest": furthest}, task_chunk=7)
    np.testing.assert_allclose(found.values, plain.values, rtol=1e-5)
    assert plain.info == {}
    assert found.info["furthest"].shape == (20, 3)
    assert np.all(np.square(found.info["furthest"]) > found.values)
    expected = report_of(metric=furthest).values
    np.testing.assert_allclose(found.info["furthest"], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("info", "message"),
    [
        (len, "info must be a mapping of names .* got builtin_function_or_method"),
        ({"a": 3}, r"info\['a'\] must be a function \(outputs, targets\) -> scalar; got int"),
        (
            {"a": lambda outputs, targets: outputs},
            r"info\['a'\] must return a floating-point scalar",
        ),
    ],
)
def test_further_metrics_must_be_functions_by_name(report_of, info, message):
    with pytest.raises(ArgumentError, match=message):
        report_of(info=info)


def test_sampler_must_be_a_function(report_of):
    with pytest.raises(TypeError, match=r"sampler must be a function \(meta_params, key\) -> Task"):
        report_of(sampler=3)


def test_every_setting_meets_the_same_tasks(report_of, learner_of):
    # Before adaptation nothing but the query set matters, so its losses show which tasks came.
    two_steps = report_of(learner=learner_of(num_steps=2)).values
    more_shots = report_of(learner=learner_of(num_steps=2), shots=10).values
    four_steps = report_of(learner=learner_of(num_steps=2), num_steps=4).values
    other_rate = report_of(learner=learner_of(inner_lr=0.01, num_steps=1)).values
    assert four_steps.shape == (20, 5)
    for values in (more_shots, four_steps, other_rate):
        np.testing.assert_allclose(values[:, 0], two_steps[:, 0], rtol=1e-6)
    np.testing.assert_allclose(four_steps[:, :3], two_steps, rtol=1e-5)
    for values in (more_shots, other_rate):
        assert np.all(values[:, 1] != two_steps[:, 1])


def test_own_metric(report_of, learner_of):
    # Larger targets count more in the squared error than in the absolute one.
    learner = learner_of(num_steps=2)
    report = report_of(learner=learner, metric=lambda o, t: jnp.mean(jnp.abs(o - t)))
    squared = report_of(learner=learner, metric=lambda o, t: jnp.mean((o - t) ** 2))
    loss = report_of(learner=learner)
    np.testing.assert_allclose(squared.values, loss.values, rtol=1e-5)
    assert np.all(report.values**2 < loss.values)  # Jensen


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (lambda o, t: o - t, r"metric must .* got shape \(6, 1\).*Average it over"),
        (lambda o, t: jnp.sum(o > t), r"metric must return a floating-point scalar; .*int"),
    ],
    ids=["not a scalar", "not a float"],
)
def test_metric_must_be_one_number(report_of, metric, message):
    with pytest.raises(ValueError, match=message):
        report_of(metric=metric)


def test_metric_must_be_a_function_of_two(report_of):
    with pytest.raises(TypeError, match=r"metric must be a function \(outputs, targets\)"):
        report_of(metric=len)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_tasks": 0}, "num_tasks must be an integer of at least 1; got 0"),
        ({"task_chunk": 0}, "task_chunk must be an integer of at least 1; got 0"),
        ({"num_steps": -1}, "num_steps must be an integer of at least 0; got -1"),
    ],
    ids=str,
)
def test_wrong_arguments_are_explained(report_of, options, message):
    with pytest.raises(ValueError, match=message):
        report_of(**options)


@pytest.mark.parametrize(
    ("curve", "diverged"),
    [
        ([1.0, 1.0, 10.0], 0),  # exactly ten times is not more
        ([1.0, 1.0, 10.1], 1),
        ([1.0, 50.0, 5.0], 0),  # it came back
        ([0.01, 1.0, 5.0], 0),  # its own loss was small, but not that of the others
        ([9.0, 9.0, 80.0], 0),  # its own loss was large
        ([1.0, np.nan, 1.0], 1),
        ([1.0, 1.0, np.inf], 1),
    ],
)
def test_which_tasks_count_as_diverged(curve, diverged):
    losses = np.array([[1.0, 0.5, 0.1]] * 1000 + [curve])  # so many that their mean stays 1
    report = summarise(np.zeros_like(losses), losses)
    assert (report.num_tasks, report.num_diverged) == (1001, diverged)
    np.testing.assert_array_equal(report.mean, 0.0)  # of the scores, not of the losses


def test_a_task_that_starts_as_nan_does_not_hide_another():
    losses = np.array([[1.0, 0.5]] * 10 + [[np.nan, np.nan], [1.0, 50.0]])
    assert summarise(losses, losses).num_diverged == 2


def test_diverged_tasks_are_counted_and_kept(report_of, learner_of):
    wild = learner_of(inner_lr=1e20, num_steps=2)
    report = report_of(learner=wild)
    assert report.num_diverged == report.num_tasks == len(report.values) == 20
    assert not np.isfinite(report.mean[-1])
    assert np.isfinite(report.mean[0])
    # By the loss, even where the metric hides it.
    hidden = report_of(learner=wild, metric=lambda o, t: jnp.zeros(()))
    assert hidden.num_diverged == 20
    np.testing.assert_array_equal(hidden.mean, 0.0)


def test_devices_share_the_tasks(report_of, learner_of):
    learner = learner_of(num_steps=2)
    expected = report_of(learner=learner).values
    for task_chunk, devices in ((None, slice(4)), (2, slice(2, 4))):
        mesh = sharding.task_mesh(jax.devices()[devices])
        found = report_of(learner=learner, mesh=mesh, task_chunk=task_chunk).values
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_negative_losses_diverge_by_rising_far():
    """Minus a return of 100, say: losing a little of it is no divergence."""
    losses = np.array([[-100.0, -90.0], [-100.0, 799.0], [-100.0, 801.0]])
    assert summarise(losses, losses).num_diverged == 1
