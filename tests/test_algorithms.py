"""Every named algorithm against something known without it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from jax.flatten_util import ravel_pytree

from mamljax import (
    Batch,
    PerStep,
    Task,
    algorithms,
    baselines,
    inner_optim,
    losses,
    maml,
    meta,
    meta_step,
    models,
    partition,
    query_loss,
    rl,
)
from mamljax.implicit import implicit, proximal
from mamljax.inner import unroll
from mamljax.inner_optim import WithRule
from mamljax.objective import annealed_weights, distance_moved
from mamljax.sharding import on_all_devices, task_mesh
from mamljax.tasks import sample_tasks

KEY = jax.random.key(3)
MSE = losses.mean_squared_error
MODEL = models.mlp((6, 1), activation="tanh")
HEAD = "^Dense_1/"

# Beyond what test_gradients.py holds `maml` to: learners with meta-parameters or derivatives of
# their own kind, whose meta-gradient must be that of their meta-loss.
EXACT = {
    "anil": lambda **o: algorithms.anil(MODEL, MSE, HEAD, **o),
    "boil": lambda **o: algorithms.boil(MODEL, MSE, HEAD, **o),
    "meta_sgd": lambda **o: algorithms.meta_sgd(MODEL, MSE, inner_lr=0.05, **o),
    "one learned rate": lambda **o: algorithms.meta_sgd(
        MODEL, MSE, inner_lr=0.05, per="model", **o
    ),
    "meta_curvature": lambda **o: algorithms.meta_curvature(MODEL, MSE, inner_lr=0.05, **o),
    "maml_plus_plus": lambda **o: algorithms.maml_plus_plus(MODEL, MSE, inner_lr=0.05, **o),
    "maml_plus_plus, annealing": lambda **o: algorithms.maml_plus_plus(
        MODEL, MSE, inner_lr=0.05, iteration=100, **o
    ),
    "cavia": lambda **o: algorithms.cavia(MODEL, MSE, (2,), inner_lr=0.5, **o),
    "anil, meta_sgd, multi-step": lambda **o: algorithms.meta_sgd(
        MODEL,
        MSE,
        inner_lr=0.05,
        partition=partition.by_path(HEAD),
        step_weights=[0.2, 0.3, 0.5],
        **o,
    ),
    "cavia, learned rates": lambda **o: algorithms.cavia(
        MODEL, MSE, (2,), inner_tx=inner_optim.learned_sgd(0.5, per="tensor", num_steps=3), **o
    ),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", EXACT)
def test_meta_gradients_are_those_of_finite_differences(
    name, tasks_of, params_of, assert_finite_differences
):
    learner, tasks = EXACT[name](num_steps=3), tasks_of(3)
    params = params_of(learner, tasks)
    # Away from where learned matrices are the identity and learned rates all equal.
    noise = iter(np.random.default_rng(0).normal(size=1000))
    params = jax.tree.map(lambda x: x + 0.01 * next(noise), params)
    assert_finite_differences(learner, params, tasks)


# Partitions: what moves in the inner loop, and what does not.


def moved(learner, params, tasks):
    support = jax.tree.map(lambda x: x[0], tasks.support)
    adapted = learner.adapt(params, support, KEY, num_steps=2).params
    return jax.tree.map(lambda a, b: bool(np.any(a != b)), params, adapted)


def test_anil_and_boil_move_complementary_parts(tasks_of, params_of):
    tasks = tasks_of(1)
    anil = algorithms.anil(MODEL, MSE, HEAD)
    boil = algorithms.boil(MODEL, MSE, HEAD)
    params = params_of(anil, tasks)
    still, goes = {"bias": False, "kernel": False}, {"bias": True, "kernel": True}
    assert moved(anil, params, tasks) == {"Dense_0": still, "Dense_1": goes}
    assert moved(boil, params, tasks) == {"Dense_0": goes, "Dense_1": still}


def test_a_head_that_is_not_there_is_named():
    learner = algorithms.anil(MODEL, MSE, "^head/")
    params = MODEL.init(KEY, jnp.zeros((1, 1)))
    with pytest.raises(ValueError, match=r"anil: head='\^head/' selects none of the parameters"):
        learner.adapt(params, Batch(jnp.zeros((1, 1)), jnp.zeros((1, 1))), KEY)


def test_cavia_resets_its_context_and_meta_learns_the_model_alone(tasks_of, params_of):
    learner, tasks = algorithms.cavia(MODEL, MSE, (3,), inner_lr=1.0, num_steps=2), tasks_of(2)
    params = params_of(learner, tasks)
    assert jax.tree.structure(params) == jax.tree.structure(MODEL.init(KEY, jnp.zeros((1, 4))))
    support = jax.tree.map(lambda x: x[0], tasks.support)
    adapted = learner.adapt(params, support, KEY).params
    jax.tree.map(np.testing.assert_array_equal, adapted["model"], params)

    def loss(context):
        return learner.loss({"context": context, "model": params}, support)

    context = jnp.zeros(3)
    for _ in range(2):
        context = context - jax.grad(loss)(context)
    np.testing.assert_allclose(adapted["context"], context, rtol=1e-5)


# Learned inner updates: equal to what is known where they begin, and learned from there.


@pytest.mark.parametrize("per", ["model", "tensor", "parameter"])
@pytest.mark.parametrize("num_steps", [None, 2])
def test_equal_learned_rates_are_maml(per, num_steps, tasks_of, params_of, assert_close):
    rule = inner_optim.learned_sgd(0.05, per=per, num_steps=num_steps)
    learner = maml(MODEL, MSE, inner_tx=rule, num_steps=3)
    plain, tasks = maml(MODEL, MSE, inner_lr=0.05, num_steps=3), tasks_of(3)
    params = params_of(learner, tasks)
    found, found_metrics = jax.jit(learner.meta_gradient)(params, tasks, KEY)
    expected, metrics = jax.jit(plain.meta_gradient)(params.model, tasks, KEY)
    assert_close(found.model, expected, rtol=1e-5)
    assert float(found_metrics.loss) == pytest.approx(float(metrics.loss), rel=1e-5)


def test_rates_belong_to_their_tensor_and_step(tasks_of, params_of):
    rule = inner_optim.learned_sgd(0.1, per="tensor", num_steps=2)
    learner = maml(MODEL, MSE, inner_tx=rule, num_steps=3)
    tasks = tasks_of(1)
    params = params_of(learner, tasks)
    factors = jax.tree.map(jnp.zeros_like, params.rule)
    factors["Dense_1"]["bias"] = jnp.array([0.0, 0.5])
    support = jax.tree.map(lambda x: x[0], tasks.support)
    seen = learner.adapt(
        WithRule(params.model, factors), support, KEY, observe=lambda params, step: params
    ).observed
    changes = jax.tree.map(
        lambda x: np.any(np.diff(x, axis=0) != 0, axis=tuple(range(1, x.ndim))), seen
    )
    # Step 0 has a rate of 0; the third step takes the rate of the second.
    np.testing.assert_array_equal(changes["Dense_1"].pop("bias"), [False, True, True])
    assert not any(np.any(x) for x in jax.tree.leaves(changes))


def test_learned_rates_find_the_best_step_size():
    """On f = (w - a)^2 / 2 one step of size 1 solves every task: the rate must go there."""
    model = models.from_function(lambda w, x: w + 0 * x, lambda key, x: jnp.zeros(()))

    def half_squared(outputs, targets):
        return 0.5 * jnp.mean(jnp.square(outputs - targets))

    learner = algorithms.meta_sgd(model, half_squared, inner_lr=0.1, per="model")
    goals = jnp.array([[-2.0], [1.0], [3.0]])
    tasks = Task(Batch(goals, goals), Batch(goals, goals))
    tx = optax.sgd(5.0)
    state = meta.init_state(learner.init(KEY, goals[0]), tx)
    step = jax.jit(meta_step(learner.meta_gradient, tx))
    for _ in range(200):
        state, metrics = step(state, tasks, KEY)
    assert 0.1 * float(state.meta_params.rule) == pytest.approx(1.0, abs=1e-3)
    assert float(metrics.loss) < 1e-5


def test_meta_curvature_begins_as_maml_and_multiplies_every_axis(randomised):
    rule = inner_optim.meta_curvature(0.1)
    like = {"kernel": jnp.zeros((3, 3, 2, 4)), "dense": jnp.zeros((2, 3)), "bias": jnp.zeros(3)}
    own, grads = rule.init(KEY, like), randomised(like)

    def update(own):
        return rule.update(own, inner_optim.Seen(grads, like, jnp.zeros(()), 0), ())[0]

    for found, grad in zip(*map(jax.tree.leaves, (update(own), grads)), strict=True):
        np.testing.assert_allclose(found, -0.1 * grad, rtol=1e-6)
    own = randomised(own, seed=1)
    found = update(own)
    space, inputs, outputs = own["kernel"]
    folded = np.einsum(
        "ed,ic,of,dcf->eio", space, inputs, outputs, grads["kernel"].reshape(9, 2, 4)
    )
    np.testing.assert_allclose(
        found["kernel"], -0.1 * folded.reshape(3, 3, 2, 4), rtol=1e-4, atol=1e-6
    )
    left, right = own["dense"]
    np.testing.assert_allclose(
        found["dense"], -0.1 * left @ grads["dense"] @ right.T, rtol=1e-4, atol=1e-6
    )


def test_plain_parameters_are_refused_where_rates_are_expected():
    learner = algorithms.meta_sgd(MODEL, MSE)
    batch = Batch(jnp.zeros((1, 1)), jnp.zeros((1, 1)))
    with pytest.raises(TypeError, match=r"inner_optim\.WithRule\(model, rule\).*got dict"):
        learner.adapt(MODEL.init(KEY, batch.inputs), batch, KEY)


# MAML++: what is annealed.


@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        (0.0, [0.25, 0.25, 0.25, 0.25]),
        (0.5, [0.125, 0.125, 0.125, 0.625]),
        (0.99, [0.0075, 0.0075, 0.0075, 0.9775]),
        (1.0, [0, 0, 0, 1]),
        (7.0, [0, 0, 0, 1]),
    ],
)
def test_weights_of_the_steps_move_to_the_last(progress, expected):
    np.testing.assert_allclose(annealed_weights(4, progress), expected, rtol=1e-5)
    assert annealed_weights(1, progress).tolist() == [1.0]


def test_maml_plus_plus_ends_as_learned_rates_on_the_query_loss(tasks_of, params_of, assert_close):
    tasks = tasks_of(2)
    options = {"inner_lr": 0.05, "num_steps": 3}
    at_end = algorithms.maml_plus_plus(MODEL, MSE, iteration=10_000, **options)
    plain = algorithms.maml_plus_plus(MODEL, MSE, **options)
    params = params_of(plain, tasks)
    found, expected = (
        jax.jit(learner.meta_gradient)(params, tasks, KEY)[0] for learner in (at_end, plain)
    )
    assert_close(found, expected, rtol=1e-4)


@pytest.mark.parametrize("mesh", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_annealing_follows_the_iteration_within_one_program(
    mesh, tasks_of, params_of, assert_close
):
    tasks, tx = tasks_of(4), optax.sgd(1.0)
    options = {"inner_lr": 0.1, "num_steps": 2, "loss_annealing": 4, "first_order_until": 2}
    if mesh:
        options["mesh"] = task_mesh(jax.devices()[:2])

    def learner_at(iteration):
        return algorithms.maml_plus_plus(MODEL, MSE, iteration=iteration, **options)

    step = jax.jit(meta.annealed_step(learner_at, tx))
    state = meta.init_state(params_of(learner_at(0), tasks), tx)
    state = on_all_devices(state, options.get("mesh"))
    for iteration in range(6):
        learner = learner_at(iteration)
        expected = jax.jit(learner.meta_gradient)(state.meta_params, tasks, KEY)[0]
        by_hand = optax.tree.sub(state.meta_params, expected)
        following = step(state, tasks, KEY)[0]
        assert_close(following.meta_params, by_hand, rtol=1e-5)
        state = following._replace(meta_params=state.meta_params)
    assert step._cache_size() == 1


def test_first_iterations_may_be_first_order(tasks_of, params_of, assert_close):
    tasks, options = tasks_of(2), {"inner_lr": 0.1, "num_steps": 2}
    early = algorithms.maml_plus_plus(MODEL, MSE, iteration=1, first_order_until=2, **options)
    late = algorithms.maml_plus_plus(MODEL, MSE, iteration=2, first_order_until=2, **options)
    params = params_of(early, tasks)
    found = {}
    for name, learner, first_order in (("early", early, True), ("late", late, False)):
        weights = annealed_weights(2, (1 if first_order else 2) / 7_500)
        rates = inner_optim.learned_sgd(0.1, per="tensor", num_steps=2)
        plain = maml(
            MODEL, MSE, num_steps=2, inner_tx=rates, step_weights=weights, first_order=first_order
        )
        found[name] = jax.jit(learner.meta_gradient)(params, tasks, KEY)[0]
        expected = jax.jit(plain.meta_gradient)(params, tasks, KEY)[0]
        assert_close(found[name], expected, rtol=1e-4)
    different = jax.tree.map(lambda a, b: np.abs(a - b).max(), found["early"], found["late"])
    assert max(jax.tree.leaves(different)) > 1e-4


# Implicit MAML.


def quadratic(hessian):
    """A loss (w - a)^T H (w - a) / 2, as a model and a loss: targets are a."""
    model = models.from_function(lambda w, x: w, lambda key, x: jnp.zeros(len(hessian)))

    def loss(w, targets):
        away = w - targets[0]
        return 0.5 * away @ hessian @ away

    return model, loss


@pytest.mark.usefixtures("x64")
def test_implicit_gradient_of_a_quadratic_is_its_closed_form():
    """phi* = (H + l)^-1 (H a + l theta), so d query / d theta = l (H + l)^-1 H (phi* - b)."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(4, 4))
    hessian, strength = jnp.asarray(root @ root.T), 0.7
    model, loss = quadratic(hessian)
    learner = algorithms.imaml(
        model, loss, inner_lr=0.05, num_steps=3_000, strength=strength, cg_steps=20
    )
    theta, a, b = jnp.asarray(rng.normal(size=(3, 4)))
    task = Task(Batch(a[None], a[None]), Batch(b[None], b[None]))
    held = hessian + strength * np.eye(4)
    minimum = np.linalg.solve(held, hessian @ a + strength * theta)
    expected = strength * np.linalg.solve(held, hessian @ (minimum - b))
    np.testing.assert_allclose(learner.adapt(theta, task.support, KEY).params, minimum, rtol=1e-6)
    found = jax.grad(learner.objective)(theta, task, KEY)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("chosen", [None, partition.by_path(HEAD)], ids=["all", "head"])
