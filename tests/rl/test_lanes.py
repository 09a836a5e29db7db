"""Functions on lanes: equal to `jax.vmap`, in operations that have a rule and in some without."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mamljax import rl
from mamljax.rl import lanes

TABLE = np.array([[1.0, -2.0, 0.5], [0.3, 0.1, -0.7]], np.float32)
ROWS = np.array([[1, 0, 2], [2, 2, 1]])


@jax.custom_jvp
def doubled(x):
    return 2 * x


@jax.custom_vjp
def halved(x):
    return x / 2


doubled.defjvp(lambda primals, tangents: (doubled(*primals), 2 * tangents[0]))
halved.defvjp(lambda x: (x / 2, None), lambda _, g: (g / 2,))


def swing(x, times):
    """A scan with a constant, a carry and rows, and outputs."""

    def step(carried, row):
        angle, count = carried
        return (angle + 0.1 * jnp.sin(row * x).sum(), count + 1), angle

    return jax.lax.scan(step, (x[0, 0], 0), times)


# Of a matrix x [3, 4], a vector v [3], and an integer n from 0 to 2.
FUNCTIONS = {
    "sums and products": lambda x, v, n: jnp.tanh(x - v[:, None]) * x / (1 + n) + x**2 - 1.5,
    "beside a constant": lambda x, v, n: x[:, :3] * TABLE[:1] + TABLE[1, 0] - jnp.eye(3),
    "comparing": lambda x, v, n: jnp.where(x > v[0], x, jnp.clip(-x, -0.3, v[1])),
    "one predicate for all": lambda x, v, n: jax.lax.select(v[0] > 0, x, -x),
    "same for all": lambda x, v, n: (jnp.asarray(TABLE) @ jnp.ones(3), x),
    "nothing of the batch": lambda x, v, n: jnp.arange(3) + 1,
    "matrix times vector": lambda x, v, n: x.T @ v,
    "matrix times constant": lambda x, v, n: TABLE @ x,
    "constant behind": lambda x, v, n: x.T @ TABLE.T,
    "batches of products": lambda x, v, n: jnp.einsum("ij,ik->ijk", x, x[:, :2]),
    "all contracted": lambda x, v, n: jnp.einsum("ij,ij->", x, x),
    "outer product": lambda x, v, n: jnp.outer(v, x[0]),
    "cross product": lambda x, v, n: jnp.cross(x[:, :3], v),
    "a long contraction": lambda x, v, n: jnp.tile(x, (1, 40)) @ jnp.ones((160, 2)),
    "integers contracted": lambda x, v, n: jnp.stack([n, n + 1]) @ jnp.array([2, 3]),
    "shapes": lambda x, v, n: (x.T.reshape(2, 6)[::-1], x[None, 1:, ::2], x[:1].squeeze(0)),
    "joined": lambda x, v, n: jnp.concatenate([x, jnp.ones((1, 4)), v[None, :1] * x[:1]]),
    "padded": lambda x, v, n: jnp.pad(x, ((1, 0), (0, 2)), constant_values=3.0),
    "padded with its own": lambda x, v, n: jax.lax.pad(x, v[0], ((1, 0, 1), (0, 2, 0))),
    "reduced": lambda x, v, n: (x.sum(0), x.max(), x.min(1), (x > 0).all(0), x.prod(), x.argmax(1)),
    "accumulated": lambda x, v, n: (jnp.cumsum(x, 1), jnp.cumprod(x, 0)),
    "rows": lambda x, v, n: (x[ROWS], jnp.take(x, jnp.array([0, 2]), axis=0), x[jnp.array([1])]),
    "columns": lambda x, v, n: x[:, np.array([3, 0, 0])],
    "rows of its own": lambda x, v, n: (x[n], jnp.take(x, jnp.stack([n, 0]), axis=0)),
    "rows of a constant": lambda x, v, n: jnp.asarray(TABLE.T)[n],
    "rows beyond": lambda x, v, n: jnp.take(x, jnp.array([0, 7]), axis=0, mode="fill"),
    "added to rows": lambda x, v, n: jnp.zeros((3, 2)).at[ROWS[1]].add(x[:, :2]),
    "added to elements": lambda x, v, n: v.at[np.array([0, 0, 2])].add(x[:, 0]),
    "added to rows of its own": lambda x, v, n: x.at[n].add(v[0]),
    "added beyond": lambda x, v, n: x.at[jnp.array([1, 5])].add(1.0, mode="drop"),
    "set": lambda x, v, n: x.at[1].set(v[2]).at[:, 2].set(v),
    "a slice of its own": lambda x, v, n: jax.lax.dynamic_slice(x, (n, 0), (1, 2)),
    "a slice written": lambda x, v, n: jax.lax.dynamic_update_slice(x, v[None, :2], (1, n)),
    "a slice in a loop": lambda x, v, n: jax.lax.fori_loop(0, 3, lambda i, s: s + x[i], x[0]),
    "a slice written in a loop": lambda x, v, n: jax.lax.fori_loop(
        0, 3, lambda i, s: s.at[i].set(v[i] * s[i]), x
    ),
    "a scan": lambda x, v, n: swing(x, v),
    "a scan of what all share": lambda x, v, n: swing(x, jnp.arange(5.0)),
    "a scan backwards": lambda x, v, n: jax.lax.scan(
        lambda s, row: (s + row, s * row), v, x.T[:, :3], reverse=True, unroll=2
    ),
    "a scan's derivative": lambda x, v, n: jax.grad(lambda a: jnp.sin(swing(x, a)[1]).sum())(v),
    "a loop of its own length": lambda x, v, n: jax.lax.while_loop(
        lambda s: s[0] < n, lambda s: (s[0] + 1, s[1] * 1.5), (0, x)
    ),
    "a branch of its own": lambda x, v, n: jax.lax.cond(n > 1, jnp.sin, jnp.cos, x),
    "a program within": lambda x, v, n: jax.jit(lambda a: jnp.sort(a, axis=0))(x),
    "derivatives of its own": lambda x, v, n: doubled(x) + halved(x) + jax.nn.relu(x),
    "a derivative": lambda x, v, n: jax.grad(lambda a: jnp.sin(a @ x).sum())(v),
    "recomputed": lambda x, v, n: jax.grad(jax.checkpoint(lambda a: jnp.sin(a).sum()))(x),
    "linear algebra": lambda x, v, n: jnp.linalg.inv(x[:, :3] @ x[:, :3].T + jnp.eye(3)),
    "random numbers": lambda x, v, n: jax.random.normal(jax.random.key(n), (2,)),
    "one random number for all": lambda x, v, n: x * jax.random.uniform(jax.random.key(0)),
    "types": lambda x, v, n: (x.astype(jnp.int32), n.astype(float), (x > 0) & (n > 0), ~(x > 1)),
}


def assert_close(found, expected, *, rtol=1e-5, atol=1e-6):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


@pytest.fixture
def batch():
    x_key, v_key = jax.random.split(jax.random.key(0))
    numbers = jnp.arange(7) % 3
    return jax.random.normal(x_key, (7, 3, 4)), jax.random.normal(v_key, (7, 3)), numbers


@pytest.mark.parametrize("name", FUNCTIONS)
def test_equals_vmap(name, batch):
    function = FUNCTIONS[name]
    found = jax.jit(jax.vmap(lanes.on_lanes(function)))(*batch)
    expected = jax.jit(jax.vmap(function))(*batch)
    assert_close(found, expected)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_most_operations_have_a_rule(name, batch, monkeypatch):
    """Else `jax.vmap` would be compared with itself."""
    passed = []
    rule = lanes._in_front
    monkeypatch.setattr(
        lanes, "_in_front", lambda equation, *args: passed.append(equation) or rule(equation, *args)
    )
    jax.vmap(lanes.on_lanes(FUNCTIONS[name]))(*batch)
    allowed = WITHOUT_RULE.get(name, set())
    assert {equation.primitive.name for equation in passed} <= allowed


WITHOUT_RULE = {
    "a long contraction": {"dot_general"},
    "padded with its own": {"pad"},
    "columns": {"gather"},
    "rows of its own": {"gather", "dynamic_slice"},
    "rows of a constant": {"dynamic_slice"},
    "rows beyond": {"gather"},
    "added to rows of its own": {"scatter-add"},
    "added beyond": {"scatter-add"},
    "set": {"scatter"},
    "a slice of its own": {"dynamic_slice"},
    "a slice written": {"dynamic_update_slice"},
    "a slice written in a loop": {"scatter"},
    "a loop of its own length": {"while"},
    "a branch of its own": {"cond"},
    "a program within": {"sort"},
    "recomputed": {"remat2"},
    "linear algebra": {"lu", "custom_linear_solve", "stop_gradient"},
    "random numbers": {
        "random_seed",
        "random_bits",
        "random_wrap",
        "random_unwrap",
        "shift_right_logical",
        "bitcast_convert_type",
    },
}


def test_nested_batches_are_one(batch, monkeypatch):
    sizes = []
    run = lanes._run
    monkeypatch.setattr(
        lanes,
        "_run",
        lambda program, inputs, size: sizes.append(size) or run(program, inputs, size),
    )
    x, v, n = batch

    def function(x, v, n):
        return jnp.sin(x).sum() * v + n

    def nested(function):
        one = jax.vmap(function, (None, 0, None))  # over the entries of v
        return jax.vmap(jax.vmap(one, (0, 0, None)), (None, 0, 0))

    many = jnp.arange(5.0)[:, None, None] * v[None]
    found, expected = (nested(f)(x, many, n[:5]) for f in (lanes.on_lanes(function), function))
    assert found.shape == (5, 7, 3)
    assert_close(found, expected)
    assert set(sizes) == {3, 7 * 3, 5 * 7 * 3}


def test_without_vmap_and_in_derivatives_it_is_the_function(batch):
    x, v, _ = batch
    on_lanes = lanes.on_lanes(lambda x, v: jnp.sin(x.T @ v).sum())

    def plain(x, v):
        return jnp.sin(x.T @ v).sum()

    assert_close(on_lanes(x[0], v[0]), plain(x[0], v[0]))

    def total(function, x, v):
        return jax.vmap(function)(x, v).sum()

    for derivative in (jax.grad, jax.hessian):
        found = derivative(total, 1)(on_lanes, x, v)
        assert_close(found, derivative(total, 1)(plain, x, v))


def test_elsewhere_than_on_cpu_nothing_changes(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")

    def function(x):
        return x

    assert lanes.on_lanes(function) is function


@pytest.mark.parametrize("name", ["cheetah_velocity", "ant_direction"])
def test_a_robot_moves_as_before(name):
    env = rl.locomotion(name)
    task = env.sample_task(jax.random.key(0))
    start = jax.jit(jax.vmap(env.reset, (None, 0)))(task, jax.random.split(jax.random.key(1), 3))
    actions = jax.random.normal(jax.random.key(2), (3, env.action_size))

    def step(function):
        return jax.jit(jax.vmap(function, (None, 0, 0)))(task, start, actions)

    assert_close(step(lanes.on_lanes(env.step)), step(env.step), rtol=1e-4, atol=1e-4)
