"""Brax environments as families of tasks: any robot with a reward of your own."""

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from mamljax import checks
from mamljax.checks import ArgumentError
from mamljax.rl.env import Env, EnvState
from mamljax.types import Array, PyTree

# Importing Brax takes seconds: only those who build an environment pay for it.
if TYPE_CHECKING:
    from brax.envs.base import Env as BraxEnv
    from brax.envs.base import State

BACKENDS = ("generalized", "mjx", "positional", "spring")

# What Brax 0.14 says whatever one does with it: when it is imported (JAXopt, and what MuJoCo prints
# about Warp), when it builds an environment, and, until MuJoCo's own fields move, when it steps.
STANDING_WARNINGS = (
    "JAXopt is no longer maintained",
    "Brax System, piplines and environments are not actively being maintained",
    r"Accessing `\w+` directly from `(Data|Model)` is deprecated",
)
PRINTED = ("Failed to import warp:", "Failed to import mujoco_warp:")
MUJOCO_WARNINGS = ("compiler attribute 'settotalmass' is deprecated",)  # the half-cheetah's file


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Import Brax, and within the block build its environments, without its standing messages.

    It hides the notices that Brax and JAXopt are no longer maintained, the missing Warp backend,
    and a deprecated setting in the half-cheetah's file; any other message still comes through.
    """
    checks.require("brax", "a Brax environment")
    with _without_standing_warnings():
        with _printing_without(PRINTED):
            import brax.envs  # noqa: F401
            import mujoco
        simulator: Any = mujoco  # its type stubs lack the two functions used here
        # MuJoCo's own handler also writes MUJOCO_LOG.TXT into the working directory. An exception
        # must not cross MuJoCo's C code: collect first, warn later.
        messages: list[str] = []
        handler = simulator.get_mju_user_warning()
        simulator.set_mju_user_warning(messages.append)
        try:
            yield
        finally:
            simulator.set_mju_user_warning(handler)
        for message in messages:
            if not message.startswith(MUJOCO_WARNINGS):
                warnings.warn(f"MuJoCo: {message}", stacklevel=3)


@contextlib.contextmanager
def _without_standing_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        for start in STANDING_WARNINGS:
            warnings.filterwarnings("ignore", start)
        yield


@contextlib.contextmanager
def _printing_without(starts: tuple[str, ...]) -> Iterator[None]:
    """Pass on what the block prints, except lines with these beginnings."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            yield
    finally:
        lines = printed.getvalue().splitlines(keepends=True)
        print(*(line for line in lines if not line.startswith(starts)), sep="", end="")


def brax_environment(name: str, *, backend: str = "spring", **options: Any) -> "BraxEnv":
    """One of the environments registered with Brax, without wrappers and without its messages.

    Args:
      name: such as ``"ant"`` or ``"halfcheetah"``, or what `brax.envs.register_environment` knows.
      backend: the physics; ``spring`` compiles fastest.
      **options: of the environment's constructor.
    """
    checks.one_of("backend", backend, BACKENDS)
    with quietly():
        from brax import envs

        checks.one_of("name", name, envs._envs)  # Brax has no public list of them
        return envs.get_environment(name, backend=backend, **options)


def from_brax(
    environment: "BraxEnv",
    *,
    sample_task: Callable[..., PyTree],
    reward: "Callable[[State, Array, PyTree], Any]",
    done: "Callable[[State, Array, PyTree], Any] | None" = None,
    action_scale: float = 1.0,
) -> Env:
    """A family of tasks on one Brax environment, which differ in their reward::

        class Place(NamedTuple):
            position: jax.Array

        env = from_brax(
            brax_environment("inverted_pendulum"),
            sample_task=lambda key: Place(jax.random.uniform(key, minval=-1.0)),
            reward=lambda state, action, task: -jnp.abs(state.obs[0] - task.position),
        )

    Actions are scaled and clipped to [-1, 1], Brax's range, before physics and reward see them.
    Brax's own reward stays unused. `EnvState.physics` is Brax's state, so
    ``physics.pipeline_state`` is what `write_rollouts` draws.

    Args:
      environment: without Brax's wrappers, which reset by themselves; its observation is a vector.
      sample_task: ``key -> task``, a pytree of arrays; see `Env`.
      reward: ``(state, action [A], task) -> scalar``. The state is Brax's, after the step:
        Brax's robots give velocities and positions in its ``metrics``; the poses of all bodies are
        in its ``pipeline_state.x``.
      done: whether the episode ends, of the same arguments; None takes Brax's own ``state.done``.
      action_scale: times the policy's actions, above 0.

    Raises:
      ArgumentError: for an environment whose observation is not a vector, and at the first step for
        a reward or an end that is not a scalar.
    """
    checks.is_function("sample_task", sample_task, "key -> task")
    checks.is_function("reward", reward, "(state, action, task) -> scalar")
    checks.positive("action_scale", action_scale)
    if done is not None:
        checks.is_function("done", done, "(state, action, task) -> scalar")

    def call(function, *arguments):
        # Brax relies on rank promotion, which the caller may forbid.
        with _without_standing_warnings(), jax.numpy_rank_promotion("allow"):
            return function(*arguments)

    def begin(key):
        state = call(environment.reset, jax.random.key_data(key))  # Brax expects untyped keys
        # Types as `step` keeps them: an environment may return Python numbers or weak types.
        return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), state)

    def reset(task, key):
        del task
        state = begin(key)
        return EnvState(state, state.obs, jnp.zeros(()), jnp.array(False))

    def step(task, state, action):
        action = jnp.clip(action_scale * action, -1.0, 1.0)
        before = state.physics
        # Brax writes into the dictionaries of the state that it is given: hand over a copy.
        copy = jax.tree.map(lambda leaf: leaf, before)
        after = call(environment.step, copy, action)
        after = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), after, before)
        earned = _scalar("reward", reward(after, action, task)).astype(jnp.result_type(float))
        ends = _scalar("done", after.done if done is None else done(after, action, task))
        return EnvState(after, after.obs, earned, ends.astype(bool))

    observation = jax.eval_shape(begin, jax.random.key(0)).obs
    if len(getattr(observation, "shape", ())) != 1:
        raise ArgumentError(
            f"the environment's observation must be one vector; got {observation!r}. Flatten it in "
            "an environment of your own."
        )
    return Env(
        sample_task,
        reset,
        step,
        observation_size=observation.shape[0],
        action_size=environment.action_size,
        action_limit=1.0 / action_scale,
    )


def _scalar(name: str, value: Any) -> Array:
    if jnp.shape(value) != ():
        raise ArgumentError(f"{name} must return a scalar; got shape {jnp.shape(value)}.")
    return jnp.asarray(value)
