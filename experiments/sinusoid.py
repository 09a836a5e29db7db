"""Few-shot sinusoid regression (Finn et al. 2017, section 5.1 and table 2).

    mamljax train sinusoid

Trains MAML and the baselines, evaluates them on the same test tasks, and writes report.json,
report.md, metrics.jsonl, TensorBoard events, checkpoints/ and figures/ into the work directory.
"""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from configs import paper
from experiments.harness import model_file
from experiments.harness.config import Config
from experiments.harness.main import main
from experiments.harness.training import Run, Training, train
from experiments.regression import averaging, figures
from mamljax import evaluate, maml, models, processes
from mamljax.baselines import oracle, pretrain
from mamljax.losses import mean_squared_error
from mamljax.running.progress import progress
from mamljax.running.report import Record, Report
from mamljax.sharding import largest_task_mesh, training_mesh
from mamljax.tasks import sinusoid
from mamljax.tuning import Tuned, tune_inner_lr
from mamljax.types import Learner, Params


class Method(NamedTuple):
    """A trained method: its learner for each number of shots (none yet if it must be tuned)."""

    learners: dict[int, Learner]
    meta_params: Params
    sees_task: bool = False


def run(config: Config, workdir: Path) -> Record:
    """Run the experiment into `workdir`, or finish it there; returns the report."""
    report = Report(workdir, "sinusoid", config.to_dict())
    workdir.mkdir(parents=True, exist_ok=True)
    names: list[str] = ["train", "tune", "test", "averaging"]
    keys = {
        name: jax.random.fold_in(jax.random.key(config.seed), i) for i, name in enumerate(names)
    }
    learners = trained_learners(config)
    if config.weights.test:
        runs, details = model_file.load(model_file.given(config), shapes(config, learners))
    else:
        runs, details = train_all(config, learners, workdir, keys)
    command = details.pop("command", report.record["command"])
    model_file.save(workdir, runs, command=command, **details)
    methods = tested_methods(config, learners, runs)
    tuned = tune(config, methods, keys["tune"])
    details["inner_lr"] = {config.train.method: config.evaluate.inner_lr} | {
        name: {setting: best.inner_lr for setting, best in found.items()}
        for name, found in tuned.items()
    }
    details["loss_by_inner_lr"] = {
        name: {setting: best.scores for setting, best in found.items()}
        for name, found in tuned.items()
    }
    test(config, methods, keys["test"], report)
    if processes.is_first():
        sampler = functools.partial(task_sampler, config)
        figures.draw(workdir / "figures", config, sampler, methods, report.record)
    return report.publish({name: run.train for name, run in runs.items() if run.train}, details)


def build_model(config: Config):
    """The paper's network: 1-40-40-1, ReLU, small truncated-normal weights."""
    return models.mlp(
        (*config.model.hidden, 1), init="truncated_normal", init_std=config.model.init_std
    )


def task_sampler(config: Config, shots: int, queries: int | None = None, **options: Any):
    """The sinusoid tasks of the config; test tasks unless `queries` says otherwise."""
    ranges = {key: tuple(value) for key, value in config.task.items()}
    return sinusoid(shots, queries or config.evaluate.queries, **ranges, **options)


def trained_learners(config: Config) -> dict[str, Learner]:
    """The meta-learned method, pretraining (not yet tuned) and the oracle, as they are trained."""
    model, loss = build_model(config), mean_squared_error
    mesh = training_mesh(config.train.meta_batch)
    return {
        config.train.method: meta_learner(
            config,
            inner_lr=config.train.inner_lr,
            num_steps=config.train.num_inner_steps,
            mesh=mesh,
        ),
        "pretrain": pretrain(model, loss, inner_lr=0.0, mesh=mesh),
        "oracle": oracle(model, loss, mesh=mesh),
    }


def meta_learner(config: Config, **options: Any) -> Learner:
    """MAML, with second derivatives or without."""
    first_order = config.train.method == "fomaml"
    return maml(build_model(config), mean_squared_error, first_order=first_order, **options)


