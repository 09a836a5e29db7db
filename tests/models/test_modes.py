"""Modules with state: flags, running averages, whatever else a module keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from mamljax import Batch, Task, evaluate, init_state, losses, maml, meta_step, models
from mamljax.types import WithState

KEY, OTHER = jax.random.key(1), jax.random.key(2)
INPUTS = jax.random.normal(jax.random.key(6), (6, 3))


class Flagged(linen.Module):
    """Batch norm and dropout under one flag, as in Flax's examples."""

    flag: str = "train"

    @linen.compact
    def __call__(self, x, train=None, training=None):
        train = train if self.flag == "train" else training
        x = linen.BatchNorm()(x, not train)
        x = linen.Dropout(0.5)(x, not train)
        return linen.Dense(2)(x)


class NnxFlagged(nnx.Module):
    """The same."""

    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.dense = nnx.Linear(3, 2, rngs=rngs)

    def __call__(self, x, train):
        x = self.norm(x, not train)
        x = self.dropout(x, deterministic=not train)
        return self.dense(x)


class Separate(linen.Module):
    """A flag for each."""

    @linen.compact
    def __call__(self, x, *, deterministic, use_running_average):
        x = linen.BatchNorm(use_running_average=use_running_average)(x)
        return linen.Dense(2)(linen.Dropout(0.5, deterministic=deterministic)(x))


class Shared(linen.Module):
    """One norm that is called twice, as an attribute."""

    def setup(self):
        self.norm, self.dropout = linen.BatchNorm(), linen.Dropout(0.5)
        self.dense = linen.Dense(2)

    def __call__(self, x, train):
        x = self.norm(self.norm(x, use_running_average=not train), use_running_average=not train)
        return self.dense(self.dropout(x, deterministic=not train))


class Attending(linen.Module):
    """Dropout inside of attention, which has no layer of its own."""

    @linen.compact
    def __call__(self, x, train):
        attention = linen.MultiHeadDotProductAttention(2, qkv_features=4, dropout_rate=0.5)
        return attention(x[:, None], deterministic=not train)[:, 0]


FLAGGED = {
    "linen, train": lambda **o: models.from_linen(Flagged(), **o),
    "linen, training": lambda **o: models.from_linen(Flagged("training"), **o),
    "linen, given": lambda **o: models.from_linen(Flagged(), train=True, **o),
    "linen, two flags": lambda **o: models.from_linen(Separate(), **o),
    "linen, shared": lambda **o: models.from_linen(Shared(), **o),
    "nnx, train": lambda **o: models.from_nnx(NnxFlagged, **o),
    "nnx, given": lambda **o: models.from_nnx(NnxFlagged, train=True, **o),
}


def moved(params, by=5.0):
    """Running means that are not where they began."""
    state = jax.tree_util.tree_map_with_path(
        lambda path, x: x + by if "mean" in jax.tree_util.keystr(path) else x, params.state
    )
    return params._replace(state=state)


def dense_of(params):
    return next(params[name] for name in ("Dense_0", "dense") if name in params)


