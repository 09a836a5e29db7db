import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from PIL import Image

from configs import cifar_fs, miniimagenet, omniglot, tieredimagenet
from configs.base import few_shot
from experiments.few_shot import experiment, methods
from mamljax import Batch, data, files, models, recipes
from mamljax.checks import ArgumentError
from mamljax.data import DataError
from mamljax.evaluate import _jitted_curves as compiled_curves
from mamljax.models import weights
from mamljax.train import NonFiniteError

SIDE = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of a user's own: every class is one pattern under noise."""
    root, rng = tmp_path_factory.mktemp("own"), np.random.default_rng(0)
    for split, classes in (("train", 8), ("validation", 4), ("test", 5)):
        for label in range(classes):
            place = root / split / f"class{label}"
            place.mkdir(parents=True)
            pattern = rng.integers(0, 200, (SIDE, SIDE, 3))
            for index in range(6):
                image = pattern + rng.integers(0, 55, pattern.shape)
                Image.fromarray(image.astype(np.uint8)).save(place / f"{index}.png")
    return root


@pytest.fixture
def config(folder, monkeypatch):
    """The smallest config that goes the whole way, on one device: that compiles faster."""
    monkeypatch.setattr(experiment, "largest_task_mesh", lambda num_tasks: None)
    tiny = omniglot.get_config("5way1shot_dense")
    tiny.data.update(source="folder", scheme="", dir=str(folder), image_size=(SIDE, SIDE))
    tiny.data.cache = str(folder / "cache")
    tiny.task.update(ways=3, shots=2)
    tiny.model.filters = 4
    tiny.train.update(num_iterations=6, meta_batch=4, queries=2, inner_lr=0.5, minibatch=8)
    tiny.log.update(every=2, checkpoint_every=2)
    tiny.validate.num_tasks = 4
    tiny.evaluate.update(num_tasks=10, num_inner_steps=2, inner_lr=0.5, queries=(4,))
    tiny.tune.update(num_tasks=4, candidates=(0.01, 0.1))
    return tiny


def weights_of(workdir):
    with np.load(workdir / "model.npz") as arrays:
        return {name: arrays[name] for name in arrays.files if "description" not in name}


LIKE_OTHERS = (
    *("prototypical", "siamese", "mann", "memory"),
    *("fomaml", "proto_maml", "context", "lstm"),
)
LONG = ("statistician",)
"""Methods that go the same way as others here, or compile for ten seconds; the contract suite has
them all."""
EVERY_METHOD = [
    pytest.param(method, marks=[pytest.mark.slow] if method in LIKE_OTHERS + LONG else [])
    for method in recipes.METHODS
]