def test_implicit_gradient_of_a_network_is_that_of_finite_differences(
    chosen, tasks_of, params_of, assert_finite_differences
):
    learner = algorithms.imaml(
        MODEL, MSE, inner_lr=0.05, num_steps=800, strength=3.0, cg_steps=40, partition=chosen
    )
    tasks = tasks_of(2)
    params = params_of(learner, tasks)
    assert_finite_differences(learner, params, tasks, rtol=1e-4, eps=1e-5)


def test_implicit_gradient_stores_nothing_per_step(tasks_of, params_of):
    tasks = tasks_of(1)

    def temporaries(make, num_steps):
        learner = make(MODEL, MSE, num_steps=num_steps)
        params = params_of(learner, tasks)
        compiled = jax.jit(learner.meta_gradient).lower(params, tasks, KEY).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporaries(algorithms.imaml, 400) < 1.1 * temporaries(algorithms.imaml, 10)
    assert temporaries(maml, 400) > 5 * temporaries(maml, 10)


def test_implicit_adaptation_has_no_gradient_on_its_way(tasks_of, params_of):
    learner, tasks = algorithms.imaml(MODEL, MSE, num_steps=2), tasks_of(1)
    params = params_of(learner, tasks)
    support = jax.tree.map(lambda x: x[0], tasks.support)

    def way(params):
        observed = learner.adapt(params, support, KEY, observe=lambda p, step: p).observed
        return jnp.sum(observed["Dense_1"]["bias"])

    assert np.isfinite(way(params))
    with pytest.raises(ValueError, match="differentiated at its end point only"):
        jax.grad(way)(params)


