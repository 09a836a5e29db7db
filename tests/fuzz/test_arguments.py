"""Whatever a public function is given: an error of ours that names the argument, or an answer."""

import traceback
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import mamljax
from mamljax import (
    algorithms,
    evaluate,
    fit,
    init_state,
    losses,
    maml,
    meta_step,
    models,
    rl,
    tasks,
)
from mamljax.partition import all_but, by_path

pytestmark = pytest.mark.slow

PACKAGE = str(Path(mamljax.__file__).parent)
EXAMPLES = settings(
    max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)

JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([-(10**30), 2.5, -0.5, np.float32(-1.0), np.int64(-2)]),
    st.sampled_from([float("nan"), float("inf"), float("-inf"), 1j]),
    st.text(max_size=4),
    st.lists(st.integers(-2, 2), max_size=3),
    st.sampled_from(
        [(), (1.0,), (2.0, 1.0), (0.0, float("nan")), {"a": 1}, {1, 2}, b"x", object()]
    ),
    st.sampled_from(
        [np.zeros(3), np.zeros((0, 2)), np.array("a"), jnp.ones((2, 2)), np.float64(1)]
    ),
    st.sampled_from([len, lambda: None]),
)

NET, MSE = models.mlp((3, 1)), losses.mean_squared_error
SINUSOIDS = tasks.sinusoid(3, 3)
PARAMS = NET.init(jax.random.key(0), jnp.zeros((1, 1)))
IMAGES = np.zeros((4, 5, 6, 6, 1), np.uint8)


def use(learner):
    """The shapes of a meta-gradient: what a builder lets pass must be fit for use."""
    params = learner.init(jax.random.key(0), jnp.zeros((1, 1)))
    batch = tasks.sample_tasks(SINUSOIDS, None, jax.random.key(1), 2)
    return jax.eval_shape(learner.meta_gradient, params, batch, jax.random.key(2))


def draw(sampler):
    return jax.eval_shape(sampler, None, jax.random.key(0))


def make(model):
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((2, 8, 8, 1)))


def train(**options):
    learner = maml(NET, MSE)
    tx = optax.sgd(0.1)
    values = {"num_steps": 1, "meta_batch": 2, "steps_per_call": 1} | options
    step = meta_step(learner.meta_gradient, tx)
    return fit(step, init_state(PARAMS, tx), SINUSOIDS, jax.random.key(0), **values)


def assess(**options):
    values = {"num_tasks": 2, "num_steps": 1} | options
    return evaluate(maml(NET, MSE), PARAMS, SINUSOIDS, jax.random.key(0), **values)


CALLS = {
    "sinusoid": (
        lambda **o: draw(tasks.sinusoid(**({"shots": 2, "queries": 2} | o))),
        ("shots", "queries", "amplitude", "phase", "inputs", "support_inputs"),
    ),
    "episodes": (
        lambda **o: draw(
            tasks.episodes(**({"images": IMAGES, "ways": 2, "shots": 1} | {"queries": 1} | o))
        ),
        ("images", "ways", "shots", "queries", "counts", "decode"),
    ),
    "from_arrays": (
        lambda **o: draw(
            tasks.from_arrays(
                **(
                    {"inputs": np.zeros((3, 5, 1)), "targets": np.zeros((3, 5, 1))}
                    | {"shots": 1, "queries": 1}
                    | o
                )
            )
        ),
        ("shots", "queries"),
    ),
    "from_labelled": (
        lambda **o: draw(
            tasks.from_labelled(
                **(
                    {"inputs": np.zeros((12, 2)), "labels": np.arange(12) % 3}
                    | {"ways": 2, "shots": 1, "queries": 1}
                    | o
                )
            )
        ),
        ("labels", "ways", "shots", "queries"),
    ),
    "evaluate given tasks": (
        lambda **o: evaluate(maml(NET, MSE), PARAMS, **o),
        ("tasks",),
    ),
    "sample_tasks": (
        lambda **o: tasks.sample_tasks(
            **(
                {
                    "sampler": SINUSOIDS,
                    "meta_params": None,
                    "key": jax.random.key(0),
                    "num_tasks": 2,
                }
                | o
            )
        ),
        ("sampler", "num_tasks", "task_chunk"),
    ),
    "maml": (
        lambda **o: use(maml(**({"model": NET, "loss_fn": MSE} | o))),
        ("inner_lr", "num_steps", "step_weights", "scan_unroll", "task_chunk"),
    ),
    "meta_sgd": (
        lambda **o: use(algorithms.meta_sgd(NET, MSE, **o)),
        ("inner_lr", "per", "num_steps"),
    ),
    "maml_plus_plus": (
        lambda **o: use(algorithms.maml_plus_plus(NET, MSE, **o)),
        ("inner_lr", "num_steps", "loss_annealing", "first_order_until"),
    ),
    "imaml": (
        lambda **o: use(algorithms.imaml(NET, MSE, **o)),
        ("inner_lr", "num_steps", "strength", "cg_steps", "task_chunk"),
    ),
    "reptile": (
        lambda **o: use(algorithms.reptile(NET, MSE, **o)),
        ("inner_lr", "num_steps", "task_chunk"),
    ),
    "cavia": (lambda **o: use(algorithms.cavia(NET, MSE, **({"shape": (2,)} | o))), ("shape",)),
    "anil": (lambda **o: use(algorithms.anil(NET, MSE, **({"head": "Dense_1"} | o))), ("head",)),
    "fit": (train, ("num_steps", "meta_batch", "steps_per_call", "task_chunk")),
    "evaluate": (assess, ("num_tasks", "num_steps", "task_chunk", "metric")),
    "mlp": (
        lambda **o: make(models.mlp(**({"features": (3, 1)} | o))),
        ("features", "init", "init_std", "norm", "activation"),
    ),
    "conv_net": (
        lambda **o: make(models.conv_net(**({"outputs": 2, "filters": 2, "blocks": 2} | o))),
        ("outputs", "filters", "blocks", "downsample", "readout", "norm", "norm_steps"),
    ),
    "gaussian_policy": (
        lambda **o: make(models.gaussian_policy(**({"action_size": 2} | o))),
        ("action_size", "hidden", "init_std", "min_std"),
    ),
    "by_path": (lambda **o: by_path(**o).split({"a": 1.0}), ("select",)),
    "all_but": (lambda **o: all_but(**o).split({"a": 1.0}), ("pattern",)),
    "navigation": (lambda **o: rl.navigation(**o), ("reward", "reach")),
    "rl.maml": (
        lambda **o: rl.maml(models.gaussian_policy(2), **o),
        ("inner_lr", "num_steps", "data_credit"),
    ),
    "trpo": (lambda **o: rl.trpo(**o), ("max_kl", "damping", "cg_iterations")),
}
ARGUMENTS = [
    pytest.param(call, argument, id=f"{call}.{argument}")
    for call, (_, arguments) in CALLS.items()
    for argument in arguments
]