def train_all(
    config: Config, learners: dict[str, Learner], workdir: Path, keys: dict[str, jax.Array]
) -> tuple[dict[str, Run], dict[str, Any]]:
    """Train the learners, and the averaging baselines if the config asks for them; details."""
    draw = functools.partial(task_sampler, config, config.train.shots, config.train.queries)
    # All are drawn up before the first is trained: a bad value shows at once.
    trainings = [
        Training(
            name,
            learner,
            draw(reveal=name == "oracle"),
            optax.adam(config.train.meta_lr),
            num_iterations=config.train.num_iterations,
            meta_batch=config.train.meta_batch,
            depends_on=depends_on(config),
        )
        for name, learner in learners.items()
    ]
    runs = {what.name: train(what, keys["train"], config.log, workdir) for what in trainings}
    if not config.averaging.enabled:
        return runs, {}
    sampler = functools.partial(task_sampler, config)
    averaged, told = averaging.train_all(build_model(config), sampler, config, keys["averaging"])
    return runs | {name: Run(params, {}) for name, params in averaged.items()}, {"averaging": told}


def shapes(config: Config, learners: dict[str, Learner]) -> dict[str, Params]:
    """The shapes of every method's parameters."""
    inits = {name: learner.init for name, learner in learners.items()}
    if config.averaging.enabled:
        inits |= dict.fromkeys(averaging.PENALTIES, build_model(config).init)
    # The oracle is told amplitude and phase.
    inputs = {name: jnp.zeros((1, 3 if name == "oracle" else 1)) for name in inits}
    key = jax.random.key(config.seed)
    return {name: jax.eval_shape(init, key, inputs[name]) for name, init in inits.items()}


def tested_methods(
    config: Config, learners: dict[str, Learner], runs: dict[str, Run]
) -> dict[str, Method]:
    """Every method with what it was trained to."""
    meta, shots = config.train.method, config.evaluate.shots
    adapting = meta_learner(config, inner_lr=config.evaluate.inner_lr)
    methods = {name: Method({}, run.meta_params) for name, run in runs.items()}
    methods[meta] = Method(dict.fromkeys(shots, adapting), runs[meta].meta_params)
    told = dict.fromkeys(shots, learners["oracle"])
    methods["oracle"] = Method(told, runs["oracle"].meta_params, sees_task=True)
    return methods


def depends_on(config: Config) -> dict[str, Any]:
    """Return what trained parameters depend on: how long is left to choose anew."""
    fields = {key: config.to_dict()[key] for key in ("seed", "model", "task", "train")}
    del fields["train"]["num_iterations"]
    return fields


def tune(config: Config, methods: dict[str, Method], key: jax.Array) -> dict[str, dict[str, Tuned]]:
    """Give every method that has no learners yet its best fine-tuning step size per setting."""
    build = functools.partial(_fine_tuner, build_model(config))
    pending = [name for name, method in methods.items() if not method.learners]
    chosen = {}
    with progress("tune", len(pending)) as update:
        for done, name in enumerate(pending, start=1):
            best = {
                shots: tune_inner_lr(
                    build,
                    methods[name].meta_params,
                    task_sampler(config, shots),
                    key,
                    candidates=config.tune.candidates,
                    num_tasks=config.tune.num_tasks,
                    num_steps=config.evaluate.num_inner_steps,
                    mesh=largest_task_mesh(config.tune.num_tasks),
                )
                for shots in config.evaluate.shots
            }
            learners = {shots: build(found.inner_lr) for shots, found in best.items()}
            methods[name] = methods[name]._replace(learners=learners)
            chosen[name] = {f"{shots}-shot": found for shots, found in best.items()}
            update(done, f"{name} {[found.inner_lr for found in best.values()]}")
    return chosen


def test(config: Config, methods: dict[str, Method], key: jax.Array, report: Report) -> None:
    """Test every method in every setting, on the same test tasks, into the report."""
    rows = [(name, shots) for name in methods for shots in config.evaluate.shots]
    with progress("test", len(rows)) as update:
        for done, (name, shots) in enumerate(rows, start=1):
            method, setting = methods[name], f"{shots}-shot"
            scores = evaluate(
                method.learners[shots],
                method.meta_params,
                task_sampler(config, shots, reveal=method.sees_task),
                key,
                num_tasks=config.evaluate.num_tasks,
                num_steps=config.evaluate.num_inner_steps,
            )
            report.add(name, setting, "mse", scores, paper=_published(name, shots))
            update(done, f"{name} {setting}")


def _fine_tuner(model, inner_lr):
    return pretrain(model, mean_squared_error, inner_lr=inner_lr)


def _published(method: str, shots: int) -> dict[str, Any] | None:
    if shots != 5 or method not in paper.SINUSOIDS:
        return None
    return {"source": "table 2", "steps": [1, 5, 10], "mean": list(paper.SINUSOIDS[method])}


if __name__ == "__main__":
    main(run, "configs/sinusoid.py")
