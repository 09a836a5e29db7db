"""Parity with what the authors' TensorFlow code computes, see shared/golden/README.md."""

import ast
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mamljax import Batch, Learner, Task, init_state, losses, maml, meta_step, models
from mamljax.partition import all_but, by_path

KEY = jax.random.key(0)  # no draw is made from it: the networks have no random layer
DEFAULT_FOLDER = Path(__file__).parents[2] / "shared" / "golden"
GOLDEN = Path(os.environ.get("MAMLJAX_GOLDEN", DEFAULT_FOLDER))


class Reference(NamedTuple):
    """The authors' setting: our learner, their tasks and the numbers they get.

    arrays: the file.
    config: the authors' options.
    params: the arrays of one group, such as ``weights``, as the parameters of our network.
    unit: one unit of our loss in theirs.
    rtol: how closely meta-gradients agree in single precision.
    """

    arrays: dict[str, np.ndarray]
    config: dict[str, Any]
    learner: Learner
    tasks: Task
    params: Callable[[str], dict[str, Any]]
    unit: float
    rtol: float


def sinusoid(arrays, config):
    width = config["filters"]

    def params(group):
        return {
            f"Dense_{i - 1}": {"kernel": arrays[f"{group}/w{i}"], "bias": arrays[f"{group}/b{i}"]}
            for i in (1, 2, 3)
        }

    learner = maml(
        models.mlp((width, width, 1)), losses.mean_squared_error, **inner_loop(config, unit=1)
    )
    return Reference(arrays, config, learner, tasks_of(arrays), params, unit=1, rtol=1e-5)


def omniglot(arrays, config):
    ways = config["way"]  # their loss is summed over the rows and divided by the shots

    def params(group):
        blocks = {
            f"block_{i}": {
                "conv": {
                    "kernel": arrays[f"{group}/conv{i + 1}"],
                    "bias": arrays[f"{group}/b{i + 1}"],
                },
                "norm": {"offset": arrays[f"{group}/{i}_beta"]},
            }
            for i in range(4)
        }
        head = {"kernel": arrays[f"{group}/w5"], "bias": arrays[f"{group}/b5"]}
        return {**blocks, "head": head}

    learner = maml(
        models.omniglot_net(ways, filters=config["filters"]),
        losses.cross_entropy,
        partition=all_but("norm"),
        task_chunk=1,
        **inner_loop(config, unit=ways),
    )
    tasks = jax.tree.map(
        lambda b: Batch(b.inputs.reshape(*b.inputs.shape[:2], 28, 28, 1), b.targets.argmax(-1)),
        tasks_of(arrays),
        is_leaf=lambda x: isinstance(x, Batch),
    )
    return Reference(arrays, config, learner, tasks, params, unit=ways, rtol=1e-4)


def inner_loop(config, unit):
    return {
        "inner_lr": unit * config["inner_lr"],
        "num_steps": config["train_steps"],
        "first_order": config["first_order"] == "True",
    }


def tasks_of(arrays):
    return Task(*(Batch(arrays[f"{part}_x"], arrays[f"{part}_y"]) for part in ("support", "query")))


REFERENCES = {
    "sinusoid_maml": sinusoid,
    "sinusoid_fomaml": sinusoid,
    "omniglot_conv_5way1shot": omniglot,
}


@pytest.fixture(scope="module", params=REFERENCES)
def reference(request):
    path = GOLDEN / f"{request.param}.npz"
    if not path.exists():
        pytest.skip(f"no golden values at {path}; set MAMLJAX_GOLDEN to the folder that holds them")
    with np.load(path) as data:
        arrays = dict(data)
    return REFERENCES[request.param](arrays, ast.literal_eval(str(arrays["config"])))


@pytest.fixture(scope="module")
def meta_gradient(reference):
    """Of the reference's learner; compiled once."""
    return jax.jit(reference.learner.meta_gradient)


def without_conv_biases(tree):
    """All but the biases before a batch norm, which change nothing: there is only rounding."""
    return by_path(lambda path: not path.endswith("conv/bias")).split(tree)[0]


