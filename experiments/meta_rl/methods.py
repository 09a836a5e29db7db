"""The methods of meta-reinforcement learning: policy, environment, learner, data, trust region."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.harness.config import Config
from mamljax import checks, models, rl
from mamljax.partition import by_path
from mamljax.rl import losses
from mamljax.sharding import training_mesh
from mamljax.types import Learner, Model, Params, Recurrent, Sampler, StepFn

METHODS = ("maml", "pretrain", "random", "oracle", "context", "rl2")
LOSSES = {
    "reinforce": losses.reinforce,
    "likelihood_ratio": losses.likelihood_ratio,
    "dice": losses.dice,
}


class Method(NamedTuple):
    """One of `METHODS`: how it is trained and tested.

    env: its environment; the oracle's reveals the task, RL^2's has trials for episodes.
    policy: its network.
    episodes: episodes that one of its environment's is made of: of a trial, else 1.
    learner: the learner for an inner step size; called without one, that of training.
    trained: whether it is trained at all.
    adapts: whether it adapts in training, or is one policy for all tasks.
    tuned: whether its step size at test is tuned on tasks of their own.
    steps: inner steps at test.
    """

    env: rl.Env
    policy: Model | Recurrent
    episodes: int
    learner: Callable[..., Learner]
    trained: bool
    adapts: bool
    tuned: bool
    steps: int


def build(config: Config, env: rl.Env, name: str) -> Method:
    """One of `METHODS` on an environment."""
    checks.one_of("config.methods", name, METHODS)
    checks.one_of("config.train.inner_loss", config.train.inner_loss, LOSSES)
    tuned = [method for method in config.tune.methods.split(",") if method]
    for method in tuned:
        checks.one_of("config.tune.methods", method, METHODS)
    env = rl.reveal_task(env) if name == "oracle" else env
    sizes: dict[str, Any] = {"hidden": config.model.hidden, "init_std": config.model.init_std}
    policy: Any = models.gaussian_policy(env.action_size, **sizes)
    if name == "rl2":
        env = rl.trials(env, horizon=config.env.horizon)
        sizes["hidden"] = config.model.hidden[:1]  # the memory takes the place of the others
        sizes |= {"units": config.model.memory, "timescale": config.model.timescale}
        policy = models.recurrent_policy(env.action_size, **sizes)
    options: dict[str, Any] = {
        "inner_loss": LOSSES[config.train.inner_loss],
        "task_chunk": config.train.task_chunk or None,
        "mesh": training_mesh(config.train.meta_batch),
    }
    if name == "context":
        policy = models.with_context(policy, (config.model.context_size,))
        options["partition"] = by_path("^context$")
    adapts = name in ("maml", "context")

    def learner(inner_lr: Any = None) -> Learner:
        if isinstance(policy, Recurrent):
            return rl.rl2(policy, task_chunk=options["task_chunk"], mesh=options["mesh"])
        if inner_lr is not None:  # at test: smaller steps after the first
            smaller = {1: config.evaluate.later_steps}
            schedule = optax.piecewise_constant_schedule(inner_lr, smaller)
            return rl.maml(policy, inner_lr=schedule, **options)
        steps = config.train.num_inner_steps if adapts else 0
        first_order = config.train.first_order
        return rl.maml(
            policy,
            inner_lr=config.train.inner_lr,
            num_steps=steps,
            first_order=first_order,
            **options,
        )

    return Method(
        env,
        policy,
        config.train.trial_episodes if name == "rl2" else 1,
        learner,
        trained=name != "random",
        adapts=adapts,
        tuned=name in tuned,
        steps=0 if name in ("oracle", "rl2") else config.evaluate.num_inner_steps,
    )


def initial(method: Method, key: jax.Array) -> Params:
    """The policy's parameters before training."""
    return jax.jit(method.policy.init)(key, jnp.zeros((1, method.env.observation_size)))


def shapes(methods: Mapping[str, Method], key: jax.Array) -> dict[str, Params]:
    """The shapes of the parameters of every method that is trained."""
    return {
        name: jax.eval_shape(functools.partial(initial, method), key)
        for name, method in methods.items()
        if method.trained
    }


def outer_optimizer(config: Config) -> optax.GradientTransformationExtraArgs:
    """The trust region of the config."""
    return rl.trpo(
        region(config),
        cg_iterations=config.train.cg_iterations,
        damping=config.train.damping,
    )


def region(config: Config) -> float | optax.Schedule:
    """The size of the trust region: one number, or one for each meta-iteration."""
    train = config.train
    if not train.max_kl_end:
        return train.max_kl
    return optax.exponential_decay(
        train.max_kl,
        train.kl_decay,
        train.max_kl_end / train.max_kl,
        transition_begin=train.kl_decay_from,
        end_value=train.max_kl_end,
    )


def step_of(config: Config, learner: Learner, tx: optax.GradientTransformation) -> StepFn:
    """The meta-step of the config."""
    return rl.trpo_step(learner, tx, **curvature_options(config))


def curvature_options(config: Config) -> dict[str, Any]:
    """The options of `rl.policy_arguments` in the config."""
    return {
        "curvature_tasks": config.train.curvature_tasks or None,
        "curvature_support": config.train.curvature_support or None,
        "curvature_query": config.train.curvature_query or None,
        "task_chunk": config.train.task_chunk or None,
        "mesh": training_mesh(config.train.meta_batch),
    }


def sampler(config: Config, method: Method, learner: Learner, stage: Config) -> Sampler:
    """Tasks of the method's environment, with data of the policy at hand.

    Args:
      config: of the experiment.
      method: whose environment.
      learner: whose policy.
      stage: the section ``train`` or ``evaluate``.
    """
    return rl.on_policy(
        method.env,
        method.policy if isinstance(method.policy, Recurrent) else learner.predict,
        episodes=draws(config, method, stage),
        horizon=config.env.horizon * method.episodes,
        discount=stage.discount,
        gae_lambda=stage.gae_lambda,
    )


def draws(config: Config, method: Method, stage: Config) -> int:
    """Return how many episodes are drawn at once.

    Trials hold as many in all as the draws of the methods that adapt by gradient: in training those
    of every inner step and of the query set, at test those of one draw.
    """
    if method.episodes == 1:
        return stage.episodes
    in_training = 1 + config.train.num_inner_steps if stage is config.train else 1
    return max(stage.episodes * in_training // method.episodes, 1)
