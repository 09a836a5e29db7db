"""Few-shot image classification (Finn et al. 2017, section 5.2): train, choose, test, report."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from configs import paper
from experiments.few_shot import enough, figures, methods, words
from experiments.few_shot.methods import Method, Tested, task_sampler
from experiments.harness import model_file
from experiments.harness.config import Config
from experiments.harness.training import Run, Training, train
from mamljax import checks, data, evaluate, files, photos, processes, recipes
from mamljax.checks import ArgumentError
from mamljax.data import ImageSet
from mamljax.evaluate import Scores
from mamljax.losses import accuracy
from mamljax.models import weights
from mamljax.running.progress import progress
from mamljax.running.report import Record, Report
from mamljax.sharding import largest_task_mesh, training_mesh
from mamljax.tuning import Tuned, tune_inner_lr
from mamljax.types import Learner, Params, Sampler


class Setting(NamedTuple):
    """A checked config, with samplers over its images.

    train: images; None where given weights are tested.
    validation: tasks; None where a scheme has no classes for it.
    test: tasks by the number of queries per class.
    test_classes, image_shape: of the test images.
    """

    config: Config
    method: Method
    train: ImageSet | None
    validation: Sampler | None
    test: dict[int, Sampler]
    test_classes: int
    image_shape: tuple[int, ...]
    keys: dict[str, jax.Array]


def run(config: Config, workdir: Path) -> Record:
    """Run the experiment into `workdir`, or finish it there; returns the report."""
    report = Report(workdir, f"few-shot {config.data.source}", config.to_dict())
    setting = prepare(config)
    workdir.mkdir(parents=True, exist_ok=True)
    trained = imported(setting) if config.weights.test else trained_run(setting, workdir)
    tuned = tune(setting, trained.meta_params)
    inner_lr = {name: found.inner_lr for name, found in tuned.items()}
    if processes.is_first():
        save_model(setting, trained, inner_lr, report, workdir / model_file.FILE)
    test(setting, trained.meta_params, inner_lr, report)
    if processes.is_first():
        figures.draw(workdir, setting, trained.meta_params, report.record)
    return report.publish({config.method: trained.train}, details(setting, tuned))


def prepare(config: Config) -> Setting:
    """Check the config against the data before anything is trained.

    Raises:
      ArgumentError: for a value that is unknown, or asks for more than the data have.
    """
    checks.one_of("config.method", config.method, recipes.METHODS)
    checks.one_of("config.model.network", config.model.network, recipes.NETWORKS)
    if config.weights.test and config.weights.start:
        raise ArgumentError(
            "config.weights.test tests weights without training, config.weights.start begins "
            "training from them: give one of both."
        )
    train_set = None if config.weights.test else load(config, "train")
    test_set = load(config, config.evaluate.split)
    seed = jax.random.key(config.seed)
    names: list[str] = ["train", "validate", "tune", "test"]
    keys = dict(zip(names, jax.random.split(seed, len(names)), strict=True))
    mesh = training_mesh(config.train.meta_batch)
    classes = max(len(trained_on(config) if train_set is None else train_set.names), 1)
    shape = test_set.images.shape[2:]
    method = methods.build(config, shape, classes, mesh)
    if config.weights.start:
        method = method._replace(learner=started(config, method.learner))
        jax.eval_shape(method.learner.init, seed, jnp.zeros((1, *shape)))  # they have to fit
    validation_set = load(config, "validation") if has_validation(config) else None
    if config.validate.patience and validation_set is None:
        raise ArgumentError(
            f"config.validate.patience is {config.validate.patience}, and there are no validation "
            "classes whose accuracy could tell when to end: set it to 0, or take a scheme or a "
            "split that has some."
        )
    check_sizes(config, {"train": train_set, "validation": validation_set, "test": test_set})
    test_tasks = {q: task_sampler(config, test_set, q) for q in config.evaluate.queries}
    validation = None
    if validation_set is not None:
        validation = task_sampler(config, validation_set, config.evaluate.queries[0])
    classes = len(test_set.names)
    return Setting(config, method, train_set, validation, test_tasks, classes, shape, keys)


def check_sizes(config: Config, images: Mapping[str, ImageSet | None]) -> None:
    """Refuse splits that are too small for the config's tasks, all of them in one message.

    Raises:
      ArgumentError: naming the splits, and what they lack.
    """
    queries = {"train": config.train.queries, "validation": config.evaluate.queries[0]}
    lacks = [
        line
        for split, found in images.items()
        # A classifier of all classes, which draws no tasks, is trained on any.
        if found is not None and not (split == "train" and config.method == "pretrained")
        for line in enough.lacking(
            split if split != "test" else config.evaluate.split,
            found,
            config.task.ways,
            config.task.shots + queries.get(split, max(config.evaluate.queries)),
        )
    ]
    if lacks:
        raise ArgumentError(
            "\n".join(["the images are too few for config.task.ways, shots and queries:", *lacks])
        )


def load(config: Config, split: str) -> ImageSet:
    """A split of the config's image set."""
    options: dict[str, Any] = {}
    if config.data.source == "folder":
        options["image_size"] = tuple(config.data.image_size)
        options["resize"] = config.data.resize
        options["grayscale"] = config.data.grayscale
        options["fractions"], options["seed"] = config.data.split or None, config.data.split_seed
    if config.data.source in data.SCHEMES:
        options["scheme"] = config.data.scheme or None
    with words.in_flags(words.CONFIG):
        return data.load(
            config.data.source,
            split,
            data_dir=config.data.dir or None,
            cache_dir=config.data.cache or None,
            download=config.data.download,
            on_disk=config.data.on_disk,
            **options,
        )