def test_implicit_adaptation_needs_one_support_set(tasks_of, params_of):
    learner, tasks = algorithms.imaml(MODEL, MSE, num_steps=4), tasks_of(4)
    with pytest.raises(TypeError, match=r"needs one support set.*got PerStep"):
        learner.adapt(params_of(learner, tasks), PerStep(tasks.support), KEY)


@pytest.mark.parametrize(
    ("strength", "cg_steps"), [(0.0, 5), (-1.0, 5), (float("nan"), 5), (1.0, 0)]
)
def test_implicit_options_are_checked(strength, cg_steps):
    with pytest.raises(ValueError, match=r"strength|cg_steps"):
        algorithms.imaml(MODEL, MSE, strength=strength, cg_steps=cg_steps)


def test_implicit_adapts_as_the_proximal_steps_do(tasks_of, params_of):
    """Only the gradient of `implicit` is its own: its values are those of the inner loop."""
    everything, tx, tasks = partition.all_parameters(), optax.sgd(0.05), tasks_of(1)
    plain = maml(MODEL, MSE)
    adapt = implicit(plain.loss, everything, tx, 3, strength=1.0)
    unrolled = unroll(proximal(plain.loss, everything, tx, 1.0), 3)
    params = params_of(plain, tasks)
    task = jax.tree.map(lambda x: x[0], tasks)
    found, expected = (query_loss(f, plain.loss)(params, task, KEY) for f in (adapt, unrolled))
    assert float(found) == pytest.approx(float(expected), rel=1e-6)