@pytest.mark.parametrize("method", EVERY_METHOD)
def test_every_method_goes_from_images_to_report(config, tmp_path, method):
    config.method = method
    if method == "context":  # in a dense network batch normalisation would erase it
        config.model.network = "omniglot"
    found = experiment.run(config, tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["results"] == json.loads(json.dumps(found["results"]))
    for row in report["results"]:
        assert row["metric"] == "accuracy"
        assert row["num_tasks"] == 10
        assert len(row["ci95"]) == len(row["mean"])
        assert all(0 <= mean <= 1 for mean in row["mean"])
    assert {row["setting"] for row in report["results"]} == {"3-way 2-shot, 4 queries per class"}
    assert report["train"][method]["chosen_by"] == "best validation score"
    assert report["details"]["norm"].startswith("batch, not adapted")
    names = ["accuracy", "episode", "training"]
    for name in [*names, "samples"] if method == "statistician" else names:
        with Image.open(tmp_path / "figures" / f"{name}.png") as image:
            assert min(image.size) > 100
    assert "±" in (tmp_path / "report.md").read_text()


def test_gradient_methods_take_steps_and_the_others_none(config, tmp_path):
    config.method = "pretrained"
    rows = experiment.run(config, tmp_path / "first")["results"]
    lengths = {row["method"].removesuffix(", dense"): len(row["mean"]) for row in rows}
    assert lengths == {
        "nearest neighbour, features": 1,
        "fine-tuning": 3,
        "nearest neighbour, pixels": 1,
    }
    pixels = [row["mean"][0] for row in rows if "pixels" in row["method"]]
    assert min(pixels) > 0.9  # every class is one pattern
    # Its head is of the training classes, which are not there where weights are only tested.
    config.weights.test = str(tmp_path / "first" / "model.npz")
    assert experiment.run(config, tmp_path / "again")["results"] == rows
    again = tmp_path / "again" / "model.npz"
    assert weights.description_of(again)["recipe"]["classes"] == 8


def test_it_learns(config, tmp_path):
    config.train.update(num_iterations=150, meta_batch=8)
    config.validate.num_tasks = 50  # with few the choice among checkpoints is chance
    config.log.update(every=50, checkpoint_every=50)
    config.evaluate.num_tasks = 100
    (row,) = experiment.run(config, tmp_path)["results"]
    assert row["mean"][-1] > 0.8 > row["mean"][0]


def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(config, tmp_path):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    experiment.run(config, whole)
    config.train.num_iterations = 4
    experiment.run(config, halves)
    config.train.num_iterations = 6
    experiment.run(config, halves)
    expected, found = weights_of(whole), weights_of(halves)
    assert expected.keys() == found.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_weights_are_evaluated_without_training(config, tmp_path):
    first = experiment.run(config, tmp_path / "first")
    config.weights.test = str(tmp_path / "first" / "model.npz")
    again = experiment.run(config, tmp_path / "again")
    assert again["results"] == first["results"]
    imported = {"imported": config.weights.test, "sha256": files.digest(Path(config.weights.test))}
    assert again["train"] == {"maml": first["train"]["maml"] | imported}
    assert not (tmp_path / "again" / "checkpoints").exists()
    config.evaluate.update(split="validation", num_inner_steps=4, inner_lr=0.1, queries=(3,))
    (row,) = experiment.run(config, tmp_path / "other")["results"]
    assert row["steps"] == [0, 1, 2, 3, 4]
    assert row["mean"] != first["results"][0]["mean"]


def test_the_best_checkpoint_on_validation_is_tested(config, tmp_path, monkeypatch):
    accuracies = iter([0.5, 0.9, 0.7])
    scorer = experiment.scorer

    def scripted(*args, num_tasks, **options):
        score = scorer(*args, num_tasks=num_tasks, **options)

        def scored(params):
            found = score(params)
            validating = num_tasks == config.validate.num_tasks
            return found._replace(mean=found.mean * 0 + next(accuracies)) if validating else found

        return scored

    monkeypatch.setattr(experiment, "scorer", scripted)
    before = compiled_curves._cache_size()
    train = experiment.run(config, tmp_path)["train"]["maml"]
    assert (train["iterations"], train["tested_checkpoint"]) == (6, 4)
    # One program for all three checkpoints, and one for the test.
    assert compiled_curves._cache_size() - before <= 2


def test_without_validation_classes_the_last_checkpoint_is_tested(config, tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "has_validation", lambda config: False)
    train = experiment.run(config, tmp_path)["train"]["maml"]
    assert train["chosen_by"] == "last iteration"
    assert train["tested_checkpoint"] == 6


@pytest.mark.slow
def test_images_on_disk_give_the_run_of_those_in_memory(config, tmp_path):
    expected = experiment.run(config, tmp_path / "memory")
    config.data.on_disk = True
    found = experiment.run(config, tmp_path / "disk")
    assert found["results"] == expected["results"]
    arrays = weights_of(tmp_path / "memory")
    for name, array in weights_of(tmp_path / "disk").items():
        np.testing.assert_array_equal(array, arrays[name], err_msg=name)


def test_classes_of_train_alone_are_divided_by_a_seed(config, folder, tmp_path):
    root = tmp_path / "undivided"
    shutil.copytree(folder / "train", root / "train")
    config.data.update(dir=str(root), cache=str(tmp_path / "cache"), split=(0.4, 0.0, 0.6))
    config.data.split_seed = 3
    config.data.augment.flip = True
    setting = experiment.prepare(config)
    assert setting.validation is None
    assert (len(setting.train.names), setting.test_classes) == (3, 5)
    depends = experiment.depends_on(config)["data"]
    assert (depends["split"], depends["split_seed"]) == ((0.4, 0.0, 0.6), 3)
    config.validate.patience = 10
    with pytest.raises(ArgumentError, match=r"patience is 10, and there are no validation classes"):
        experiment.prepare(config)
    config.data.split = ()
    with pytest.raises(DataError, match=r"no folder 'test', .* --config\.data\.split=0\.8,0\.1,0"):
        experiment.prepare(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"task.ways": 6},
            r"validation has 4 classes \(class0, .*a task takes 6\ntest has 5 classes",
        ),
        ({"evaluate.queries": (5,)}, r"test has 5 classes .* with fewer than the 7 images"),
        ({"train.queries": 9}, r"train has 8 classes .*\.\.\.\) with fewer than the 11 images"),
        ({"method": "mamal"}, "config.method must be one of .* Did you mean 'maml'"),
        ({"model.network": "omniglott"}, "config.model.network must be one of"),
        ({"model.norm": "bach"}, "norm must be one of .* Did you mean 'batch'"),
        ({"data.source": "omniglott"}, "source must be one of"),
        (
            {"data.image_size": (13, 13)},
            r"cannot be used:\n.*0.png is 12 x 12 pixels; expected 13 x 13 \(--config.data.resi",
        ),
        ({"weights.test": "nowhere.npz"}, "config.weights.test: there is no file nowhere.npz"),
        ({"weights.start": "nowhere.npz"}, "config.weights.start: there is no file nowhere.npz"),
        ({"weights.start": "a.npz", "weights.test": "a.npz"}, "give one of both"),
        ({"weights.start": __file__}, "read from .npz and .safetensors files"),
    ],
)
def test_a_wrong_value_ends_at_the_door(config, tmp_path, change, message):
    with config.unlocked():
        config.update_from_flattened_dict(change)
    work = tmp_path / "work"
    with pytest.raises((ArgumentError, DataError), match=message):
        experiment.run(config, work)
    assert not (work / "checkpoints").exists()


