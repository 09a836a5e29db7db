"""Rollouts: many episodes of one task at once, on the device, of a fixed length."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mamljax import checks
from mamljax.checks import ArgumentError
from mamljax.rl.env import Env, EnvState, checked
from mamljax.rl.lanes import on_lanes
from mamljax.types import ApplyFn, Array, Params, PyTree, Recurrent

METHODS = ("sample", "log_prob", "kl", "fisher")
"""What a `Distribution` has."""


class Trajectories(NamedTuple):
    """Episodes ``E`` of at most ``H`` steps.

    observations: ``[E, H, D]``, before each step; 0 where it is not valid, as actions and rewards.
    actions: ``[E, H, A]``.
    rewards: ``[E, H]``, of each step.
    valid: ``[E, H]``, 1 for steps taken, 0 after the episode's end.
    behaviour: the distributions that the actions were drawn from, leaves ``[E, H, ...]``.
    broken: ``[E]``, episodes that ended, or began, with numbers that are infinite or NaN.
    clipped: ``[E]``, the share of the actions' entries that the environment clips.
    """

    observations: Array
    actions: Array
    rewards: Array
    valid: Array
    behaviour: PyTree
    broken: Array
    clipped: Array


def rollout(
    env: Env,
    policy: ApplyFn | Recurrent,
    params: Params,
    task: PyTree,
    key: Array,
    *,
    episodes: int,
    horizon: int,
) -> Trajectories:
    """Episodes of one task under a stochastic policy.

    An episode ends when the environment says so, after `horizon` steps, or when its observation or
    reward is no longer finite: that step does not count, and the state before it is kept, so that
    nothing infinite reaches an update. What follows the end of an episode is not valid. One that
    begins so has no valid step at all.

    Args:
      env: the environment.
      policy: ``(params, observations [E, D]) -> distribution``, see `Distribution`; or one with a
        memory, which begins each episode anew.
      params: of the policy.
      task: one task of `env`.
      key: of starts and actions.
      episodes: how many, ``E``.
      horizon: steps of each, ``H``.

    Raises:
      ArgumentError: for an environment or a policy that does not keep its contract.
    """
    checks.at_least("episodes", episodes, 1)
    checks.at_least("horizon", horizon, 1)
    policy = with_memory(policy)
    reset_key, act_key = jax.random.split(key)
    env = checked(env, task, reset_key)
    start = jax.vmap(env.reset, (None, 0))(task, jax.random.split(reset_key, episodes))
    advance = jax.vmap(on_lanes(env.step), (None, 0, 0))
    check_policy(one_step(policy), params, start.observation, env.action_size)
    unfit = ~jnp.isfinite(start.observation).all(axis=1)
    seen = _where(~unfit, start.observation, jnp.zeros_like(start.observation))
    start = start._replace(observation=seen, done=start.done | unfit)

    def step(carried, key):
        memory, before = carried
        memory, behaviour = policy.step(params, memory, before.observation)
        actions = behaviour.sample(key)
        after = advance(task, before, actions)
        finite = jnp.isfinite(after.observation).all(axis=1) & jnp.isfinite(after.reward)
        broken, counts = ~finite & ~before.done, finite & ~before.done
        rewards = jnp.where(counts, after.reward, 0.0)
        seen, done = (_where(counts, x, jnp.zeros_like(x)) for x in (before.observation, actions))
        recorded = (seen, done, rewards, counts, behaviour, broken)
        kept = jax.tree.map(lambda new, old: _where(counts, new, old), after, before)
        return (memory, kept._replace(done=before.done | broken | kept.done)), recorded

    begin = policy.start(params, start.observation), start
    _, recorded = jax.lax.scan(step, begin, jax.random.split(act_key, horizon))
    observations, actions, rewards, valid, behaviour, broken = jax.tree.map(
        lambda x: jnp.swapaxes(x, 0, 1), recorded
    )
    valid = valid.astype(rewards.dtype)
    broken = unfit | broken.any(axis=1)
    clipped = _clipped(actions, valid, env.action_limit)
    return Trajectories(observations, actions, rewards, valid, behaviour, broken, clipped)


def _clipped(actions: Array, valid: Array, limit: float | None) -> Array:
    """The share of entries beyond the limit, of valid steps: ``[E, H, A], [E, H] -> [E]``."""
    if limit is None:
        return jnp.zeros(len(valid), valid.dtype)
    beyond = jnp.mean(jnp.abs(actions) > limit, axis=2, dtype=valid.dtype)
    return jnp.sum(beyond * valid, axis=1) / jnp.maximum(jnp.sum(valid, axis=1), 1)


def episode(
    env: Env, policy: ApplyFn | Recurrent, params: Params, task: PyTree, key: Array, *, horizon: int
) -> EnvState:
    """The states of one episode, ``[H + 1, ...]``, to be looked at; see `write_rollouts`."""
    checks.at_least("horizon", horizon, 1)
    policy = with_memory(policy)
    reset_key, act_key = jax.random.split(key)
    env = checked(env, task, reset_key)
    start = env.reset(task, reset_key)
    check_policy(one_step(policy), params, start.observation[None], env.action_size)

    def step(carried, key):
        memory, state = carried
        memory, behaviour = policy.step(params, memory, state.observation[None])
        state = env.step(task, state, behaviour.sample(key)[0])
        return (memory, state), state

    begin = policy.start(params, start.observation[None]), start
    _, later = jax.lax.scan(step, begin, jax.random.split(act_key, horizon))
    return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), start, later)


def with_memory(policy: ApplyFn | Recurrent) -> Recurrent:
    """The policy as one with a memory, which may be empty."""
    if isinstance(policy, Recurrent):
        return policy
    checks.is_function("policy", policy, "(params, observations) -> distribution")
    return Recurrent(
        init=lambda key, inputs: (),
        apply=policy,
        start=lambda params, observations: (),
        step=lambda params, carry, observations: (carry, policy(params, observations)),
    )


def one_step(policy: Recurrent) -> Callable[[Params, Array], Any]:
    """The first step's distribution, as a function of what is seen then."""

    def first(params, observations):
        return policy.step(params, policy.start(params, observations), observations)[1]

    return first


