"""Parity with what the authors' TensorFlow code computes, see shared/golden/README.md."""

import ast
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mamljax import Batch, Task, init_state, losses, maml, meta_step, models

KEY = jax.random.key(0)  # no draw is made from it: the network has no random layer
DEFAULT_FOLDER = Path(__file__).parents[2] / "shared" / "golden"
GOLDEN = Path(os.environ.get("MAMLJAX_GOLDEN", DEFAULT_FOLDER))


@pytest.fixture(scope="module", params=["sinusoid_maml", "sinusoid_fomaml"])
def golden(request):
    path = GOLDEN / f"{request.param}.npz"
    if not path.exists():
        pytest.skip(f"no golden values at {path}; set MAMLJAX_GOLDEN to the folder that holds them")
    with np.load(path) as data:
        return dict(data)


@pytest.fixture
def reference(golden):
    """The authors' setting: our learner, their weights, their tasks."""
    config = ast.literal_eval(str(golden["config"]))
    width = config["filters"]
    learner = maml(
        models.mlp((width, width, 1)),
        losses.mean_squared_error,
        inner_lr=config["inner_lr"],
        num_steps=config["train_steps"],
        first_order=config["first_order"] == "True",
    )
    tasks = Task(
        support=Batch(golden["support_x"], golden["support_y"]),
        query=Batch(golden["query_x"], golden["query_y"]),
    )
    return learner, params(golden, "weights"), tasks, config


def params(golden, group):
    """The arrays of one group as the parameters of our network."""
    return {
        f"Dense_{i - 1}": {"kernel": golden[f"{group}/w{i}"], "bias": golden[f"{group}/b{i}"]}
        for i in (1, 2, 3)
    }


def test_losses_and_outputs_of_every_inner_step(golden, reference):
    learner, weights, tasks, _ = reference
    num_steps = len(golden["query_loss_after_step"])

    @jax.vmap
    def adapt(task):
        def observe(params, step):
            outputs = learner.predict(params, task.query.inputs)
            return outputs, learner.loss(params, task.query, None, step)

        return learner.adapt(weights, task.support, KEY, num_steps=num_steps, observe=observe)

    adapted = jax.jit(adapt)(tasks)
    outputs, query_losses = adapted.observed
    support_outputs = jax.vmap(learner.predict, in_axes=(None, 0))(weights, tasks.support.inputs)
    for found, expected in [
        (adapted.support_losses[:, 0].mean(), golden["support_loss_before"]),
        (query_losses[:, 1:].mean(0), golden["query_loss_after_step"]),
        (support_outputs, golden["support_output_before"]),
        (outputs[:, 1:].swapaxes(0, 1), golden["query_output_after_step"]),
    ]:
        # Outputs cross zero, so a purely relative comparison would compare rounding there.
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_meta_gradient(golden, reference, assert_close):
    learner, weights, tasks, config = reference
    gradient, metrics = jax.jit(learner.meta_gradient)(weights, tasks, KEY)
    assert_close(gradient, params(golden, "meta_gradient"), 1e-5)
    expected = golden["query_loss_after_step"][config["train_steps"] - 1]
    np.testing.assert_allclose(metrics.loss, expected, rtol=1e-6)


def tf1_epsilon(count):
    """TensorFlow 1 adds Adam's epsilon before the bias correction of the second moment."""
    return 1e-8 / jnp.sqrt(1 - 0.999 ** (count + 1.0))


@pytest.mark.parametrize(
    ("tx", "rtol", "moved_rtol"),
    [
        # In fomaml one gradient is 4e-7: there alone the two places of epsilon can be told apart.
        (optax.inject_hyperparams(optax.adam)(1e-3, eps=tf1_epsilon), 1e-6, 1e-4),
        (optax.adam(1e-3), 1e-4, 1e-2),
    ],
    ids=["Adam of TensorFlow 1", "optax.adam"],
)
def test_weights_after_three_adam_steps(golden, reference, assert_close, tx, rtol, moved_rtol):
    learner, weights, tasks, config = reference
    assert config["meta_lr"] == 1e-3
    step = jax.jit(meta_step(learner.meta_gradient, tx))
    state = init_state(weights, tx)
    for _ in range(3):
        state, _ = step(state, tasks, KEY)
    expected = params(golden, "weights_after_3_adam_steps")
    assert_close(state.meta_params, expected, rtol)
    # Three steps move the weights little, so what they moved by is compared as well.
    moved, expected_move = (
        jax.tree.map(np.subtract, after, weights) for after in (state.meta_params, expected)
    )
    assert_close(moved, expected_move, moved_rtol)