@pytest.mark.parametrize("build", FLAGGED.values(), ids=FLAGGED)
def test_flags_drop_with_a_key_only_and_normalise_by_the_batch(build):
    model = build()
    params = model.init(KEY, INPUTS)
    assert not isinstance(params, WithState)
    off, once, again, other = (
        np.asarray(model.apply(params, INPUTS, key=key)) for key in (None, KEY, KEY, OTHER)
    )
    normal = (INPUTS - INPUTS.mean(0, keepdims=True)) / jnp.sqrt(
        INPUTS.var(0, keepdims=True) + 1e-5
    )
    np.testing.assert_allclose(off, normal @ dense_of(params)["kernel"], rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(once, again)
    assert np.any(once != other)
    assert np.any(once != off)


@pytest.mark.parametrize("build", FLAGGED.values(), ids=FLAGGED)
def test_running_averages_are_kept_used_and_not_moved(build):
    model = build(norm="running")
    params = moved(model.init(KEY, INPUTS))
    off = np.asarray(model.apply(params, INPUTS))
    # The shared norm is called twice.
    times = 2 if build is FLAGGED["linen, shared"] else 1
    expected = (INPUTS - 5.0 * times) @ dense_of(params.params)["kernel"]
    np.testing.assert_allclose(off, expected, rtol=1e-3)
    # One example alone is normalised as all of them are.
    np.testing.assert_allclose(model.apply(params, INPUTS[:1]), off[:1], rtol=1e-4, atol=1e-5)
    assert np.any(np.asarray(model.apply(params, INPUTS, key=KEY)) != off)


class NnxAttending(nnx.Module):
    """The same, where nobody says whether to draw."""

    def __init__(self, rngs):
        self.attention = nnx.MultiHeadAttention(
            2, 3, qkv_features=4, dropout_rate=0.5, decode=False, rngs=rngs
        )

    def __call__(self, x):
        return self.attention(x[:, None])[:, 0]


@pytest.mark.parametrize(
    "build",
    [lambda: models.from_linen(Attending()), lambda: models.from_nnx(NnxAttending)],
    ids=["linen", "nnx"],
)
def test_dropout_within_attention_is_off_without_a_key(build):
    model = build()
    params = model.init(KEY, INPUTS)
    off = model.apply(params, INPUTS)
    np.testing.assert_array_equal(off, model.apply(params, INPUTS))
    # One position attends to itself alone, so that dropping it leaves the bias.
    assert np.any(model.apply(params, INPUTS, key=KEY) != off)


class NnxFrozen(nnx.Module):
    def __init__(self, rngs, in_call):
        self.norm = nnx.BatchNorm(3, use_running_average=not in_call or None, rngs=rngs)
        self.in_call = in_call

    def __call__(self, x):
        return self.norm(x, use_running_average=True) if self.in_call else self.norm(x)


FROZEN = {
    "linen": lambda **o: models.from_linen(linen.BatchNorm(use_running_average=True), **o),
    "nnx": lambda **o: models.from_nnx(lambda rngs: NnxFrozen(rngs, False), **o),
    "nnx, in the call": lambda **o: models.from_nnx(lambda rngs: NnxFrozen(rngs, True), **o),
}


def predict(model):
    return model.apply(model.init(KEY, INPUTS), INPUTS)


@pytest.mark.parametrize("build", FROZEN.values(), ids=FROZEN)
def test_a_frozen_norm_is_refused_unless_it_runs(build):
    with pytest.raises(ValueError, match=r"reads running averages .* pass norm='running'"):
        predict(build())
    model = build(norm="running")
    params = moved(model.init(KEY, INPUTS))
    np.testing.assert_allclose(model.apply(params, INPUTS), INPUTS - 5.0, rtol=1e-3, atol=1e-4)


def test_flaxs_own_variables_predict_as_in_flax():
    net = Flagged()
    variables = net.init(KEY, INPUTS, train=False)
    variables = jax.tree.map(lambda x: x + 0.5, variables)
    params = WithState(variables["params"], {"batch_stats": variables["batch_stats"]})
    found = models.from_linen(net, norm="running").apply(params, INPUTS)
    np.testing.assert_allclose(found, net.apply(variables, INPUTS, train=False), rtol=1e-6)


# ---------------------------------------------------------------------------------------------
# Whatever else is kept.


class Features(linen.Module):
    """Random features and a random order of the inputs, which is no floating-point array."""

    @linen.compact
    def __call__(self, x):
        order = self.variable("const", "order", lambda: jax.random.permutation(KEY, x.shape[-1]))
        wide = self.variable(
            "const", "wide", lambda: jax.random.normal(self.make_rng("params"), (x.shape[-1], 8))
        )
        return linen.Dense(2)(jnp.sin(x[:, order.value] @ wide.value))


class NnxFeatures(nnx.Module):
    """The same."""

    def __init__(self, rngs):
        self.order = nnx.Variable(jax.random.permutation(KEY, 3))
        self.wide = nnx.Variable(jax.random.normal(rngs.params(), (3, 8)))
        self.dense = nnx.Linear(8, 2, rngs=rngs)

    def __call__(self, x):
        return self.dense(jnp.sin(x[:, self.order[...]] @ self.wide[...]))


class Spectral(linen.Module):
    """A spectral norm, whose vector lies among the batch statistics."""

    update: bool = False

    @linen.compact
    def __call__(self, x):
        x = linen.BatchNorm(use_running_average=False)(x)
        return linen.SpectralNorm(linen.Dense(2))(x, update_stats=self.update)


class NnxSpectral(nnx.Module):
    """The same."""

    def __init__(self, rngs, update=False):
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.dense = nnx.SpectralNorm(nnx.Linear(3, 2, rngs=rngs), rngs=rngs)
        self.update = update

    def __call__(self, x):
        return self.dense(self.norm(x), update_stats=self.update)


STATEFUL = {
    "linen, features": lambda: models.from_linen(Features()),
    "nnx, features": lambda: models.from_nnx(NnxFeatures),
    "linen, spectral": lambda: models.from_linen(Spectral()),
    "nnx, spectral": lambda: models.from_nnx(NnxSpectral),
}


def wide_of(params):
    """The state's largest array."""
    return max(jax.tree.leaves(params.state), key=jnp.size)


@pytest.mark.parametrize("build", STATEFUL.values(), ids=STATEFUL)
def test_state_is_as_init_drew_it_at_every_call(build):
    model = build()
    params, others = model.init(KEY, INPUTS), model.init(OTHER, INPUTS)
    assert np.any(wide_of(params) != wide_of(others))
    found = [model.apply(params, INPUTS, key=key) for key in (None, KEY, OTHER, None)]
    for each in found[1:]:
        np.testing.assert_array_equal(each, found[0])
    swapped = params._replace(state=others.state)
    assert np.any(model.apply(swapped, INPUTS) != found[0])


@pytest.mark.parametrize("build", [Features, NnxFeatures])
def test_features_are_those_of_the_state(build):
    model = models.from_linen(build()) if build is Features else models.from_nnx(build)
    params = model.init(KEY, INPUTS)
    order = jax.random.permutation(KEY, 3)
    expected = jnp.sin(INPUTS[:, order] @ wide_of(params)) @ jax.tree.leaves(params.params)[1]
    np.testing.assert_allclose(model.apply(params, INPUTS), expected, rtol=1e-5)


@pytest.mark.parametrize("build", STATEFUL.values(), ids=STATEFUL)
def test_state_is_neither_adapted_nor_trained(build):
    learner = maml(
        build(), losses.mean_squared_error, inner_lr=0.1, num_steps=2,
        inner_tx=optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1)),
    )  # fmt: skip
    params = learner.init(KEY, INPUTS)
    batch = Batch(INPUTS, jnp.ones((6, 2)))
    adapted = learner.adapt(params, batch, KEY).params
    tx = optax.adamw(0.1, weight_decay=0.1)
    tasks = jax.tree.map(lambda x: x[None], Task(batch, batch))
    step = jax.jit(meta_step(learner.meta_gradient, tx))
    trained = step(init_state(params, tx), tasks, KEY)[0].meta_params
    for after in (adapted, trained):
        jax.tree.map(np.testing.assert_array_equal, after.state, params.state)
        moved = jax.tree.map(lambda a, b: np.any(a != b), after.params, params.params)
        assert all(jax.tree.leaves(moved))


