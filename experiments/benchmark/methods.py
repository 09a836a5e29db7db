"""Every method on the same tasks with equal budgets: quality, time per meta-step, memory.

The suite `methods` of `experiments.benchmark`. Step sizes are chosen on validation tasks; what a
method does beyond its inner step size follows its paper (see `LEARNERS` and `outer_optimizer`).
"""

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console

from configs import methods as methods_config
from experiments.benchmark import methods_figures
from experiments.benchmark.measure import Options, temporary_megabytes
from experiments.harness.config import Config
from experiments.harness.main import keep_compiled_programs, set_up_cpu
from mamljax import (
    algorithms,
    baselines,
    data,
    evaluate,
    files,
    fit,
    losses,
    models,
    partition,
    tasks,
)
from mamljax.evaluate import Scores
from mamljax.meta import annealed_step, init_state, meta_step
from mamljax.running.progress import progress
from mamljax.running.provenance import provenance
from mamljax.sharding import largest_task_mesh
from mamljax.tasks import sample_tasks
from mamljax.types import Learner, LossFn, Model, Partition, Sampler, StepFn


class Problem(NamedTuple):
    """A problem on which methods are compared.

    model: from the number of inner steps with norm parameters of their own (None: shared).
    loss_fn, metric: what is minimised, and what is reported; `better` is +1 if more is better.
    train, validation, test: samplers.
    head: finds the last layer's parameters.
    shared: finds parameters that no method adapts (`None`: none).
    context: the shape of CAVIA's context.
    ways: how many classes a task has, if any.
    embedding: where there are classes, the model without its last layer.
    """

    model: Callable[[int | None], Model]
    loss_fn: LossFn
    metric: LossFn
    better: int
    unit: str
    train: Sampler
    validation: Sampler
    test: Sampler
    head: str
    shared: str | None
    context: tuple[int, ...]
    ways: int = 0
    embedding: Model | None = None


def sinusoid(config: Config) -> Problem:
    """The paper's sinusoids."""
    train = tasks.sinusoid(config.shots, config.queries)
    test = tasks.sinusoid(config.shots, config.test_queries)
    error = losses.mean_squared_error
    return Problem(
        lambda steps: models.mlp((40, 40, 1)), error, error, -1, "mean squared error",
        train, test, test, "^Dense_2/", None, (4,),
    )  # fmt: skip


def images(config: Config, source: str, **options: Any) -> Problem:
    """Few-shot classification of characters."""

    def sampler(split, queries):
        found = data.load(source, split, **options)
        sizes = {"ways": config.ways, "shots": config.shots, "queries": queries}
        return tasks.episodes(found.images, counts=found.counts, rotate=True, **sizes)

    def model(norm_steps):
        return models.omniglot_net(config.ways, filters=config.filters, norm_steps=norm_steps)

    train, validation = sampler("train", config.queries), sampler("validation", config.test_queries)
    test = sampler("test", config.test_queries)
    return Problem(
        model, losses.cross_entropy, losses.accuracy, 1, "accuracy",
        train, validation, test, "^head/", "norm", (28, 28, 1),
        config.ways, models.omniglot_net(None, filters=config.filters),
    )  # fmt: skip


PROBLEMS: dict[str, Callable[..., Problem]] = {
    "sinusoid": sinusoid,
    "glyphs": functools.partial(images, source="glyphs"),
    "omniglot": functools.partial(images, source="omniglot"),
}


def _adapting(problem: Problem, pattern: str | None = None) -> Partition:
    """All parameters adapt but those that are shared, and those that `pattern` finds."""
    names = [name for name in (problem.shared, pattern) if name]
    return partition.all_but("|".join(names)) if names else partition.all_parameters()


def _maml(method: Callable[..., Learner], **fixed: Any) -> Callable[..., Learner]:
    def build(problem, options):
        options = options | {"partition": _adapting(problem)} | fixed
        return method(problem.model(None), problem.loss_fn, **options)

    return build


def _with_head(method: Callable[..., Learner]) -> Callable[..., Learner]:
    def build(problem, options):
        head = problem.head
        if method is algorithms.boil and problem.shared:
            head = f"{head}|{problem.shared}"
        return method(problem.model(None), problem.loss_fn, head, **options)

    return build