def has_validation(config: Config) -> bool:
    """Return whether the protocol keeps classes for choosing the checkpoint."""
    if config.data.source in data.SCHEMES:
        return "validation" in data.split_names(config.data.source, config.data.scheme or None)
    if config.data.split:
        return config.data.split[1] > 0
    return config.data.source == "glyphs" or (Path(config.data.dir) / "validation").is_dir()


def trained_run(setting: Setting, workdir: Path) -> Run:
    """Train, or go on with training."""
    config, method = setting.config, setting.method
    assert setting.train is not None
    validate = None
    if setting.validation is not None:
        first = next(iter(method.tested.values()))
        validate = scorer(
            setting,
            first,
            sampler=setting.validation,
            key=setting.keys["validate"],
            num_tasks=config.validate.num_tasks,
        )
    training = Training(
        config.method,
        method.learner,
        method.sampler(setting.train),
        outer_optimizer(config),
        num_iterations=config.train.num_iterations,
        meta_batch=config.train.meta_batch,
        depends_on=depends_on(config),
        validate=validate,
        patience=config.validate.patience,
        # Each process, and each device, reads the images of its own tasks.
        mesh=training_mesh(config.train.meta_batch) if config.data.on_disk else None,
    )
    return train(training, setting.keys["train"], config.log, workdir)


def save_model(
    setting: Setting, trained: Run, inner_lr: Mapping[str, float], report: Report, path: Path
) -> None:
    """Write the tested parameters, with all that it takes to use them on photos."""
    config = setting.config
    names = trained_on(config) if setting.train is None else setting.train.names
    recipe = methods.recipe(config, setting.image_shape, max(len(names), 1))
    tested = "fine-tuning" if config.method == "pretrained" else config.method
    recipe = recipe._replace(inner_lr=inner_lr[tested], num_steps=config.evaluate.num_inner_steps)
    pixels = photos.of_source(config.data.source, setting.image_shape, resize=config.data.resize)
    about = {
        "source": config.data.source,
        "classes": list(names),
        "training": trained.train,
        "command": report.record["command"],
    }
    photos.save_model(path, recipe, trained.meta_params, pixels, about)


def imported(setting: Setting) -> Run:
    """Weights of an earlier run, with how they were trained, or of others.

    See `mamljax.models.weights`.
    """
    path = model_file.given(setting.config)
    example = jnp.zeros((1, *setting.image_shape))
    like = jax.eval_shape(setting.method.learner.init, setting.keys["train"], example)
    training = model_file.about(path).get("training", {})
    return Run(weights.load(path, like), model_file.imported(path, training))


def trained_on(config: Config) -> Sequence[str]:
    """Return the training classes of weights that are tested; none where the file does not tell."""
    return model_file.about(model_file.given(config)).get("classes", ())


def started(config: Config, learner: Learner) -> Learner:
    """The learner, which begins from the config's weights wherever the file has them."""
    arrays = weights.read(model_file.given(config, "start"))
    if config.method != "pretrained" and any(name.startswith("body/") for name in arrays):
        # From a run of it: the network beside a classifier of all training classes.
        arrays |= {name.removeprefix("body/"): x for name, x in arrays.items()}
        arrays = {name: x for name, x in arrays.items() if not name.startswith("head/")}
    only = checks.regular_expression("config.weights.only", config.weights.only)
    arrays = {name: x for name, x in arrays.items() if only.search(name)}

    def init(key, inputs):
        return weights.from_arrays(arrays, learner.init(key, inputs), partial=True)

    return learner._replace(init=init)


def outer_optimizer(config: Config) -> optax.GradientTransformation:
    """Adam on the meta-gradient, clipped by entry or by norm if the config asks for it."""
    tx = optax.adam(config.train.meta_lr)
    if config.train.clip_norm:
        tx = optax.chain(optax.clip_by_global_norm(config.train.clip_norm), tx)
    if config.train.clip:
        tx = optax.chain(optax.clip(config.train.clip), tx)
    return tx


