"""Meta-reinforcement learning: what `experiments.navigation` and `experiments.locomotion` share.

MAML, pretraining, the oracle, the context vector and RL^2 are trained by the same trust region on
the same environment; random initialisation is not trained. All adapt to the same test tasks: RL^2
from episode to episode, within its memory, the others from gradient step to gradient step.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from configs import paper
from experiments.harness import model_file
from experiments.harness.config import Config
from experiments.harness.training import Run, Training, train
from experiments.meta_rl import figures
from mamljax import checks, evaluate, models, processes, rl
from mamljax.evaluate import Scores, summarise
from mamljax.partition import by_path
from mamljax.rl import losses
from mamljax.rl.losses import mean_return
from mamljax.running.progress import progress
from mamljax.running.report import Record, Report
from mamljax.sharding import largest_task_mesh, training_mesh
from mamljax.tuning import tune_inner_lr
from mamljax.types import Learner, Model, Params, Recurrent, Sampler, StepFn

METHODS = ("maml", "pretrain", "random", "oracle", "context", "rl2")
LOSSES = {
    "reinforce": losses.reinforce,
    "likelihood_ratio": losses.likelihood_ratio,
    "dice": losses.dice,
}
BROKEN = "broken_episodes"
"""Episodes that ended because the physics was no longer finite, as training and tests count them.
Their return ends there, whether that makes it better or worse."""

RESAMPLES = 2000
"""Bootstrap samples behind the interval of a part of the gap to the oracle."""

COMPARABLE = ("navigation",)
"""Environments whose returns compare with the paper's. Robots are simulated otherwise here: only
the part of the gap to the oracle that is closed compares."""


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


class Trained(NamedTuple):
    """The source of figures: everything by method, and a key of their own."""

    config: Config
    methods: dict[str, Method]
    params: dict[str, Params]
    inner_lr: dict[str, float]
    key: jax.Array


def run(
    config: Config, workdir: Path, env: rl.Env, draw: Callable[[Path, Trained], None]
) -> Record:
    """Run the experiment into `workdir`, or finish it there; returns the report.

    Args:
      config: of the experiment.
      workdir: of the experiment.
      env: the environment.
      draw: makes the figures that are particular to it, in a given folder.
    """
    report = Report(workdir, f"meta-RL: {config.env.name}", config.to_dict())
    methods = {name: build(config, env, name) for name in config.methods.split(",")}
    workdir.mkdir(parents=True, exist_ok=True)
    names: list[str] = ["train", "validate", "tune", "test", "figures"]
    keys = dict(zip(names, jax.random.split(jax.random.key(config.seed), 5), strict=True))
    if config.weights.test:
        runs, more = model_file.load(model_file.given(config), shapes(methods, keys["train"]))
    else:
        runs, more = train_all(config, methods, workdir, keys), {}
    model_file.save(workdir, runs, **{"command": report.record["command"], **more})
    params = {
        name: runs[name].meta_params if method.trained else initial(method, keys["train"])
        for name, method in methods.items()
    }
    info = {name: dict(run.train) for name, run in runs.items()}
    inner_lr = tune(config, methods, params, keys["tune"])
    trained = Trained(config, methods, params, inner_lr, keys["figures"])
    scores = test(trained, keys["test"], report)
    if processes.is_first():
        figures.draw(workdir, report.record | {"train": info})
        draw(workdir / "figures", trained)
    details = {
        "inner_lr": inner_lr,
        "gain": gains(scores),
        "oracle_gap_closed": gap_closed(scores),
        "broken_episodes_in_training": {
            name: round(told.pop(BROKEN, None) or 0) for name, told in info.items()
        },
        "broken_episodes_at_test": broken(config, methods, scores),
    }
    return report.publish(info, details)


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
        policy = models.recurrent_policy(env.action_size, units=config.model.memory, **sizes)
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


def train_all(
    config: Config, methods: Mapping[str, Method], workdir: Path, keys: Mapping[str, jax.Array]
) -> dict[str, Run]:
    """Train every method that is to be trained."""
    runs = {}
    mesh = training_mesh(config.train.meta_batch)
    for name, method in methods.items():
        if not method.trained:
            continue
        learner = method.learner()
        tx = outer_optimizer(config)
        training = Training(
            name,
            learner,
            rl.recorded(sampler(config, method, learner, config.train), learner.adapt),
            tx,
            num_iterations=config.train.num_iterations,
            meta_batch=config.train.meta_batch,
            depends_on=depends_on(config, method),
            validate=scorer(
                config,
                method,
                inner_lr=config.evaluate.inner_lr,
                key=keys["validate"],
                num_tasks=config.validate.num_tasks,
                num_steps=config.train.num_inner_steps if method.adapts else 0,  # training's aim
            ),
            patience=config.validate.patience,
            step_fn=step_of(config, learner, tx),
            example=jnp.zeros((1, method.env.observation_size)),
            task_chunk=config.train.rollout_chunk or None,
            mesh=mesh,
            shown=figures.RETURNS[0 if method.adapts else 1 :],
            totals=(BROKEN,),
        )
        found = train(training, keys["train"], config.log, workdir)
        rollouts = 1 + (config.train.num_inner_steps if method.adapts else 0)
        steps = rollouts * config.train.meta_batch * config.train.episodes * config.env.horizon
        rate = found.train["iterations_per_second"]
        told = {**found.train, "env_steps_per_second": rate and steps * rate}
        runs[name] = found._replace(train=told)
    return runs


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


def depends_on(config: Config, method: Method) -> dict[str, Any]:
    """Return what trained parameters depend on: how long and how fast is left to choose anew."""
    values = config.to_dict()
    fields = {name: values[name] for name in ("seed", "env", "model")}
    free = ["num_iterations", "task_chunk", "rollout_chunk"]
    if not method.adapts:
        free += ["inner_lr", "inner_loss", "first_order"]
    if not method.adapts and method.episodes == 1:
        free += ["num_inner_steps"]
    fields["train"] = {name: x for name, x in values["train"].items() if name not in free}
    return fields


def scorer(
    config: Config,
    method: Method,
    *,
    inner_lr: float,
    key: jax.Array,
    num_tasks: int,
    num_steps: int,
) -> Callable[[Params], Scores]:
    """Return a function of parameters: their scores on tasks, compiled at its first call.

    Scores are the mean returns before adaptation and after every inner step, see `evaluate`. Those
    of RL^2 are the returns of a trial's first episode, its second, and so on.
    """
    learner = method.learner(inner_lr)
    tasks = sampler(config, method, learner, config.evaluate)
    by_episode = {f"episode_{k}": _of_episode(config, k) for k in range(method.episodes)}
    info = {BROKEN: losses.broken_episodes, **(by_episode if method.episodes > 1 else {})}

    def score(params: Params) -> Scores:
        found = evaluate(
            learner,
            params,
            tasks,
            key,
            num_tasks=num_tasks,
            num_steps=num_steps,
            metric=mean_return,
            info=info,
            task_chunk=config.evaluate.task_chunk or None,
            mesh=largest_task_mesh(num_tasks),
        )
        if method.episodes == 1:
            return found
        values = np.concatenate([found.info[name] for name in by_episode], axis=1)
        return summarise(values, -values)._replace(info={BROKEN: found.info[BROKEN]})

    return score


def _of_episode(config: Config, number: int) -> Callable[[Any, losses.Experience], jax.Array]:
    """The mean return of the episode of that number of a trial."""

    def mean_return_of(policy: Any, experience: losses.Experience) -> jax.Array:
        del policy
        return jnp.mean(rl.returns_by_episode(experience.rewards, config.env.horizon)[:, number])

    return mean_return_of


def tune(
    config: Config, methods: Mapping[str, Method], params: Mapping[str, Params], key: jax.Array
) -> dict[str, float]:
    """The step size at test of every method that takes steps: the config's, or tuned."""
    chosen = {}
    pending = [name for name, method in methods.items() if method.tuned]
    with progress("tune", len(pending)) as update:
        for name, method in methods.items():
            if method.steps == 0:
                continue
            chosen[name] = config.evaluate.inner_lr
            if method.tuned:
                chosen[name] = tune_inner_lr(
                    method.learner,
                    params[name],
                    sampler(config, method, method.learner(0.0), config.evaluate),
                    key,
                    candidates=config.tune.candidates,
                    num_tasks=config.tune.num_tasks,
                    num_steps=method.steps,
                    task_chunk=config.evaluate.task_chunk or None,
                    mesh=largest_task_mesh(config.tune.num_tasks),
                ).inner_lr
                update(pending.index(name) + 1, f"{name} {chosen[name]}")
    return chosen


