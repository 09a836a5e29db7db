"""Checkpoints: exact round trip, retention, damage of every kind, changed configs."""

import gc
import json
import os
import random
import shutil
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mamljax import fit, init_state, meta_step, tasks
from mamljax.checks import ArgumentError
from mamljax.running import checkpoint
from mamljax.running.checkpoint import (
    Checkpoints,
    ConfigChangedError,
    DamagedCheckpointError,
    DamagedCheckpointWarning,
    checkpoint_hook,
)
from mamljax.sharding import task_mesh
from mamljax.train import Call
from mamljax.types import Metrics


def make_state(step=0, value=1.0):
    params = {"w": jnp.full((3, 2), value, jnp.float32), "b": (jnp.arange(2.0), jnp.float32(value))}
    return init_state(params, optax.adam(1e-3))._replace(step=jnp.int32(step))


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def saved(directory, *steps, **options):
    checkpoints = Checkpoints(directory, **options)
    for step in steps:
        checkpoints.save(make_state(step, value=step), score=float(step))
    return checkpoints


def test_round_trip_is_exact_and_keeps_the_structure(tmp_path):
    checkpoints = saved(tmp_path, 7)
    assert_same(checkpoints.restore(make_state()), make_state(7, value=7))


def test_a_run_on_several_devices_goes_on(tmp_path, learner_of):
    mesh = task_mesh(jax.devices()[:2])
    learner, tx, sampler = learner_of(mesh=mesh), optax.adam(1e-3), tasks.sinusoid(4, 4)
    step = meta_step(learner.meta_gradient, tx)

    def go_on(state, num_steps):
        key = jax.random.key(1)
        sizes = {"num_steps": num_steps, "meta_batch": 4, "steps_per_call": 1, "mesh": mesh}
        return fit(step, state, sampler, key, **sizes)

    start = init_state(learner.init(jax.random.key(0), jnp.zeros((1, 1))), tx)
    for like in (start, go_on(start, 1)):  # not placed yet, and on both devices
        checkpoints = Checkpoints(tmp_path / str(int(like.step)))
        checkpoints.save(go_on(start, 1))
        assert_same(go_on(checkpoints.restore(like), 2), go_on(start, 2))


def test_nothing_saved_gives_none(tmp_path):
    assert Checkpoints(tmp_path / "absent").restore(make_state()) is None