def depends_on(config: Config) -> dict[str, Any]:
    """Return what trained parameters depend on: how long and how fast is left to choose anew."""
    values = config.to_dict()
    fields = {name: values[name] for name in ("seed", "method", "task", "model")}
    free = ["num_iterations", "task_chunk", "remat"]
    if not config.train.clip_norm:  # earlier versions did not have it
        free.append("clip_norm")
    if config.method != "pretrained":  # no other reads it
        free.append("minibatch")
    fields["train"] = {name: x for name, x in values["train"].items() if name not in free}
    images = ("source", "scheme", "rotate")
    if methods.augmentation(config) is not None:  # earlier versions did not have it
        images += ("augment",)
    if config.data.source == "folder":  # whose content its name does not tell
        images += ("dir", "image_size", "resize", "grayscale")
        if config.data.split:  # earlier versions did not have it
            images += ("split", "split_seed")
    fields["data"] = {name: values["data"][name] for name in images}
    if config.weights.start:
        fields["weights"] = {
            "start": files.digest(model_file.given(config, "start")),
            "only": config.weights.only,
        }
    return fields


def scorer(
    setting: Setting,
    tested: Tested,
    *,
    sampler: Sampler,
    key: jax.Array,
    num_tasks: int,
    inner_lr: float | None = None,
) -> Callable[[Params], Scores]:
    """Return a function of trained parameters, compiled at its first call.

    It tells the accuracy before adaptation and after every inner step, see `evaluate`.

    Args:
      setting: of the run.
      tested: what is tested.
      sampler: draws a task.
      key: of the tasks.
      num_tasks: how many.
      inner_lr: None takes the config's.
    """
    config = setting.config.evaluate
    learner = tested.learner(config.inner_lr if inner_lr is None else inner_lr)

    def score(params: Params) -> Scores:
        return evaluate(
            learner,
            tested.params(params),
            sampler,
            key,
            num_tasks=num_tasks,
            num_steps=config.num_inner_steps if tested.steps else None,
            metric=accuracy,
            task_chunk=config.task_chunk or None,
            mesh=largest_task_mesh(num_tasks),
        )

    return score


def tune(setting: Setting, params: Params) -> dict[str, Tuned]:
    """The inner step size of each method that is tested: the config's, or tuned."""
    config = setting.config
    chosen = {}
    for name, tested in setting.method.tested.items():
        chosen[name] = Tuned(config.evaluate.inner_lr, {})
        if tested.tuned:
            sampler = setting.validation
            if sampler is None and setting.train is not None:
                sampler = task_sampler(config, setting.train, config.evaluate.queries[0])
            if sampler is None:
                raise ArgumentError(f"{name}: there are no classes to tune its step size on.")
            chosen[name] = tune_inner_lr(
                tested.learner,
                tested.params(params),
                sampler,
                setting.keys["tune"],
                candidates=config.tune.candidates,
                num_tasks=config.tune.num_tasks,
                num_steps=config.evaluate.num_inner_steps,
                task_chunk=config.evaluate.task_chunk or None,
                mesh=largest_task_mesh(config.tune.num_tasks),
            )
    return chosen


def test(setting: Setting, params: Params, inner_lr: Mapping[str, float], report: Report) -> None:
    """Test every method with every number of queries, on the same test tasks, into the report."""
    config = setting.config
    rows = [
        (name, queries) for name in setting.method.tested for queries in config.evaluate.queries
    ]
    with progress("test", len(rows)) as update:
        for done, (name, queries) in enumerate(rows, start=1):
            score = scorer(
                setting,
                setting.method.tested[name],
                sampler=setting.test[queries],
                key=setting.keys["test"],
                num_tasks=config.evaluate.num_tasks,
                inner_lr=inner_lr[name],
            )
            found = score(params)
            label = f"{name}, dense" if config.model.network == "dense" else name
            what = (
                f"{config.task.ways}-way {config.task.shots}-shot, "
                f"{queries} {'query' if queries == 1 else 'queries'} per class"
            )
            last = len(found.mean) - 1
            known = published(config, label, queries, last)
            report.add(label, what, "accuracy", found, paper=known)
            update(done, f"{label}, {what}")


def published(config: Config, method: str, queries: int, last_step: int) -> dict[str, Any] | None:
    """Return the paper's accuracy: after the last inner step, with as many queries as shots."""
    key, shots = (config.data.source, config.task.ways, method), config.task.shots
    if shots not in paper.IMAGES.get(key, {}) or queries != shots:
        return None
    mean, half = paper.IMAGES[key][shots]
    return {
        "source": "table 3" if method == "context" else "table 1",
        "steps": [last_step],
        "mean": [mean / 100],
        "ci95": [None if half is None else half / 100],
    }


def details(setting: Setting, tuned: Mapping[str, Tuned]) -> dict[str, Any]:
    """Return the settings needed to interpret an accuracy."""
    config = setting.config
    split = f"{config.evaluate.split}: {setting.test_classes} classes"
    named = config.data.scheme if config.data.source in data.SCHEMES else ""
    return {
        "classes": split + (f" ({named})" if named else ""),
        "ways": config.task.ways,
        "shots": config.task.shots,
        "queries_per_class": list(config.evaluate.queries),
        "norm": f"{config.model.norm}, "
        + ("adapted" if config.model.adapt_norm else "not adapted")
        + (", statistics of each batch (transductive)" if config.model.norm == "batch" else ""),
        "inner_lr": {name: found.inner_lr for name, found in tuned.items()},
        "loss_by_inner_lr": {name: found.scores for name, found in tuned.items() if found.scores},
    }
