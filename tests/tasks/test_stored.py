"""Images on disk: the draws are those of images in memory, and are read before they are needed."""

import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mamljax import baselines, evaluate, fit, init_state, losses, maml, meta_step, models
from mamljax.sharding import task_mesh
from mamljax.tasks import Stored, augment, episodes, sample_tasks, stored

KEY = jax.random.key(0)
IMAGES = np.random.default_rng(0).integers(0, 256, (9, 6, 4, 4, 1), np.uint8)
COUNTS = np.array([6, 4, 5, 6, 6, 4, 6, 5, 6])


class Disk:
    """Reads from `IMAGES`, noting which thread read what."""

    def __init__(self, seconds=0.0):
        self.reads, self.seconds = [], seconds

    def __call__(self, at):
        time.sleep(self.seconds)
        self.reads.append((threading.current_thread().name, at.tolist()))
        return IMAGES[at[:, 0], at[:, 1]]

    def images(self):
        return Stored(self, IMAGES.shape)


def sampler_of(images, **options):
    options = {"ways": 3, "shots": 1, "queries": 2, "counts": COUNTS} | options
    return episodes(images, **options)


def assert_same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("options", [{}, {"rotate": True, "augment": augment(flip=True)}])
def test_a_key_draws_what_it_draws_in_memory(options):
    on_disk, in_memory = (sampler_of(x, **options) for x in (Disk().images(), IMAGES))
    for draw in (
        lambda sampler: sampler(None, KEY),
        lambda sampler: jax.jit(lambda s, key: s(None, key))(sampler, KEY),
        lambda sampler: sample_tasks(sampler, None, KEY, 8),
        lambda sampler: sample_tasks(sampler, None, KEY, 8, task_chunk=3),
        lambda sampler: sample_tasks(sampler, None, KEY, 8, mesh=task_mesh()),
    ):
        assert_same(draw(on_disk), draw(in_memory))


def test_minibatches_too():
    on_disk, in_memory = (
        baselines.minibatches(x, size=7, counts=COUNTS) for x in (Disk().images(), IMAGES)
    )
    assert_same(on_disk(None, KEY), in_memory(None, KEY))


def training():
    learner = maml(models.mlp((3,)), losses.cross_entropy, inner_lr=0.1)
    tx = optax.sgd(0.1)
    step = meta_step(learner.meta_gradient, tx)
    return learner, step, init_state(learner.init(KEY, jnp.zeros((1, 4, 4, 1))), tx)


def test_training_and_testing_are_the_same_and_all_is_read_ahead():
    learner, step, start = training()
    disk = Disk()
    on_disk, in_memory = sampler_of(disk.images()), sampler_of(IMAGES)
    options = {"meta_batch": 4, "steps_per_call": 5}
    expected = fit(step, start, in_memory, KEY, num_steps=12, **options)
    found = fit(step, start, on_disk, KEY, num_steps=12, **options)
    assert_same(found, expected)
    assert len(disk.reads) == 12 * 4  # each task once
    assert all(name.startswith("mamljax-read") for name, _ in disk.reads)
    # A run that stopped goes on as if it had not.
    half = fit(step, start, on_disk, KEY, num_steps=7, **options)
    assert_same(fit(step, half, on_disk, KEY, num_steps=12, **options), expected)
    disk.reads.clear()
    scores = [
        evaluate(learner, found.meta_params, sampler, KEY, num_tasks=10)
        for sampler in (on_disk, in_memory)
    ]
    assert_same(*scores)
    assert len(disk.reads) == 10


def test_only_so_much_is_read_ahead(monkeypatch):
    task_bytes = 3 * 3 * 16
    monkeypatch.setattr(stored, "AHEAD_BYTES", 4 * task_bytes)
    disk = Disk()
    sampler = sampler_of(disk.images())
    keys = jax.random.split(KEY, 20)
    stored.read_ahead(sampler, lambda: keys[None])

    def settled():
        before = -1
        while before != len(disk.reads):
            before = len(disk.reads)
            time.sleep(0.1)
        return before

    assert settled() == 4
    sampler(None, keys[0])
    assert settled() == 5
    # What was drawn out of turn is not read again; other expectations replace these.
    sampler(None, keys[15])
    assert settled() == 6
    for key in keys:
        sampler(None, key)
    wanted = [str(at) for _, at in disk.reads]
    assert len(wanted) == 22  # the first and the sixteenth were drawn twice
    assert len(set(wanted)) == 20
    stored.read_ahead(sampler, lambda: keys[None, :2])
    assert settled() == 24


def test_a_sampler_without_images_on_disk_costs_nothing():
    stored.read_ahead(sampler_of(IMAGES), lambda: pytest.fail("keys were made in vain"))


def test_what_cannot_be_read_ends_the_run_and_is_named():
    def broken(at):
        raise OSError("the disk is gone")

    _, step, start = training()
    sampler = sampler_of(Stored(broken, IMAGES.shape))
    with pytest.raises(jax.errors.JaxRuntimeError, match="the disk is gone"):
        fit(step, start, sampler, KEY, num_steps=2, meta_batch=4)


def test_arguments_are_checked_as_for_arrays():
    with pytest.raises(ValueError, match=r"ways=10 classes .* are of 9 classes"):
        sampler_of(Disk().images(), ways=10)
    with pytest.raises(ValueError, match="class 1 has 4"):
        sampler_of(Disk().images(), queries=4)
