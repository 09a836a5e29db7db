"""Flax Linen, Flax NNX and plain functions behind one contract."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from mamljax import Batch, Task, evaluate, fit, init_state, losses, maml, meta_step, models

KEY = jax.random.key(5)
INPUTS = jax.random.normal(jax.random.key(6), (6, 3))


class LinenNet(linen.Module):
    """Whatever the tests need: a norm, dropout and the inner step, each optional."""

    norm: bool = False
    dropout: float = 0.0

    @linen.compact
    def __call__(self, x, *, step=0, deterministic=True, train=False):
        x = linen.Dense(5)(x)
        if self.norm:
            x = linen.BatchNorm(use_running_average=not train, epsilon=1e-3)(x)
        x = linen.Dropout(self.dropout, deterministic=deterministic)(jnp.tanh(x))
        return linen.Dense(2)(x) + jnp.asarray(step, x.dtype)


class NnxNet(nnx.Module):
    """The same network."""

    def __init__(self, rngs, norm=False, dropout=0.0):
        self.first = nnx.Linear(3, 5, rngs=rngs)
        self.norm = nnx.BatchNorm(5, epsilon=1e-3, rngs=rngs) if norm else None
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.last = nnx.Linear(5, 2, rngs=rngs)

    def __call__(self, x, step=0):
        x = self.first(x)
        x = x if self.norm is None else self.norm(x)
        x = self.dropout(jnp.tanh(x))
        return self.last(x) + jnp.asarray(step, x.dtype)


def plain(params, inputs, step=0):
    x = inputs @ params["first"]["kernel"] + params["first"]["bias"][None]
    if "norm" in params:
        x = (x - x.mean(0, keepdims=True)) / jnp.sqrt(x.var(0, keepdims=True) + 1e-3)
        x = x * params["norm"]["scale"][None] + params["norm"]["bias"][None]
    x = jnp.tanh(x) @ params["last"]["kernel"] + params["last"]["bias"][None]
    return x + jnp.asarray(step, x.dtype)


def build(library, **options):
    if library == "linen":
        train = {"train": True} if options.get("norm") else {}
        return models.from_linen(LinenNet(**options), **train)
    return models.from_nnx(lambda rngs: NnxNet(rngs, **options))


LINEN_NAMES = {"first": "Dense_0", "norm": "BatchNorm_0", "last": "Dense_1"}


def rename(library, params):
    """Parameters named as in `plain`."""
    names = LINEN_NAMES if library == "linen" else {name: name for name in LINEN_NAMES}
    return {new: params[old] for new, old in names.items() if old in params}


def randomised(model):
    """Parameters that are all different from where an initializer leaves them."""
    params = model.init(KEY, INPUTS)
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    return unravel(jax.random.normal(KEY, flat.shape))


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("library", ["linen", "nnx"])
def test_same_weights_give_the_same_outputs(library, norm):
    model = build(library, norm=norm)
    params = randomised(model)
    by_hand = models.from_function(plain)
    for options in ({}, {"key": KEY}, {"step": 3}):
        found = model.apply(params, INPUTS, **options)
        expected = by_hand.apply(rename(library, params), INPUTS, **options)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("library", ["linen", "nnx"])
def test_init_follows_its_key(library):
    model = build(library, norm=True, dropout=0.5)
    first, again, other = (model.init(jax.random.key(seed), INPUTS) for seed in (1, 1, 2))
    same = jax.tree.map(lambda a, b: bool(jnp.all(a == b)), first, again)
    assert all(jax.tree.leaves(same))
    kernels = [rename(library, params)["first"]["kernel"] for params in (first, other)]
    assert np.all(kernels[0] != kernels[1])
    assert jax.tree.map(jnp.shape, rename(library, first)) == {
        "first": {"kernel": (3, 5), "bias": (5,)},
        "norm": {"scale": (5,), "bias": (5,)},
        "last": {"kernel": (5, 2), "bias": (2,)},
    }


@pytest.mark.parametrize("library", ["linen", "nnx"])
def test_batch_norm_uses_the_batch_at_hand_and_remembers_nothing(library):
    model = build(library, norm=True)
    params = randomised(model)
    apply = jax.jit(model.apply)
    first = apply(params, INPUTS)
    other = apply(params, INPUTS.at[1:].multiply(3.0))
    # Its neighbours changed, so the first example's output does.
    assert np.all(np.abs(other[0] - first[0]) > 1e-3)
    # Running averages would have moved by now, compiled or not.
    np.testing.assert_array_equal(apply(params, INPUTS), first)
    eager = [model.apply(params, INPUTS) for _ in range(2)]
    np.testing.assert_array_equal(*eager)
    np.testing.assert_allclose(eager[0], first, rtol=1e-5, atol=1e-6)


def random_tasks(num_tasks):
    """Regression tasks without structure, ``[T, 6, 3] -> [T, 6, 2]``."""
    keys = jax.random.split(KEY, 4)
    x, y = (
        [jax.random.normal(key, (num_tasks, 6, size)) for key in pair]
        for size, pair in ((3, keys[:2]), (2, keys[2:]))
    )
    return Task(Batch(x[0], y[0]), Batch(x[1], y[1]))


# Flax NNX keeps running averages, which nobody reads here, in float32 whatever the inputs are.
@pytest.mark.filterwarnings("ignore:scatter inputs have incompatible types:FutureWarning")
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("options", [{"norm": True}, {"dropout": 0.5}], ids=str)
@pytest.mark.parametrize("library", ["linen", "nnx"])
def test_meta_gradient_through_norm_and_dropout(library, options):
    # Dropout is differentiable once its key is fixed, which also shows that it is: finite
    # differences would otherwise compare different masks.
    model, tasks = build(library, **options), random_tasks(2)
    params = model.init(KEY, INPUTS)
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), params)
    learner = maml(model, losses.mean_squared_error, inner_lr=0.05, num_steps=2)
    meta_gradient = jax.jit(learner.meta_gradient)
    gradient, _ = meta_gradient(params, tasks, KEY)
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    direction = unravel(jax.random.normal(jax.random.key(1), flat.shape))
    ahead, behind = (
        meta_gradient(optax.tree.add_scale(params, eps, direction), tasks, KEY)[1].loss
        for eps in (1e-5, -1e-5)
    )
    expected = (ahead - behind) / 2e-5
    np.testing.assert_allclose(optax.tree.vdot(gradient, direction), expected, rtol=1e-6)
    other = meta_gradient(params, tasks, jax.random.key(0))[1].loss
    same = meta_gradient(params, tasks, KEY)[1].loss
    assert (other == same) == ("dropout" not in options)


class OwnStream(NnxNet):
    """A module whose dropout draws from a stream of its own making."""

    def __init__(self, rngs):
        super().__init__(rngs)
        self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(dropout=0))


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(lambda: build("linen", dropout=0.5), id="linen"),
        pytest.param(lambda: build("nnx", dropout=0.5), id="nnx"),
        pytest.param(lambda: models.from_nnx(OwnStream), id="nnx, own stream"),
    ],
)
def test_dropout_draws_from_the_key_and_is_off_without_one(model):
    model = model()
    params = randomised(model)
    apply = jax.jit(model.apply)
    off, once, again, other = (
        np.asarray(apply(params, INPUTS, key=key)) for key in (None, KEY, KEY, jax.random.key(0))
    )
    np.testing.assert_array_equal(once, again)
    assert np.any(once != other)
    assert np.any(once != off)
    no_dropout = build("nnx" if "first" in params else "linen")
    np.testing.assert_allclose(off, no_dropout.apply(params, INPUTS), rtol=1e-6)


@pytest.mark.parametrize("library", ["linen", "nnx"])
def test_two_dropout_layers_draw_different_masks(library):
    class Linen(linen.Module):
        @linen.compact
        def __call__(self, x, *, deterministic):
            return [linen.Dropout(0.5, deterministic=deterministic)(x) for _ in range(2)]

    class Nnx(nnx.Module):
        def __init__(self, rngs):
            self.first, self.second = (nnx.Dropout(0.5, rngs=rngs) for _ in range(2))

        def __call__(self, x):
            return [self.first(x), self.second(x)]

    model = models.from_linen(Linen()) if library == "linen" else models.from_nnx(Nnx)
    first, second = model.apply({}, jnp.ones((1, 50)), key=KEY)
    assert np.any(first != second)


def test_extra_keywords_reach_only_functions_that_name_them():
    narrow = models.from_function(lambda params, inputs: inputs)
    wide = models.from_function(lambda params, inputs, *, key, step: (key, step))
    assert narrow.apply(None, 1.0, key=KEY, step=2) == 1.0
    assert wide.apply(None, 1.0, key=KEY, step=2) == (KEY, 2)
    assert wide.apply(None, 1.0) == (None, 0)


def test_call_options_win_over_what_the_adapter_offers():
    model = models.from_linen(LinenNet(dropout=0.5), deterministic=True, step=7)
    params = randomised(model)
    outputs = model.apply(params, INPUTS, key=KEY, step=1)
    expected = build("linen").apply(params, INPUTS, step=7)
    np.testing.assert_allclose(outputs, expected, rtol=1e-6)


# ---------------------------------------------------------------------------------------------
# A recurrent network: nothing in the library knows what a model is inside.


class GRU(nnx.Module):
    def __init__(self, rngs):
        self.rnn = nnx.RNN(nnx.GRUCell(1, 8, rngs=rngs), rngs=rngs)
        self.head = nnx.Linear(8, 1, rngs=rngs)

    def __call__(self, x):
        return self.head(self.rnn(x)[:, -1])


def sequences(meta_params, key):
    """Regress a task's multiple of a sequence's mean, ``[5, 4, 1] -> [5, 1]``."""
    scale_key, *keys = jax.random.split(key, 3)
    scale = jax.random.uniform(scale_key, minval=-2.0, maxval=2.0)

    def batch(key):
        x = jax.random.normal(key, (5, 4, 1))
        return Batch(x, scale * x.mean(1))

    return Task(*map(batch, keys))


def test_recurrent_network_learns_to_adapt():
    learner = maml(models.from_nnx(GRU), losses.mean_squared_error, inner_lr=0.3)
    tx = optax.adam(0.02)
    step = meta_step(learner.meta_gradient, tx)
    state = init_state(learner.init(KEY, jnp.zeros((5, 4, 1))), tx)
    state = fit(step, state, sequences, KEY, num_steps=300, meta_batch=16)
    test_key = jax.random.key(8)
    report = evaluate(learner, state.meta_params, sequences, test_key, num_tasks=200)
    assert report.mean[1] < 0.5 * report.mean[0]


# ---------------------------------------------------------------------------------------------
# Errors at the door.


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: models.from_linen(LinenNet), TypeError, "must be an instance of flax.linen"),
        (
            lambda: models.from_linen(NnxNet(nnx.Rngs(0))),
            TypeError,
            "For flax.nnx use from_nnx, for a function from_function",
        ),
        (
            lambda: models.from_nnx(NnxNet(nnx.Rngs(0))),
            TypeError,
            r"build must be a function of rngs, not a module \(NnxNet\)",
        ),
        (lambda: models.from_nnx(3), TypeError, r"build must be a function \(nnx.Rngs\)"),
        (lambda: models.from_nnx(lambda rngs: 3), TypeError, "must return a flax.nnx.Module"),
        (lambda: models.from_function(None), TypeError, r"apply must be a function \(params, in"),
        (
            lambda: models.from_function(plain).init(KEY, INPUTS),
            ValueError,
            r"without init.*pass init=\(key, inputs\) -> params",
        ),
    ],
)
def test_wrong_arguments_are_explained(make, error, message):
    with pytest.raises(error, match=message):
        make()