@pytest.fixture
def junk(record_property):
    """Each example counts."""
    return lambda: record_property("junk arguments", 1)


def answer(call, *names):
    """What a call returns; None where it refuses, in words of ours in which the `names` occur."""
    try:
        return call()
    except Exception as error:
        refusal = error
    last = traceback.extract_tb(refusal.__traceback__)[-1]
    said = "".join(traceback.format_exception_only(refusal))
    assert isinstance(refusal, (ValueError, TypeError)), said
    assert last.filename.startswith(PACKAGE), f"{last.filename}: {said}"
    assert all(name in said for name in names), said
    return None


@pytest.mark.filterwarnings("ignore")  # NumPy warns of some junk
@pytest.mark.parametrize(("call", "argument"), ARGUMENTS)
@EXAMPLES
@given(value=JUNK)
def test_an_argument(junk, call, argument, value):
    junk()
    function, _ = CALLS[call]
    answer(lambda: function(**{argument: value}), argument)


SHAPES = arrays.array_shapes(min_dims=0, max_dims=6, min_side=0, max_side=5)
DTYPES = st.sampled_from([np.uint8, np.int32, np.float32, np.float64, np.bool_, np.complex64])


@st.composite
def any_array(draw):
    return np.ones(draw(SHAPES), draw(DTYPES))


@pytest.mark.filterwarnings("ignore")
@EXAMPLES
@given(images=any_array(), ways=st.integers(2, 4), shots=st.integers(1, 3))
def test_images_of_any_shape(junk, images, ways, shots):
    junk()
    sampler = answer(lambda: tasks.episodes(images, ways=ways, shots=shots, queries=1))
    if sampler is not None:
        task = draw(sampler)
        assert task.support.inputs.shape == (ways * shots, *images.shape[2:])
        assert task.query.targets.shape == (ways,)


@pytest.mark.filterwarnings("ignore")
@EXAMPLES
@given(inputs=any_array(), targets=any_array(), shots=st.integers(1, 3))
def test_arrays_of_any_shape(junk, inputs, targets, shots):
    junk()
    sampler = answer(lambda: tasks.from_arrays(inputs, targets, shots=shots, queries=1))
    if sampler is not None:
        task = draw(sampler)
        assert task.support.inputs.shape == (shots, *inputs.shape[2:])
        assert task.query.targets.shape == (1, *targets.shape[2:])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("loss", [losses.mean_squared_error, losses.cross_entropy, losses.accuracy])
@EXAMPLES
@given(outputs=any_array(), targets=any_array())
def test_losses_never_broadcast(junk, loss, outputs, targets):
    junk()
    found = answer(lambda: loss(outputs, targets))
    if found is None:
        return
    assert found.shape == ()
    if loss is losses.mean_squared_error:
        assert outputs.shape == targets.shape
    else:
        assert (outputs.ndim, targets.shape) == (2, outputs.shape[:1])