def test_a_faint_pull_is_plain_descent(tasks_of, params_of):
    tasks = tasks_of(1)
    plain = maml(MODEL, MSE, inner_lr=0.05, num_steps=3)
    params, task = params_of(plain, tasks), jax.tree.map(lambda x: x[0], tasks)
    step = proximal(plain.loss, partition.all_parameters(), optax.sgd(0.05), 1e-8)
    found = query_loss(unroll(step, 3), plain.loss)(params, task, KEY)
    assert float(found) == pytest.approx(float(plain.objective(params, task, KEY)), rel=1e-6)


# Reptile.


def test_one_step_of_reptile_is_the_gradient_of_all_data(tasks_of, params_of, assert_close):
    learner, tasks = algorithms.reptile(MODEL, MSE, inner_lr=0.05, num_steps=1), tasks_of(3)
    params = params_of(learner, tasks)
    found = jax.jit(learner.meta_gradient)(params, tasks, KEY)[0]
    everything = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), tasks.support, tasks.query)

    def joint(params):
        return jnp.mean(jax.vmap(learner.loss, (None, 0))(params, everything))

    expected = jax.tree.map(lambda g: 0.05 * g, jax.grad(joint)(params))
    assert_close(found, expected, rtol=1e-3)


def test_reptile_moves_towards_the_adapted_parameters(tasks_of, params_of, assert_close):
    learner = algorithms.reptile(MODEL, MSE, inner_lr=0.05, num_steps=4)
    tasks = tasks_of(1)
    tasks = tasks._replace(
        support=PerStep(jax.tree.map(lambda x: jnp.stack(4 * [x], 1), tasks.support))
    )
    params = params_of(learner, tasks)
    gradient, metrics = learner.meta_gradient(params, tasks, KEY)
    support_key = jax.random.split(KEY, 1)[0]
    support = jax.tree.map(lambda x: x[0], tasks.support)
    adapted = learner.adapt(params, support, support_key).params
    assert_close(optax.tree.sub(params, gradient), adapted, rtol=1e-6)
    distance = ravel_pytree(gradient)[0]
    assert float(metrics.loss) == pytest.approx(float(distance @ distance / 2), rel=1e-5)
    # Fresh data for every step leave the query set unseen.
    other = jax.tree.map(lambda x: x + 1, tasks.query)
    again = distance_moved(learner.adapt)(
        params, Task(support, jax.tree.map(lambda x: x[0], other)), support_key
    )
    assert float(again) == pytest.approx(float(metrics.loss), rel=1e-5)


