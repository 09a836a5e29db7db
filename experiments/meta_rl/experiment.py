"""Meta-reinforcement learning: what `experiments.navigation` and `experiments.locomotion` share.

MAML, pretraining, the oracle, the context vector and RL^2 are trained by the same trust region on
the same environment; random initialisation is not trained. All adapt to the same test tasks: RL^2
from episode to episode, within its memory, the others from gradient step to gradient step.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from configs import paper
from experiments.harness import model_file
from experiments.harness.config import Config
from experiments.harness.training import Run, Training, train
from experiments.meta_rl import figures, gains
from experiments.meta_rl.methods import (
    Method,
    build,
    draws,
    initial,
    outer_optimizer,
    sampler,
    shapes,
    step_of,
)
from mamljax import evaluate, processes, rl
from mamljax.evaluate import Scores, summarise
from mamljax.rl import losses
from mamljax.rl.losses import mean_return
from mamljax.running.progress import progress
from mamljax.running.report import Record, Report
from mamljax.sharding import largest_task_mesh, training_mesh
from mamljax.tuning import Tuned, tune_inner_lr
from mamljax.types import Params

BROKEN = "broken_episodes"
"""Episodes that ended because the physics was no longer finite, as training and tests count them.
Their return ends there, whether that makes it better or worse."""

COMPARABLE = ("navigation",)
"""Environments whose returns compare with the paper's. Robots are simulated otherwise here: only
the part of the gap to the oracle that is closed compares."""


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
    tuned = tune(config, methods, params, keys["tune"])
    inner_lr = {name: found.inner_lr for name, found in tuned.items()}
    trained = Trained(config, methods, params, inner_lr, keys["figures"])
    scores = test(trained, keys["test"], report)
    if processes.is_first():
        figures.draw(workdir, report.record | {"train": info})
        draw(workdir / "figures", trained)
    details = {
        "inner_lr": inner_lr,
        "loss_by_inner_lr": {name: found.scores for name, found in tuned.items() if found.scores},
        "gain": gains.by_step(scores),
        "oracle_gap_closed": gains.gap_closed(scores),
        "broken_episodes_in_training": {
            name: round(told.pop(BROKEN, None) or 0) for name, told in info.items()
        },
        "broken_episodes_at_test": broken(config, methods, scores),
    }
    return report.publish(info, details)


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
) -> dict[str, Tuned]:
    """The step size at test of every method that takes steps: the config's, or tuned."""
    chosen = {}
    pending = [name for name, method in methods.items() if method.tuned]
    with progress("tune", len(pending)) as update:
        for name, method in methods.items():
            if method.steps == 0:
                continue
            chosen[name] = Tuned(config.evaluate.inner_lr, {})
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
                )
                update(pending.index(name) + 1, f"{name} {chosen[name].inner_lr}")
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


def published(config: Config, method: str) -> dict[str, Any] | None:
    """Return the paper's returns, where they compare."""
    known = paper.RETURNS.get((config.env.name, method))
    if known is None or config.env.name not in COMPARABLE:
        return None
    return {"steps": list(range(len(known))), "mean": list(known)}