class Counting(linen.Module):
    @linen.compact
    def __call__(self, x):
        calls = self.variable("counts", "calls", jnp.zeros, ())
        calls.value = calls.value + 1
        return x


class NnxCounting(nnx.Module):
    def __init__(self, rngs):
        self.calls = nnx.Variable(jnp.zeros(()))

    def __call__(self, x):
        self.calls[...] += 1
        return x


@pytest.mark.parametrize(
    ("build", "where"),
    [
        (lambda: models.from_linen(Counting()), "counts"),
        (lambda: models.from_linen(Spectral(update=True)), "SpectralNorm_0"),
        (lambda: models.from_nnx(NnxCounting), "calls"),
        (lambda: models.from_nnx(lambda rngs: NnxSpectral(rngs, update=True)), "dense"),
    ],
    ids=["linen", "linen, spectral", "nnx", "nnx, spectral"],
)
def test_a_call_that_writes_is_refused(build, where):
    model = build()
    with pytest.raises(ValueError, match=f"call writes to its state .*{where}"):
        model.apply(model.init(KEY, INPUTS), INPUTS)


# ---------------------------------------------------------------------------------------------
# Without dropout at test, and errors at the door.


def test_adaptation_goes_without_dropout_where_there_is_no_key():
    model = FLAGGED["linen, train"]()
    learner = maml(model, losses.mean_squared_error, inner_lr=0.1, num_steps=2)
    dry = maml(models.from_linen(Flagged(), train=True), losses.mean_squared_error, inner_lr=0.1)
    params, batch = learner.init(KEY, INPUTS), Batch(INPUTS, jnp.ones((6, 2)))
    adapted = [learner.adapt(params, batch, key).params for key in (None, None, KEY)]
    jax.tree.map(np.testing.assert_array_equal, adapted[0], adapted[1])
    assert np.any(adapted[0]["Dense_0"]["kernel"] != adapted[2]["Dense_0"]["kernel"])
    by_hand = params
    for _ in range(2):
        gradient = jax.grad(dry.loss)(by_hand, batch)
        by_hand = jax.tree.map(lambda p, g: p - 0.1 * g, by_hand, gradient)
    np.testing.assert_allclose(
        adapted[0]["Dense_0"]["kernel"], by_hand["Dense_0"]["kernel"], rtol=1e-5
    )

    tasks = jax.tree.map(lambda x: jnp.stack([x, x]), Task(batch, batch))
    scores = [
        evaluate(learner, params, key=KEY, tasks=tasks, stochastic=stochastic).values
        for stochastic in (False, True)
    ]
    expected = learner.loss(adapted[0], batch)
    np.testing.assert_allclose(scores[0][:, -1], expected, rtol=1e-5)
    assert np.all(scores[1][:, -1] != scores[0][:, -1])


class Noisy(linen.Module):
    @linen.compact
    def __call__(self, x):
        return x + jax.random.normal(self.make_rng("noise"), x.shape)


def test_wrong_modules_are_explained():
    with pytest.raises(ValueError, match=r"norm must be one of .* Did you mean 'running'"):
        models.from_linen(Flagged(), norm="runing")
    with pytest.raises(ValueError, match="norm='running' needs a module with running averages"):
        models.from_linen(Noisy(), norm="running").init(KEY, INPUTS)
    with pytest.raises(ValueError, match="norm='running' needs a module with running averages"):
        models.from_nnx(NnxCounting, norm="running")
    noisy = models.from_linen(Noisy())
    assert np.all(noisy.apply({}, INPUTS, key=KEY) != INPUTS)
    with pytest.raises(ValueError, match=r'"noise"\), but was called without a key'):
        noisy.apply({}, INPUTS)
    features = models.from_linen(Features())
    params = features.init(KEY, INPUTS)
    with pytest.raises(ValueError, match=r"lack a part .*const.* Take WithState\(params, state\)"):
        features.apply(params.params, INPUTS)