def check_policy(
    policy: Callable[[Params, Array], Any],
    params: Params,
    observations: Array | jax.ShapeDtypeStruct,
    action_size: int,
) -> None:
    """Refuse a policy whose output is not a `Distribution` over actions, by tracing it.

    Args:
      policy, params: of whom.
      observations: of what shape and type it is given, ``[..., D]``.
      action_size: ``A``.

    Raises:
      ArgumentError: naming the method that is missing, or returns another shape.
    """
    states = observations.shape[:-1]

    def answers(params, observations):
        found = policy(params, observations)
        _check_kind(found)
        actions = found.sample(jax.random.key(0))
        scores = {"log_prob": found.log_prob(actions), "kl": found.kl(found)}
        return {"sample": actions} | scores, found, found.fisher(found)

    told, found, fisher = jax.eval_shape(answers, params, observations)
    for name, shape in {"sample": (*states, action_size), "log_prob": states, "kl": states}.items():
        if told[name].shape != shape or not jnp.issubdtype(told[name].dtype, jnp.floating):
            raise ArgumentError(
                f"policy: {name} of its distribution must return floats of shape {shape} for "
                f"states of shape {states} and action_size={action_size}; got "
                f"{told[name].dtype} of shape {told[name].shape}. Axes before the last are those "
                "of the states, however many."
            )
    kinds = [jax.tree.map(lambda x: (x.shape, x.dtype), tree) for tree in (fisher, found)]
    if kinds[0] != kinds[1]:
        raise ArgumentError(
            "policy: fisher of its distribution must return one of its own kind, with arrays of "
            f"the same shapes; got {fisher} for {found}."
        )


def _check_kind(found: Any) -> None:
    missing = [name for name in METHODS if not callable(getattr(found, name, None))]
    if missing:
        raise ArgumentError(
            "policy must return a distribution with the methods sample, log_prob, kl and "
            f"fisher (mamljax.types.Distribution), such as models.Gaussian; "
            f"{type(found).__name__} lacks {', '.join(missing)}."
        )
    if not all(isinstance(leaf, checks.ARRAYS) for leaf in jax.tree.leaves(found)):
        raise ArgumentError(
            f"policy must return a distribution that is a pytree of arrays; {type(found).__name__} "
            "is not known to jax. Make it a NamedTuple, or register it (jax.tree_util)."
        )


def _where(keep: Array, new: Array, old: Array) -> Array:
    """`new` for the episodes to keep, ``[E]``, else `old`."""
    return jnp.where(keep.reshape(keep.shape + (1,) * (new.ndim - 1)), new, old)