def _maml_plus_plus(problem, options, iteration=None, iterations=1):
    norm_steps = options["num_steps"] if problem.shared else None
    return algorithms.maml_plus_plus(
        problem.model(norm_steps),
        problem.loss_fn,
        partition=_adapting(problem),
        iteration=iteration,
        loss_annealing=max(iterations // 2, 1),
        **options,
    )


def _proto_maml(problem, options):
    options = options | {"partition": _adapting(problem)}
    return algorithms.proto_maml(problem.embedding, ways=problem.ways, **options)


def _cavia(problem, options):
    return algorithms.cavia(problem.model(None), problem.loss_fn, problem.context, **options)


def _imaml(problem, options):
    # As many steps of this size, stopped early, stay about as near as with this pull at the
    # minimum; its meta-gradient assumes that they are there.
    strength = 1 / (options["inner_lr"] * options["num_steps"])
    return _maml(algorithms.imaml, strength=strength)(problem, options)


def _reptile(problem, options):
    return algorithms.reptile(problem.model(None), problem.loss_fn, **options)


LEARNERS: dict[str, Callable[..., Learner]] = {
    "maml": _maml(algorithms.maml),
    "fomaml": _maml(algorithms.fomaml),
    "learned alpha": _maml(algorithms.meta_sgd, per="model"),
    "meta_sgd": _maml(algorithms.meta_sgd),
    "meta_curvature": _maml(algorithms.meta_curvature),
    "maml_plus_plus": _maml_plus_plus,
    "anil": _with_head(algorithms.anil),
    "boil": _with_head(algorithms.boil),
    "cavia": _cavia,
    "imaml": _imaml,
    "reptile": _reptile,
    "pretrain": _maml(baselines.pretrain),
    "proto_maml": _proto_maml,
}
"""Builders by name: ``(problem, {"inner_lr", "num_steps", "mesh"}) -> Learner``."""


def outer_optimizer(config: Config, method: str, iterations: int) -> optax.GradientTransformation:
    """Adam; along a cosine for MAML++ (Antoniou et al. 2019), and Reptile's own interpolation."""
    if method == "reptile":
        return optax.sgd(optax.linear_schedule(1.0, 0.0, iterations))
    if method == "maml_plus_plus":
        return optax.adam(optax.cosine_decay_schedule(config.meta_lr, iterations, alpha=0.01))
    return optax.adam(config.meta_lr)


class Trained(NamedTuple):
    """A trained method, and what training it cost."""

    learner: Learner
    meta_params: Any
    milliseconds: float
    temporary_megabytes: float | None


def train(
    config: Config, problem: Problem, method: str, *, inner_lr: float, iterations: int, seed: int
) -> Trained:
    """Train one method with one step size."""
    mesh = largest_task_mesh(config.meta_batch)
    options = {"inner_lr": inner_lr, "num_steps": config.num_steps}
    options["mesh"] = mesh
    learner = LEARNERS[method](problem, options)
    tx = outer_optimizer(config, method, iterations)
    step: StepFn = meta_step(learner.meta_gradient, tx)
    if method == "maml_plus_plus":
        step = annealed_step(
            lambda iteration: _maml_plus_plus(problem, options, iteration, iterations), tx
        )
    init_key, run_key = jax.random.split(jax.random.key(seed))
    example = jax.eval_shape(problem.train, None, run_key).query.inputs
    example = jnp.zeros(example.shape, example.dtype)
    state = init_state(jax.jit(learner.init)(init_key, example), tx)
    batch = sample_tasks(problem.train, None, run_key, config.meta_batch)
    megabytes = temporary_megabytes(jax.jit(step).lower(state, batch, run_key).compile())
    seconds: list[float] = []
    state = fit(
        step,
        state,
        problem.train,
        run_key,
        num_steps=iterations,
        meta_batch=config.meta_batch,
        steps_per_call=min(config.every, iterations),
        hooks=[lambda call: seconds.append(1 / call.iterations_per_second)],
    )
    return Trained(learner, state.meta_params, 1e3 * float(np.median(seconds)), megabytes)


def score(
    config: Config, problem: Problem, trained: Trained, sampler: Sampler, *, number: int, seed: int
) -> Scores:
    """Test tasks, adapted to in as many inner steps as in training."""
    return evaluate(
        trained.learner,
        trained.meta_params,
        sampler,
        jax.random.key(1_000 + seed),
        num_tasks=number,
        num_steps=config.num_steps,
        metric=problem.metric,
    )


def chosen_step_size(config: Config, problem: Problem, method: str) -> dict[float, float]:
    """Validation scores after short trainings, by inner step size."""
    candidates = config.context_candidates if method == "cavia" else config.candidates
    scores = {}
    for candidate in candidates:
        try:
            sizes = {"inner_lr": candidate, "iterations": config.tune_iterations}
            trained = train(config, problem, method, **sizes, seed=1_000)
        except FloatingPointError:  # it diverged, which settles it
            scores[candidate] = -problem.better * np.inf
            continue
        found = score(
            config, problem, trained, problem.validation, number=config.tune_tasks, seed=1_000
        )
        value = float(found.mean[-1])
        scores[candidate] = value if np.isfinite(value) else -problem.better * np.inf
    return scores


def compare(config: Config, methods: Sequence[str], **options: Any) -> Iterator[dict[str, Any]]:
    """A row for each of the methods on the config's problem, see `compare_all`."""
    problem = PROBLEMS[config.problem](config, **options)
    for method in methods:
        tried = chosen_step_size(config, problem, method)
        inner_lr = max(tried, key=lambda lr: problem.better * tried[lr])
        yield {
            "problem": config.problem,
            "method": method,
            "measures": problem.unit,
            "inner_lr": inner_lr,
            "tried": {str(lr): value for lr, value in tried.items()},
        } | summary([_seed(config, problem, method, inner_lr, seed) for seed in config.seeds])
        # Every program that jax remembers holds pieces of memory, of which a process on Linux may
        # have 65,530: with a dozen methods XLA could not get another one.
        jax.clear_caches()


def _seed(config: Config, problem: Problem, method: str, inner_lr: float, seed: int):
    """Train and test once: scores after every inner step and costs, or why there are none."""
    try:
        sizes = {"inner_lr": inner_lr, "iterations": config.iterations}
        trained = train(config, problem, method, **sizes, seed=seed)
    except FloatingPointError as error:
        return {"seed": seed, "failed": str(error)}
    found = score(config, problem, trained, problem.test, number=config.evaluate_tasks, seed=seed)
    return {
        "seed": seed,
        "mean": found.mean.tolist(),
        "ci95": found.ci95.tolist(),
        "num_diverged": found.num_diverged,
        "milliseconds_per_step": trained.milliseconds,
        "temporary_megabytes": trained.temporary_megabytes,
    }


def _settings(record: dict[str, Any]) -> tuple[Any, Any]:
    """What the row of a method depends on: not on which other methods there are."""
    config = record.get("config", {})
    return {name: config[name] for name in config if name != "methods"}, record.get("versions")


def summary(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Summarise the seeds that trained to the end: after adaptation, and what a meta-step costs."""
    done = [seed for seed in seeds if "failed" not in seed]
    found: dict[str, Any] = {"seeds": seeds, "num_failed": len(seeds) - len(done)}
    if not done:
        return found
    finals = [seed["mean"][-1] for seed in done]
    return found | {
        "mean": float(np.mean(finals)),
        # Of the test tasks, all seeds together; what the seeds themselves do is in their range.
        "ci95": float(np.sqrt(np.sum([seed["ci95"][-1] ** 2 for seed in done])) / len(done)),
        "lowest": min(finals),
        "highest": max(finals),
        "milliseconds_per_step": float(np.median([s["milliseconds_per_step"] for s in done])),
        "temporary_megabytes": done[0]["temporary_megabytes"],
    }


def run(output: Path, options: Options) -> dict[str, Any]:
    """Compare all methods on the problem of the options, with its config."""
    config = methods_config.get_config(options.problem)
    set_up_cpu(config)
    keep_compiled_programs()  # the seeds share theirs; times leave compiling out
    folder = {"data_dir": options.data_dir} if options.data_dir else {}
    return compare_all(config, output, **folder)


def compare_all(config: Config, output: Path, **options: Any) -> dict[str, Any]:
    """Compare methods on the config's problem.

    The JSON is written after each method, beside what it holds of other problems; a run that was
    stopped goes on with the methods that are missing. The figure and the table show all.

    Args:
      config: from `configs.methods`.
      output: the JSON file; the figure goes next to it.
      options: of the problem, such as where its data are.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    found = json.loads(output.read_text(encoding="utf-8")) if output.exists() else {}
    own = provenance(f"methods: {config.problem}", config.to_dict())
    before = found.get(config.problem, {})
    methods = config.methods.split(",")
    same = _settings(before) == _settings(json.loads(json.dumps(own)))
    done = {row["method"]: row for row in before["results"]} if same else {}
    found[config.problem] = own
    with progress(f"methods, {config.problem}", len(methods), len(done)) as update:
        for row in compare(config, [name for name in methods if name not in done], **options):
            done[row["method"]] = row
            own["results"] = [done[name] for name in methods if name in done]
            files.write_json(output, found)
            update(len(done), row["method"])
    own["results"] = [done[name] for name in methods]
    rows = [row for problem in found.values() for row in problem["results"]]
    methods_figures.draw(output.with_suffix(".png"), rows)
    Console().print(methods_figures.table(rows), markup=False)
    return found