@pytest.mark.parametrize(("method", "reads"), [("maml", False), ("pretrained", True)])
def test_only_pretraining_depends_on_its_minibatch(config, method, reads):
    config.method = method
    before = experiment.depends_on(config)
    config.train.minibatch += 1
    assert (experiment.depends_on(config) != before) == reads


def start_of(config):
    """The parameters before training, and what a resumed run has to agree on."""
    setting = experiment.prepare(config)
    params = setting.method.learner.init(jax.random.key(0), np.zeros((1, SIDE, SIDE, 3)))
    return weights.to_arrays(params), experiment.depends_on(config)


def test_training_begins_from_weights_whole_or_in_part(config, tmp_path):
    fresh, free = start_of(config)
    given = {name: x + 1.0 for name, x in fresh.items()}
    config.weights.start = str(tmp_path / "w.npz")
    np.savez(config.weights.start, **given)
    found, depends = start_of(config)
    jax.tree.map(np.testing.assert_array_equal, found, given)
    assert free == {name: x for name, x in depends.items() if name != "weights"}
    config.weights.only = "^Dense_[01]/"
    found, _ = start_of(config)
    for name, x in found.items():
        first = name.startswith(("Dense_0/", "Dense_1/"))
        np.testing.assert_array_equal(x, (given if first else fresh)[name])
    # The run itself goes on from there, and refuses to be resumed from others.
    config.train.update(num_iterations=1, meta_lr=0.0)
    config.log.update(every=1, checkpoint_every=1)
    experiment.run(config, tmp_path / "run")
    trained = weights_of(tmp_path / "run")
    np.testing.assert_array_equal(trained["Dense_0/kernel"], given["Dense_0/kernel"])
    np.savez(config.weights.start, **fresh)
    with pytest.raises(ValueError, match="weights"):
        experiment.run(config, tmp_path / "run")
    config.weights.only = "conv"
    with pytest.raises(ValueError, match=r"Dense_0/kernel: expected .* got nothing"):
        experiment.run(config, tmp_path / "other")