def test(trained: Trained, key: jax.Array, report: Report) -> dict[str, Scores]:
    """Test every method on the same tasks, into the report; return the scores by method."""
    config, scores = trained.config, {}
    with progress("test", len(trained.methods)) as update:
        for name, method in trained.methods.items():
            scored = scorer(
                config,
                method,
                inner_lr=trained.inner_lr.get(name, 0.0),
                key=key,
                num_tasks=config.evaluate.num_tasks,
                num_steps=method.steps,
            )
            scores[name] = scored(trained.params[name])
            known = published(config, name)
            setting = config.env.name
            if method.episodes > 1:
                setting = f"{setting}, after episodes in place of steps"
            report.add(name, setting, "return", scores[name], paper=known)
            update(len(scores), f"{name} {scores[name].mean[-1]:.4g}")
    return scores


def adapted(trained: Trained, name: str) -> tuple[Any, list[Params]]:
    """One task, the same for every method, and a method's parameters after each inner step."""
    config, method = trained.config, trained.methods[name]
    learner = method.learner(trained.inner_lr[name])
    tasks = sampler(config, method, learner, config.evaluate)
    task_key, adapt_key = jax.random.split(trained.key)

    @jax.jit
    def adapt(params):
        return learner.adapt(
            params,
            tasks(params, task_key).support,
            adapt_key,
            num_steps=method.steps,
            observe=lambda params, step: params,
        ).observed

    found = adapt(trained.params[name])
    steps = [jax.tree.map(lambda x, s=s: x[s], found) for s in range(method.steps + 1)]
    return method.env.sample_task(task_key), steps