# Proto-MAML: a head that begins at the prototypes.

EMBEDDING = models.mlp((6, 4), activation="tanh")


@pytest.fixture
def clusters(clusters_of):
    """An embedding's parameters, and tasks of three classes, in double precision."""

    def draw(num_tasks=3, **options):
        tasks = sample_tasks(clusters_of(**options), None, KEY, num_tasks)
        tasks = jax.tree.map(lambda x: x.astype(float) if x.dtype == jnp.float32 else x, tasks)
        params = EMBEDDING.init(KEY, tasks.query.inputs[0])
        return jax.tree.map(lambda x: x.astype(float), params), tasks

    return draw


@pytest.mark.usefixtures("x64")
def test_proto_maml_without_steps_is_the_prototypical_network(clusters):
    params, tasks = clusters()
    found, expected = (
        learner.meta_gradient(params, tasks, KEY)
        for learner in (
            algorithms.proto_maml(EMBEDDING, ways=3, num_steps=0),
            baselines.prototypical(EMBEDDING, ways=3),
        )
    )
    np.testing.assert_allclose(found[1].task_losses, expected[1].task_losses, rtol=1e-12)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), found[0], expected[0]
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("options", [{}, {"partition": partition.by_path("^head/")}])
def test_gradients_of_proto_maml_pass_through_its_head(
    clusters, assert_finite_differences, options
):
    learner = algorithms.proto_maml(EMBEDDING, ways=3, inner_lr=0.1, num_steps=3, **options)
    assert_finite_differences(learner, *clusters())