def test_training_begins_from_a_pretrained_network(config, tmp_path):
    config.method = "pretrained"
    fresh, _ = start_of(config)
    given = {name: x + 1.0 for name, x in fresh.items()}
    np.savez(tmp_path / "w.npz", **given)
    config.method, config.weights.start = "maml", str(tmp_path / "w.npz")
    found, _ = start_of(config)
    shared = [name for name in found if f"body/{name}" in given]
    assert "Dense_3/kernel" in shared
    # The embedding of the dense network ends without a norm, and has no outputs for ways.
    assert set(found) - set(shared) == {"Dense_4/kernel", "Dense_4/bias", "norm_3/offset"}
    for name in shared:
        np.testing.assert_array_equal(found[name], given[f"body/{name}"])


@pytest.mark.parametrize(
    "change", [{"norm": "none"}, {"norm_offset": False}, {"adapt_norm": True}], ids=str
)
@pytest.mark.parametrize("network", ["dense", "omniglot"])
def test_without_parameters_to_share_all_adapt(config, change, network):
    config.model.update(network=network, **change)
    learner = methods.build(config, (SIDE, SIDE, 3), 8, None).learner
    params = learner.init(jax.random.key(0), np.zeros((2, SIDE, SIDE, 3), np.float32))
    batch = Batch(np.random.default_rng(0).normal(size=(3, SIDE, SIDE, 3)), np.arange(3))
    assert jax.eval_shape(learner.adapt, params, batch, jax.random.key(1)).support_losses.shape


def test_weights_of_another_network_are_refused(config, tmp_path):
    np.savez(tmp_path / "w.npz", conv1=np.zeros((3, 3, 1, 2)))
    config.weights.test = str(tmp_path / "w.npz")
    with pytest.raises(ArgumentError, match=r"Dense_0/kernel: expected \(432, 256\), got nothing"):
        experiment.run(config, tmp_path / "work")


def test_divergence_is_not_taken_for_a_bad_value(config, tmp_path):
    config.train.inner_lr = 1e30
    config.model.norm = "none"
    with pytest.raises(NonFiniteError, match="meta-iteration"):
        experiment.run(config, tmp_path)


def test_published_weights_evaluate(config, tmp_path, randomised):
    """Arrays under the MAML authors' names, in the network of the miniImagenet experiment."""
    config.model.update(network="miniimagenet", filters=32)
    config.data.update(image_size=(16, 16), resize=True)
    net = models.miniimagenet_net(3)
    inputs = jax.ShapeDtypeStruct((1, 16, 16, 3), np.float32)
    params = randomised(jax.eval_shape(net.init, jax.random.key(0), inputs))
    published = {"w5": params["head"]["kernel"], "b5": params["head"]["bias"]}
    for i in range(4):
        block = params[f"block_{i}"]
        published[f"conv{i + 1}"] = block["conv"]["kernel"]
        published[f"b{i + 1}"] = block["conv"]["bias"]
        published[f"{i}_beta"] = block["norm"]["offset"]
    config.weights.test = str(tmp_path / "theirs.npz")
    np.savez(config.weights.test, **published)
    (row,) = experiment.run(config, tmp_path / "theirs")["results"]
    weights.save(tmp_path / "ours.npz", params)
    config.weights.test = str(tmp_path / "ours.npz")
    (ours,) = experiment.run(config, tmp_path / "ours")["results"]
    assert row == ours
    assert len(row["mean"]) == 3