def gains(scores: Mapping[str, Scores]) -> dict[str, dict[str, list[float]]]:
    """Return what each method gained by 1, 2, ... steps, with that difference's 95% interval.

    Every task is compared with itself: the intervals of returns before and after adaptation say how
    much tasks differ, not how sure a gain is.
    """
    found = {}
    for name, score in scores.items():
        gain = score.values[:, 1:] - score.values[:, :1]
        if gain.size and np.isfinite(gain).all():
            paired = summarise(gain, -gain)
            found[name] = {"mean": paired.mean.tolist(), "ci95": paired.ci95.tolist()}
    return found


def broken(
    config: Config, methods: Mapping[str, Method], scores: Mapping[str, Scores]
) -> dict[str, str]:
    """Return how many episodes were broken of those whose return is reported, by method."""
    told = {}
    for name, score in scores.items():
        counts = score.info[BROKEN]
        number = counts.size * draws(config, methods[name], config.evaluate)
        told[name] = f"{round(counts.sum())} of {number}"
    return told


def gap_closed(scores: Mapping[str, Scores]) -> dict[str, dict[str, list[Any]]]:
    """Return which part of the way from its start to the oracle each method gets, step by step.

    By method ``{"mean": parts, "ci95": [lowest, highest] of each}``. A ratio of means has no simple
    error, so its interval is a bootstrap: tasks are drawn anew, with replacement, and each brings
    its return before and after adaptation and the oracle's.
    """
    if "oracle" not in scores:
        return {}
    best = scores["oracle"].values[:, :1]
    again = np.random.default_rng(0).integers(len(best), size=(RESAMPLES, len(best)))
    found = {}
    for name, score in scores.items():
        if score.values.shape[1] == 1 or not np.isfinite(score.values).all():
            continue
        parts = _share(*(x.mean(axis=0) for x in (score.values, best)))
        drawn = _share(*(x[again].mean(axis=1) for x in (score.values, best)))
        ci95 = np.percentile(drawn, (2.5, 97.5), axis=0).T
        found[name] = {"mean": parts.round(3).tolist(), "ci95": ci95.round(3).tolist()}
    return found


def _share(returns: np.ndarray, best: np.ndarray) -> np.ndarray:
    """The part of the way to the best return, ``[..., steps + 1], [..., 1] -> [..., steps]``."""
    start = returns[..., :1]
    return (returns[..., 1:] - start) / (best - start)


def published(config: Config, method: str) -> dict[str, Any] | None:
    """Return the paper's returns, where they compare."""
    known = paper.RETURNS.get((config.env.name, method))
    if known is None or config.env.name not in COMPARABLE:
        return None
    return {"steps": list(range(len(known))), "mean": list(known)}