def test_keeps_the_last_and_the_best(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep_last=2, keep_best=1)
    for step, score in [(1, 3.0), (2, 0.5), (3, 2.0), (4, None), (5, float("nan"))]:
        checkpoints.save(make_state(step, value=step), score)
    assert checkpoints.steps() == [2, 4, 5]
    assert int(checkpoints.restore(make_state()).step) == 5
    assert int(checkpoints.restore(make_state(), best=True).step) == 2
    leftovers = [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert leftovers == []


def test_steps_since_the_best_are_counted_to_the_newest_that_has_a_score(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.since_best() == 0
    for step, score, since in [(1, None, 0), (2, 3.0, 0), (3, 4.0, 1), (4, None, 1), (5, 5.0, 3)]:
        checkpoints.save(make_state(step), score)
        assert checkpoints.since_best() == since
    checkpoints.save(make_state(6), 3.0)  # as good as the best
    assert checkpoints.since_best() == 0


def damage_truncate(path):
    victim = max((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])


def damage_missing_file(path):
    next(p for p in sorted((path / "state").rglob("*")) if p.is_file()).unlink()


def damage_no_record(path):
    (path / checkpoint.RECORD).unlink()


def damage_half_record(path):
    text = (path / checkpoint.RECORD).read_text()
    (path / checkpoint.RECORD).write_text(text[: len(text) // 2])


def damage_empty(path):
    shutil.rmtree(path)
    path.mkdir()


def damage_other_step(path):
    record = json.loads((path / checkpoint.RECORD).read_text())
    (path / checkpoint.RECORD).write_text(json.dumps({**record, "step": record["step"] - 1}))


DAMAGES = [
    damage_truncate,
    damage_missing_file,
    damage_no_record,
    damage_half_record,
    damage_empty,
    damage_other_step,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(tmp_path, damage):
    checkpoints = saved(tmp_path, 1, 2)
    damage(tmp_path / "00000002")
    with pytest.warns(DamagedCheckpointWarning, match="00000002 is damaged"):
        restored = checkpoints.restore(make_state())
    assert_same(restored, make_state(1, value=1))


@pytest.mark.parametrize("damage", DAMAGES)
def test_no_run_begins_anew_over_checkpoints_that_are_all_damaged(tmp_path, damage):
    checkpoints = saved(tmp_path, 1)
    damage(tmp_path / "00000001")
    before = sorted(tmp_path.rglob("*"))
    with (
        pytest.warns(DamagedCheckpointWarning, match="00000001 is damaged"),
        pytest.raises(DamagedCheckpointError, match=r"every checkpoint in .* is damaged: \[1\]"),
    ):
        checkpoints.restore(make_state())
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_replaced_when_its_step_comes_again(tmp_path, damage):
    checkpoints = saved(tmp_path, 1, 2)
    damage(tmp_path / "00000002")
    checkpoints.save(make_state(2, value=5.0))
    assert_same(checkpoints.restore(make_state()), make_state(2, value=5.0))


def test_every_flipped_bit_is_detected_or_harmless(tmp_path, record_property):
    checkpoints, detected = saved(tmp_path, 1, 2), 0
    rng = random.Random(0)
    files = sorted(p for p in (tmp_path / "00000002").rglob("*") if p.is_file())
    for _ in range(100):
        victim = rng.choice([p for p in files if p.stat().st_size])
        content = victim.read_bytes()
        flipped = bytearray(content)
        flipped[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        victim.write_bytes(flipped)
        record_property("flipped bits", 1)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            restored = checkpoints.restore(make_state())
        step = 1 if told else 2
        assert_same(restored, make_state(step, value=step))
        detected += len(told)
        victim.write_bytes(content)
    assert detected == 100  # no flip here is harmless


def test_what_a_kill_in_mid_save_leaves_is_neither_used_nor_in_the_way(tmp_path):
    checkpoints = saved(tmp_path, 1)
    shutil.copytree(tmp_path / "00000001", tmp_path / ".saving-00000002")
    assert checkpoints.steps() == [1]
    checkpoints.save(make_state(2, value=2))
    assert_same(checkpoints.restore(make_state()), make_state(2, value=2))


def test_a_failed_save_leaves_every_earlier_checkpoint(tmp_path, monkeypatch):
    checkpoints = saved(tmp_path, 1, keep_last=1, keep_best=0)

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "_checksums", full_disk)
    with pytest.raises(OSError, match="No space left") as caught:
        checkpoints.save(make_state(2))
    assert "step 2 was not written" in caught.value.__notes__[0]
    monkeypatch.undo()
    assert checkpoints.steps() == [1]
    assert not (tmp_path / ".saving-00000002").exists()
    assert_same(checkpoints.restore(make_state()), make_state(1, value=1))


def test_a_changed_config_is_refused_naming_the_fields(tmp_path):
    config = {"seed": 0, "train": {"inner_lr": 0.01, "shots": 10}, "hidden": (40, 40)}
    saved(tmp_path, 1, config=config)
    # A tuple that became a list on its way through JSON is no change.
    assert Checkpoints(tmp_path, config={**config, "hidden": [40, 40]}).restore(make_state())
    other = {"seed": 0, "train": {"inner_lr": 0.02}, "hidden": (40, 40), "extra": {}}
    with pytest.raises(ConfigChangedError) as caught:
        Checkpoints(tmp_path, config=other).restore(make_state())
    text = str(caught.value)
    assert "train.inner_lr: saved 0.01, now 0.02" in text
    assert "train.shots: saved 10, now '(absent)'" in text
    assert "extra" in text
    assert "seed" not in text


OTHERS = {
    "shape": (
        lambda p: p | {"w": jnp.zeros((3, 5))},
        r"meta_params/w: saved float32 \[3, 2\], now ",
    ),
    "type": (lambda p: p | {"w": p["w"].astype(jnp.float16)}, r"/w: saved float32 .* now float16"),
    "less": (lambda p: {"w": p["w"]}, r"meta_params/b/0: saved float32 \[2\], now nothing"),
    "more": (lambda p: p | {"c": jnp.zeros(1)}, r"meta_params/c: saved nothing, now float32 \[1\]"),
}


@pytest.mark.parametrize("change", OTHERS)
def test_a_state_of_another_shape_is_refused_naming_the_arrays(tmp_path, change, capfd):
    make, message = OTHERS[change]
    checkpoints = saved(tmp_path, 1)
    like = init_state(make(make_state().meta_params), optax.adam(1e-3))
    with pytest.raises(ArgumentError, match=message) as caught:
        checkpoints.restore(like)
    # The optimizer's copies are named too; what is the same is not.
    assert "opt_state/0/mu" in str(caught.value)
    assert "step" not in str(caught.value).replace("opt_state", "").split("\n", 1)[1]
    gc.collect()
    assert capfd.readouterr().err == ""


def test_another_optimizer_is_refused_naming_what_it_lacks(tmp_path):
    checkpoints = saved(tmp_path, 1)
    with pytest.raises(ArgumentError, match=r"opt_state/0/count: saved int32 .*, now nothing"):
        checkpoints.restore(init_state(make_state().meta_params, optax.sgd(0.1)))


ON_ONE_DEVICE = """
import jax, jax.numpy as jnp, optax, sys
from mamljax import init_state
from mamljax.running.checkpoint import Checkpoints
assert jax.device_count() == 1
like = init_state({"w": jnp.zeros((3, 2))}, optax.adam(1e-3))
found = Checkpoints(sys.argv[1]).restore(like)
print(int(found.step), found.meta_params["w"].sum(), found.meta_params["w"].sharding.num_devices)
"""


def test_what_two_devices_saved_is_restored_on_one(tmp_path):
    state = init_state({"w": jnp.ones((3, 2))}, optax.adam(1e-3))._replace(step=jnp.int32(4))
    on_both = NamedSharding(task_mesh(jax.devices()[:2]), PartitionSpec())
    Checkpoints(tmp_path).save(jax.device_put(state, on_both))
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", ON_ONE_DEVICE, tmp_path],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (found.stdout, found.stderr) == ("4 6.0 1\n", "")


def test_the_hook_saves_at_multiples_and_at_the_end(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep_last=10, keep_best=0)
    hook = checkpoint_hook(checkpoints, every=10)
    for step in (4, 8, 12, 16, 20, 23):
        length = 4 if step < 23 else 3
        metrics = Metrics(np.full(length, 0.5), np.zeros((length, 2)), np.zeros(length))
        hook(Call(step, make_state(step), metrics, 23, 2, 1.0, 1.0))
    assert checkpoints.steps() == [12, 20, 23]


@pytest.mark.parametrize(("name", "value"), [("keep_last", 0), ("keep_best", -1)])
def test_bad_retention_is_refused(tmp_path, name, value):
    with pytest.raises(ValueError, match=name):
        Checkpoints(tmp_path, **{name: value})