@pytest.mark.parametrize(
    ("module", "settings"),
    [(omniglot, [*omniglot.SETTINGS, "quick"]), (miniimagenet, miniimagenet.SETTINGS),
     (cifar_fs, cifar_fs.SETTINGS), (tieredimagenet, tieredimagenet.SETTINGS[:1])],
)  # fmt: skip
def test_every_variant_builds(module, settings):
    shape = {omniglot: (28, 28, 1), cifar_fs: (32, 32, 3)}.get(module, (84, 84, 3))
    for setting in settings:
        for option in ("", *few_shot.OPTIONS) if setting != "quick" else ("",):
            config = module.get_config(f"{setting}_{option}".strip("_"))
            method = methods.build(config, shape, 64, None)
            inputs = jax.ShapeDtypeStruct((4, *shape), np.float32)
            params = jax.eval_shape(method.learner.init, jax.random.key(0), inputs)
            assert jax.tree.leaves(params)


def test_step_sizes_are_those_of_the_paper_for_the_mean_loss():
    code = {"5way1shot": 0.4, "5way5shot": 0.4, "20way1shot": 0.1, "20way5shot": 0.1}
    for setting, alpha in code.items():
        config = omniglot.get_config(setting)
        assert config.train.inner_lr == pytest.approx(alpha * config.task.ways)
    assert miniimagenet.get_config("5way1shot").train.inner_lr == pytest.approx(0.01 * 5)


def test_paper_numbers_stand_beside_their_rows():
    config = omniglot.get_config("20way5shot")
    assert experiment.published(config, "maml", 5, 5) == {
        "source": "table 1",
        "steps": [5],
        "mean": [pytest.approx(0.989)],
        "ci95": [pytest.approx(0.002)],
    }
    assert experiment.published(config, "prototypical", 5, 0) is None
    assert experiment.published(config, "memory", 5, 0)["mean"] == [pytest.approx(0.986)]
    assert experiment.published(config, "statistician", 5, 0)["mean"] == [pytest.approx(0.981)]
    config.data.source = "glyphs"  # whose numbers are not Omniglot's
    assert experiment.published(config, "maml", 5, 5) is None


def test_methods_are_trained_as_in_their_own_papers():
    for setting, steps in (("5way1shot", 12), ("5way5shot", 5)):
        config = miniimagenet.get_config(f"{setting}_lstm")
        train = config.train
        assert train.num_inner_steps == config.evaluate.num_inner_steps == steps
        assert (train.meta_batch, train.queries, train.clip, train.clip_norm) == (1, 15, 0, 0.25)
        published = experiment.published(config, "lstm", config.task.shots, steps)
        assert published["mean"] == [pytest.approx(0.4344 if steps == 12 else 0.6060)]
    for option, examples in (("memory", 6), ("statistician", 5)):
        config = omniglot.get_config(f"20way1shot_{option}")
        assert config.task.shots + config.train.queries == examples
    assert config.train.clip == 0.5


def test_the_norm_of_the_meta_gradient_is_clipped(config):
    config.train.clip_norm, config.train.meta_lr = 0.25, 1.0
    gradient = {"a": np.float32([3.0, 4.0]), "b": np.float32([-12.0])}
    for clip, expected in ((0.0, 0.25), (1.0, 0.25)):
        config.train.clip = clip
        tx = experiment.outer_optimizer(config)
        _, state = tx.update(gradient, tx.init(gradient))
        mean = optax.tree.get(state, "mu")
        assert optax.tree.norm(mean) == pytest.approx(0.1 * expected)


@pytest.mark.slow
def test_from_the_command_line_without_any_data_file(tmp_path):
    command = [
        sys.executable,
        *("-m", "experiments.omniglot", "--config=configs/omniglot.py:quick"),
        f"--workdir={tmp_path / 'run'}",
        "--config.train.num_iterations=2",
        "--config.train.meta_batch=2",
        "--config.model.filters=2",
        "--config.validate.num_tasks=2",
        "--config.evaluate.num_tasks=2",
    ]
    root = Path(__file__).parents[3]
    wide = os.environ | {"COLUMNS": "200"}  # so that no cell of the table is wrapped
    done = subprocess.run(command, cwd=root, env=wide, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "5-way 1-shot, 1 query per class" in done.stdout
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    names = data.load("glyphs", "test").names
    assert report["details"]["classes"] == f"test: {len(names)} classes"
