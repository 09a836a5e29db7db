"""The training steps that are raced, each set up in mamljax, in naive JAX and in PyTorch.

A further suite is a function of a work directory and a config that returns a `Suite`, and an entry
in `SUITES`; one on images is an entry in `IMAGES` alone.
"""

import contextlib
import functools
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

import mamljax
from configs import miniimagenet as miniimagenet_config
from configs import omniglot as omniglot_config
from configs import sinusoid as sinusoid_config
from experiments import sinusoid as sinusoid_experiment
from experiments.benchmark.flops import product_flops
from experiments.benchmark.measure import Contestant, Evaluation, Suite, temporary_megabytes
from experiments.benchmark.peers import naive_jax
from experiments.few_shot import experiment, methods
from experiments.harness.config import Config
from mamljax import data, losses, models
from mamljax.data import ImageSet
from mamljax.models.weights import to_arrays
from mamljax.running.metrics import MetricLogger
from mamljax.running.progress import training_progress
from mamljax.sharding import largest_task_mesh
from mamljax.tasks.sampling import sample_tasks
from mamljax.train import Call
from mamljax.types import Learner, Params, Sampler


def sinusoid(workdir: Path, config: Config) -> Suite:
    """The paper's sinusoid regression: mamljax with logging on, PyTorch without."""
    learner = mamljax.maml(
        sinusoid_experiment.build_model(config),
        losses.mean_squared_error,
        inner_lr=config.train.inner_lr,
        num_steps=config.train.num_inner_steps,
    )
    sampler = sinusoid_experiment.task_sampler(config, config.train.shots, config.train.queries)
    example = np.zeros((1, 1), np.float32)
    start = learner.init(jax.random.key(config.seed), example)
    # At weights as small as those the second-order terms vanish, and a first-order gradient would
    # pass for the right one: contestants are compared at larger weights.
    wide = models.mlp((*config.model.hidden, 1), init="he_normal")
    large = wide.init(jax.random.key(config.seed), example)
    ours, batch = _mamljax(workdir, config, learner, sampler, start, agreed=large)

    def in_torch():
        from experiments.benchmark.peers import torch_maml, torch_sinusoid

        weights = to_arrays(start), to_arrays(_double(large))
        problem = torch_sinusoid.problem(config)
        return torch_maml.contestants(problem, config.train, *weights, batch)

    return _suite(config, [ours], {"torch": in_torch})


def characters() -> ImageSet:
    """In Omniglot's place: of the same size, drawn from fonts, so that no files are needed."""
    return data.load("glyphs", "train")


def noise(image_shape: tuple[int, int, int] = (84, 84, 3)) -> ImageSet:
    """In miniImagenet's place: speed does not depend on what is seen."""
    classes, shape = 20, (40, *image_shape)
    images = np.random.default_rng(0).integers(0, 256, (classes, *shape), np.uint8)
    names = tuple(f"class {i}" for i in range(classes))
    return ImageSet(images, np.full(classes, shape[0]), names)


def set_up(config: Config, images: ImageSet) -> tuple[methods.Method, Sampler, Params]:
    """The method of a config, its tasks from the images, and the parameters to start from."""
    mesh = largest_task_mesh(config.train.meta_batch)
    method = methods.build(config, images.images.shape[2:], len(images.names), mesh)
    example = np.zeros((1, *images.images.shape[2:]), np.float32)
    start = method.learner.init(jax.random.key(config.seed), example)
    return method, method.sampler(images), start


def first_iterations(config: Config, images: ImageSet, iterations: int) -> list[Call]:
    """Begin the training of a config; return what `fit` tells its hooks."""
    method, sampler, params = set_up(config, images)
    tx = experiment.outer_optimizer(config)
    seen: list[Call] = []
    mamljax.fit(
        mamljax.meta_step(method.learner.meta_gradient, tx),
        mamljax.init_state(params, tx),
        sampler,
        jax.random.key(0),
        num_steps=iterations,
        meta_batch=config.train.meta_batch,
        steps_per_call=min(config.log.every, iterations),
        hooks=[seen.append],
    )
    return seen


def on_images(workdir: Path, config: Config, load: Callable[[], ImageSet]) -> Suite:
    """A training step on the images that `load` returns."""
    images = load()
    method, sampler, start = set_up(config, images)
    ours, batch = _mamljax(workdir, config, method.learner, sampler, start)
    weights = to_arrays(start), to_arrays(_double(start))

    def sample(key):
        return jax.tree.leaves(sample_tasks(sampler, None, key, config.train.meta_batch))

    mesh = largest_task_mesh(config.train.meta_batch)
    first_order = config.method == "fomaml"
    naive = naive_jax.contestant(config, sample, *weights, batch, mesh=mesh)

    def in_torch():
        from experiments.benchmark.peers import torch_images, torch_maml

        problem = torch_images.problem(config, images.images)
        return torch_maml.contestants(
            problem, config.train, *weights, batch, first_order=first_order
        )

    def by_jax_meta():
        from experiments.benchmark.peers import jax_meta

        return [jax_meta.contestant(config, sample, *weights, batch, mesh=mesh)]

    peers: dict[str, Callable[[], Iterable[Contestant]]] = {"torch": in_torch}
    if not first_order:
        peers["jax_meta"] = by_jax_meta
    return _suite(config, [ours, naive], peers)