@pytest.mark.usefixtures("x64")
def test_steps_of_proto_maml_are_those_of_the_classifier_with_that_head(clusters):
    params, tasks = clusters(1)
    support = jax.tree.map(lambda x: np.asarray(x[0]), tasks.support)
    features = np.asarray(EMBEDDING.apply(params, support.inputs))
    means = np.stack([features[support.targets == c].mean(axis=0) for c in range(3)])
    head = {"kernel": 2 * means.T, "bias": -np.square(means).sum(axis=1)}
    classifier = models.with_head(EMBEDDING, 3)
    plain = maml(classifier, losses.cross_entropy, inner_lr=0.1, num_steps=2)
    expected = plain.adapt({"body": params, "head": head}, support, None)
    learner = algorithms.proto_maml(EMBEDDING, ways=3, inner_lr=0.1, num_steps=2)
    found = learner.adapt(params, support, None)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), found, expected)
    assert not np.allclose(found.params["head"]["bias"], head["bias"])


@pytest.mark.usefixtures("x64")
def test_proto_maml_does_not_care_how_classes_are_numbered(clusters):
    params, tasks = clusters(1, ways=4)
    support, query = jax.tree.map(lambda x: x[0], (tasks.support, tasks.query))
    learner = algorithms.proto_maml(EMBEDDING, ways=4, inner_lr=0.1, num_steps=3)
    order = jnp.array([2, 0, 3, 1])
    logits, renumbered = (
        learner.predict(
            learner.adapt(params, support._replace(targets=targets), None).params, query.inputs
        )
        for targets in (support.targets, order[support.targets])
    )
    np.testing.assert_allclose(renumbered[:, order], logits, rtol=1e-9)