def test_losses_and_outputs_of_every_inner_step(reference):
    arrays, learner, tasks = reference.arrays, reference.learner, reference.tasks
    weights, num_steps = reference.params("weights"), len(arrays["query_loss_after_step"])

    @jax.vmap
    def adapt(task):
        def observe(params, step):
            outputs = learner.predict(params, task.query.inputs)
            return outputs, learner.loss(params, task.query, None, step)

        adapted = learner.adapt(weights, task.support, KEY, num_steps=num_steps, observe=observe)
        before = learner.predict(weights, task.support.inputs)
        return before, adapted.support_losses, *adapted.observed

    before, support_losses, outputs, query_losses = jax.jit(adapt)(tasks)
    for found, expected in [
        (reference.unit * support_losses[:, 0].mean(), arrays["support_loss_before"]),
        (reference.unit * query_losses[:, 1:].mean(0), arrays["query_loss_after_step"]),
        (before, arrays["support_output_before"]),
        (outputs[:, 1:].swapaxes(0, 1), arrays["query_output_after_step"]),
    ]:
        # Outputs cross zero, so a purely relative comparison would compare rounding there.
        np.testing.assert_allclose(found, expected, rtol=reference.rtol, atol=reference.rtol)


def test_meta_gradient(reference, meta_gradient, assert_close):
    gradient, metrics = meta_gradient(reference.params("weights"), reference.tasks, KEY)
    gradient = jax.tree.map(lambda g: reference.unit * g, gradient)
    expected = reference.params("meta_gradient")
    assert_close(*map(without_conv_biases, (gradient, expected)), reference.rtol)
    loss = reference.arrays["query_loss_after_step"][reference.config["train_steps"] - 1]
    np.testing.assert_allclose(reference.unit * metrics.loss, loss, rtol=1e-6)
    for name, block in gradient.items():
        if "conv" in block:
            kernel, bias = (np.linalg.norm(block["conv"][key]) for key in ("kernel", "bias"))
            assert bias < 1e-5 * kernel, name


def tf1_epsilon(count):
    """TensorFlow 1 adds Adam's epsilon before the bias correction of the second moment."""
    return 1e-8 / jnp.sqrt(1 - 0.999 ** (count + 1.0))


def is_rounding(gradient):
    """Where a gradient is nothing but rounding.

    Adam divides a gradient by its size: one of 1e-6 of its layer's, with hardly a correct digit,
    moves its weight as far as any other, and may send the steps after it elsewhere. Omniglot has
    one such weight in 110,000.
    """
    size = np.abs(gradient)
    rounding = (size > 0) & (size < 1e-5 * np.sqrt(np.mean(size**2)))
    assert rounding.mean() < 1e-4
    return rounding


@pytest.mark.parametrize(
    ("adam", "rtol"),
    [
        # In fomaml one gradient is 4e-7: there alone the two places of epsilon can be told apart.
        (optax.inject_hyperparams(optax.adam)(1e-3, eps=tf1_epsilon), 1e-4),
        (optax.adam(1e-3), 1e-2),
    ],
    ids=["Adam of TensorFlow 1", "optax.adam"],
)
def test_moves_of_the_weights_in_three_adam_steps(
    reference, meta_gradient, assert_close, adam, rtol
):
    assert reference.config["meta_lr"] == 1e-3
    tx = optax.chain(optax.scale(reference.unit), adam)  # in their unit epsilon is as large
    theirs = reference.params("meta_gradient")
    rounding = jax.tree.map(is_rounding, theirs)

    def with_their_rounding(params, tasks, key):
        gradient, metrics = meta_gradient(params, tasks, key)
        taken = jax.tree.map(
            lambda where, g, t: jnp.where(where, t / reference.unit, g), rounding, gradient, theirs
        )
        return taken, metrics

    weights = reference.params("weights")
    state = init_state(weights, tx)
    first, later = (meta_step(gradient, tx) for gradient in (with_their_rounding, meta_gradient))
    for step in (first, later, later):
        state, _ = step(state, reference.tasks, KEY)
    expected = reference.params("weights_after_3_adam_steps")
    # Three steps change the weights little: comparing what they move by is the stricter test.
    moves = (
        without_conv_biases(jax.tree.map(lambda a, b: a - b, after, weights))
        for after in (state.meta_params, expected)
    )
    assert_close(*moves, rtol)