def inner_loop(workdir: Path, config: Config) -> Suite:
    """Compare second derivatives over ten inner steps with recomputing those steps, and with none.

    All three are mamljax; the first-order contestant computes another gradient on purpose.
    """
    images = characters()

    def contestant(name: str, **changes: Any) -> Contestant:
        changed = config.copy_and_resolve_references()
        changed.method = changes.pop("method", "maml")
        changed.train.update(changes)
        method, sampler, start = set_up(changed, images)
        ours, _ = _mamljax(workdir, changed, method.learner, sampler, start)
        return ours._replace(name=name)

    contestants = [
        contestant("second-order"),
        contestant("second-order, remat", remat=True),
        contestant("first-order", method="fomaml")._replace(check=None),
    ]
    return _suite(config, contestants)


def _ten_inner_steps() -> Config:
    config: Any = omniglot_config.get_config("5way1shot")
    config.train.num_inner_steps, config.train.inner_lr, config.train.meta_batch = 10, 0.4, 8
    config.log.every = 5
    return config


def _slow(get_config: Callable[[str], Config], variant: str) -> Config:
    """A config whose iterations take a second: few of them to a measurement."""
    config = get_config(variant)
    config.log.every = 10
    return config


IMAGES = {
    "omniglot": (characters, functools.partial(omniglot_config.get_config, "5way1shot")),
    "omniglot_20way": (
        characters,
        functools.partial(_slow, omniglot_config.get_config, "20way1shot"),
    ),
    "miniimagenet": (noise, functools.partial(_slow, miniimagenet_config.get_config, "5way1shot")),
    "miniimagenet_fomaml": (
        noise,
        functools.partial(_slow, miniimagenet_config.get_config, "5way1shot_fomaml"),
    ),
}
"""Races on images by name: what loads the images, and the config."""

SUITES = {
    "sinusoid": (sinusoid, functools.partial(sinusoid_config.get_config, "paper")),
    **{
        name: (functools.partial(on_images, load=load), get_config)
        for name, (load, get_config) in IMAGES.items()
    },
    "inner_loop": (inner_loop, _ten_inner_steps),
}
"""Races by name: what makes the suite, and the config it is made of."""


LIBRARIES = {"torch": "PyTorch", "jax_meta": "jax-meta"}
"""Peers by the package that is imported."""


def _suite(
    config: Config,
    ours: list[Contestant],
    peers: Mapping[str, Callable[[], Iterable[Contestant]]] | None = None,
) -> Suite:
    """Ours, and the peers, by the package that each needs, if it is there."""
    found, skipped = [], []
    for package, make in (peers or {}).items():
        if importlib.util.find_spec(package):
            found += make()
        else:
            library = LIBRARIES[package]
            skipped.append(f"{library} is skipped: not installed (`pip install -e .[bench]`).")
    values = config.to_dict()
    setting = {name: values[name] for name in ("seed", "model", "task", "train", "log")}
    return Suite(setting, config.train.meta_batch, [*ours, *found], skipped)


@contextlib.contextmanager
def logging_hooks(workdir: Path, run: str, num_steps: int, done: int) -> Iterator[list]:
    """The hooks that an experiment logs with: JSON lines, TensorBoard, progress."""
    with (
        MetricLogger(workdir, run, resume_step=done) as logger,
        training_progress(run, num_steps, done) as show,
    ):
        yield [show, logger]


def _mamljax(
    workdir: Path,
    config: Config,
    learner: Learner,
    sampler: Sampler,
    start: Params,
    *,
    agreed: Params | None = None,
) -> tuple[Contestant, list[np.ndarray]]:
    """The contestant that trains from `start`, and the tasks on which all are compared.

    Gradients are compared at `agreed`, by default where training starts.
    """
    agreed = start if agreed is None else agreed
    train, every = config.train, config.log.every
    tx = optax.adam(train.meta_lr)
    step_fn = mamljax.meta_step(learner.meta_gradient, tx)
    task_key, run_key = jax.random.split(jax.random.key(config.seed + 1))
    tasks = sample_tasks(sampler, start, task_key, train.meta_batch)
    compiled = jax.jit(learner.meta_gradient).lower(start, tasks, run_key).compile()
    state = mamljax.init_state(start, tx)

    def train_on(num_iterations):
        nonlocal state
        done, compile_seconds = int(state.step), []
        total = done + num_iterations
        with logging_hooks(workdir, "mamljax", total, done) as hooks:
            hooks.append(lambda call: compile_seconds.append(call.compile_seconds))
            options = {"meta_batch": train.meta_batch, "steps_per_call": every, "hooks": hooks}
            state = mamljax.fit(step_fn, state, sampler, run_key, num_steps=total, **options)
        return compile_seconds[0]

    def check():
        # In double precision: in single, rounding decides on which side of a kink of the ReLU the
        # blank paper of an image comes to lie, and honest gradients differ by percents.
        with jax.enable_x64(True):
            gradient = jax.jit(learner.meta_gradient)
            grads, metrics = gradient(_double(agreed), _double(tasks), run_key)
            return Evaluation(float(metrics.loss), to_arrays(grads))

    temporary = temporary_megabytes(compiled)
    gflop = product_flops(learner.meta_gradient, start, tasks, run_key) / 1e9
    variant = (
        f"{every} steps a call, {jax.device_count()} device{'' if jax.device_count() == 1 else 's'}"
    )
    ours = Contestant("mamljax", variant, every, True, check, train_on, temporary, gflop)
    return ours, jax.tree.leaves(_double(tasks))


def _double(tree):
    """The same numbers in double precision, on the host; integers stay what they are."""
    arrays = jax.tree.map(np.asarray, tree)
    return jax.tree.map(lambda x: x.astype(float) if x.dtype.kind == "f" else x, arrays)