def test_proto_maml_needs_a_whole_support_set(clusters_of):
    task = clusters_of()(None, KEY)
    learner = algorithms.proto_maml(EMBEDDING, ways=3)
    params = learner.init(KEY, task.query.inputs)
    with pytest.raises(TypeError, match=r"starts from of one support set.*got PerStep"):
        learner.adapt(params, PerStep(task.support), KEY)


# What cannot be combined says so.


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("imaml", {"step_weights": [1.0]}, "gradient of the end point only; use maml"),
        ("imaml", {"first_order": True}, "never differentiates through the inner loop"),
        ("imaml", {"remat": True}, "never differentiates through the inner loop"),
        ("imaml", {"inner_tx": inner_optim.learned_sgd()}, "use meta_sgd or meta_curvature"),
        ("imaml", {"steps": 3}, r"imaml does not take steps=3\."),
        ("reptile", {"partition": partition.by_path(HEAD)}, "never be trained; use anil or boil"),
        ("reptile", {"step_weights": [1.0]}, "no query loss; use maml"),
        ("reptile", {"inner_tx": inner_optim.meta_curvature()}, "use meta_sgd or meta_curvature"),
        (
            "proto_maml",
            {"ways": 2, "inner_tx": inner_optim.learned_sgd()},
            "start does not go with",
        ),
        ("proto_maml", {"ways": 2, "start": lambda params, support: params}, "start"),
    ],
)
def test_unsupported_combinations_are_refused_with_the_reason(method, options, message):
    with pytest.raises(TypeError, match=message):
        getattr(algorithms, method)(MODEL, MSE, **options)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("maml", {"step_weights": 1.0}, r"step_weights must have shape \[S\]"),
        ("boil", {"head": "Dense_("}, r"boil: head='Dense_\(' is not a regular expression"),
        ("meta_sgd", {"inner_lr": None}, "inner_lr must be a finite number >= 0; got None"),
        ("imaml", {"inner_lr": -1.0}, "inner_lr must be a finite number >= 0; got -1.0"),
        ("reptile", {"inner_lr": "0.1"}, "inner_lr must be a finite number >= 0; got '0.1'"),
        ("proto_maml", {"ways": 0}, "ways must be .* got 0"),
    ],
)
def test_wrong_arguments_are_called_by_their_names(method, options, message):
    with pytest.raises(ValueError, match=message):
        getattr(algorithms, method)(MODEL, MSE, **options)


@pytest.mark.parametrize("per", ["layer", "", None])
def test_what_shares_a_rate_is_one_of_three(per):
    with pytest.raises(ValueError, match="per"):
        algorithms.meta_sgd(MODEL, MSE, per=per)


@pytest.mark.parametrize(
    "model",
    [
        linen.Dense(1),
        linen.Dense,
        nnx.Linear(1, 1, rngs=nnx.Rngs(0)),
        lambda params, inputs: inputs,
    ],
    ids=["linen", "class", "nnx", "function"],
)
@pytest.mark.parametrize(
    "method",
    [
        maml,
        algorithms.meta_sgd,
        algorithms.imaml,
        algorithms.reptile,
        lambda model, loss_fn: algorithms.cavia(model, loss_fn, (2,)),
        lambda model, loss_fn: algorithms.proto_maml(model, loss_fn, ways=2),
        lambda model, loss_fn: baselines.prototypical(model, ways=2),
        lambda model, loss_fn: rl.maml(model),
    ],
    ids=["maml", "meta_sgd", "imaml", "reptile", "cavia", "proto_maml", "prototypical", "rl.maml"],
)
def test_what_is_no_model_is_pointed_to_the_adapters(method, model):
    with pytest.raises(TypeError, match=r"must be a mamljax.Model; got .*from_linen.*from_nnx"):
        method(model, losses.mean_squared_error)
