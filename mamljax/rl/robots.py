"""Locomotion: a half-cheetah and an ant with goal velocities, directions and positions, in Brax.

The families of Finn et al. 2017, section 5.3, with the rewards, costs and ends of the authors' code
(rllab, github.com/cbfinn/maml_rl), its clock (an action every 0.01 s for the cheetah, 0.02 s for
the ant), the cheetah's gears, and where episodes start. The simulator differs: velocities are
differences of the torso's position over a step, masses and contacts are Brax's, and the ant lacks
contact forces: they are not in the observation, and the ant's contact cost, 0.5e-3 times the
squared forces, is left out. Observations are Brax's, without the horizontal position (but for
``ant_goal``). So returns compare within this library, not with the paper's.

Brax itself lets its robots act every 0.05 s, has stronger front legs of the cheetah, and starts the
ant from 0.75 m, all with ten times the noise. ProMP and others divide actions by 10
(``action_scale=0.1``), the authors' code does not.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from mamljax import checks
from mamljax.rl.brax_env import BACKENDS, brax_environment, from_brax
from mamljax.rl.env import Env
from mamljax.rl.navigation import Goal
from mamljax.types import Array

if TYPE_CHECKING:
    from brax.envs.base import Env as BraxEnv


class Velocity(NamedTuple):
    """The task: how fast to run along the x axis, a scalar in metres per second."""

    velocity: Array


class Direction(NamedTuple):
    """The task: +1 to run forward, -1 to run backward, a scalar."""

    direction: Array


class Body(NamedTuple):
    """One robot.

    environment: its name in Brax.
    control_cost: times the sum of squared actions, taken off the reward.
    survive: added to the reward of every step.
    done: whether an episode ends, see `from_brax`; None for never.
    dt: seconds between two actions, in rllab.
    timestep: by backend, the longest step in seconds at which Brax's physics is stable.
    gear: strength of each motor, in rllab; None for Brax's.
    height: of the torso at the start, in rllab, in metres; None for Brax's.
    """

    environment: str
    control_cost: float
    survive: float
    done: Callable[..., Any] | None
    dt: float
    timestep: dict[str, float]
    gear: tuple[float, ...] | None = None
    height: float | None = None


class Family(NamedTuple):
    """A family of tasks of one name.

    progress: ``(metrics, task) -> scalar``, the reward before costs; `metrics` are Brax's.
    bonus: added to the reward of every step, where falling early would otherwise pay.
    options: of the Brax environment.
    """

    body: Body
    sample_task: Callable[..., Any]
    progress: Callable[[Any, Any], Array]
    bonus: float = 0.0
    options: dict[str, Any] = {}  # noqa: RUF012, nobody writes into it


def fallen(state: Any, action: Array, task: Any) -> Array:
    """Return whether the torso left the heights 0.2 to 1, or anything seen is not finite."""
    del action, task
    height = state.pipeline_state.x.pos[0, 2]
    upright = (height >= 0.2) & (height <= 1.0)
    return ~(upright & jnp.all(jnp.isfinite(state.obs)))


def velocities(fastest: float) -> Callable[[Array], Velocity]:
    """Uniform goal velocities from 0 to `fastest`."""
    return lambda key: Velocity(jax.random.uniform(key, maxval=fastest))


def directions(key: Array, *, place: Array | None = None) -> Direction:
    """Forward or backward, each half the time; of tasks that are drawn together, in turn."""
    if place is None:
        return Direction(jax.random.rademacher(key, (), float))
    return Direction(jnp.where(place % 2 == 0, 1.0, -1.0))


def positions(key: Array) -> Goal:
    """Uniform goals in the square [-3, 3]^2."""
    return Goal(jax.random.uniform(key, (2,), minval=-3.0, maxval=3.0))


def at_velocity(metrics: Any, task: Velocity) -> Array:
    """Minus the error of the velocity."""
    return -jnp.abs(metrics["x_velocity"] - task.velocity)


def along(metrics: Any, task: Direction) -> Array:
    """The velocity in the direction asked for."""
    return task.direction * metrics["x_velocity"]


def near(metrics: Any, task: Goal) -> Array:
    """Minus the L1 distance of the torso to the goal."""
    torso = jnp.stack([metrics["x_position"], metrics["y_position"]])
    return -jnp.sum(jnp.abs(torso - task.position))


CHEETAH = Body(
    "halfcheetah",
    control_cost=0.05,
    survive=0.0,
    done=None,
    dt=0.01,
    timestep={"spring": 0.003125, "positional": 0.003125, "generalized": 0.01, "mjx": 0.01},
    gear=(120.0, 90.0, 60.0, 120.0, 60.0, 30.0),
)
ANT = Body(
    "ant",
    control_cost=0.005,
    survive=0.05,
    done=fallen,
    dt=0.02,
    timestep={"spring": 0.005, "positional": 0.005, "generalized": 0.01, "mjx": 0.01},
    height=0.55,
)
START_NOISE, VELOCITY_NOISE = 0.01, 0.1
"""Standard deviations of positions and of velocities at the start of an episode, in rllab."""

FAMILIES = {
    "cheetah_velocity": Family(CHEETAH, velocities(2.0), at_velocity),
    "cheetah_direction": Family(CHEETAH, directions, along),
    "ant_velocity": Family(ANT, velocities(3.0), at_velocity, bonus=1.0),
    "ant_direction": Family(ANT, directions, along),
    "ant_goal": Family(
        ANT, positions, near, 4.0, {"exclude_current_positions_from_observation": False}
    ),
}
LOCOMOTION = tuple(FAMILIES)
"""The names that `locomotion` takes."""


def locomotion(
    name: str,
    *,
    dt: float | None = None,
    action_scale: float = 1.0,
    start_noise: float = START_NOISE,
    backend: str = "spring",
) -> Env:
    """One family of locomotion tasks.

    With v the forward velocity and c = 0.05 (cheetah) or 0.005 (ant) times the sum of squared
    actions, which are clipped to [-1, 1]:

    - ``cheetah_velocity``: goals g uniform in [0, 2], reward -abs(v - g) - c;
    - ``cheetah_direction``: d = +1 or -1, reward d v - c;
    - ``ant_velocity``: goals uniform in [0, 3], reward 1 - abs(v - g) - c + 0.05;
    - ``ant_direction``: d = +1 or -1, reward d v - c + 0.05;
    - ``ant_goal``: goals uniform in [-3, 3]^2, reward 4 minus the L1 distance of the torso to the
      goal, - c + 0.05. Not in the paper; from the authors' code (``ant_env_rand_goal.py``). The
      observation begins with the torso's position.

    The ant's episodes end when its torso leaves the heights 0.2 to 1.

    Args:
      name: one of `LOCOMOTION`.
      dt: seconds between two actions; None takes the paper's, 0.01 (cheetah) or 0.02 (ant).
      action_scale: times a policy's actions, before they are clipped and cost. Below 1 a policy of
        standard deviation 1 explores less, and fewer of its actions are clipped.
      start_noise: see `robot`.
      backend: Brax's physics; ``spring`` compiles fastest. Robots move differently in each.
    """
    environment = robot(name, dt=dt, start_noise=start_noise, backend=backend)
    body, sample_task, progress, bonus, _ = FAMILIES[name]

    def reward(state, action, task):
        cost = body.control_cost * jnp.sum(jnp.square(action))
        return progress(state.metrics, task) + bonus + body.survive - cost

    return from_brax(
        environment,
        sample_task=sample_task,
        reward=reward,
        done=body.done,
        action_scale=action_scale,
    )


def robot(
    name: str,
    *,
    dt: float | None = None,
    start_noise: float = START_NOISE,
    backend: str = "spring",
) -> "BraxEnv":
    """The Brax environment beneath `locomotion`, which `write_rollouts` needs to draw it.

    Args:
      name: one of `LOCOMOTION`.
      dt: seconds between two actions; None takes the paper's. Each is of as few equal steps of
        physics as Brax is stable with.
      start_noise: standard deviation of positions (metres, radians) at the start of an episode;
        that of velocities is `VELOCITY_NOISE`.
      backend: Brax's physics.
    """
    checks.one_of("name", name, LOCOMOTION)
    checks.one_of("backend", backend, BACKENDS)
    checks.non_negative("start_noise", start_noise)
    body, options = FAMILIES[name].body, FAMILIES[name].options
    dt = body.dt if dt is None else dt
    checks.positive("dt", dt)
    frames = math.ceil(dt / body.timestep[backend] - 1e-9)  # 0.05 / 0.005 is no less than 10
    environment: Any = brax_environment(
        body.environment, backend=backend, n_frames=frames, **options
    )
    system = environment.sys.tree_replace({"opt.timestep": dt / frames})
    if body.gear is not None:
        system = system.replace(actuator=system.actuator.replace(gear=jnp.array(body.gear)))
    environment.sys = system
    return _started(environment, body.height, start_noise)


def _started(environment: Any, height: float | None, noise: float) -> Any:
    """The environment with episodes that begin as rllab's, near one pose."""
    reset = environment.reset
    pose = environment.sys.init_q if height is None else environment.sys.init_q.at[2].set(height)

    def begin(rng):
        state = reset(rng)
        position_key, velocity_key = jax.random.split(rng)
        q = pose + noise * jax.random.normal(position_key, pose.shape)
        qd = VELOCITY_NOISE * jax.random.normal(velocity_key, (environment.sys.qd_size(),))
        physics = environment.pipeline_init(q, qd)
        return state.replace(pipeline_state=physics, obs=environment._get_obs(physics))

    environment.reset = begin
    return environment
