import errno
import sys
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from safetensors.flax import save_file

from mamljax import algorithms, baselines, losses, models
from mamljax.models import weights

KEY, INPUTS = jax.random.key(0), jnp.ones((2, 3))


@pytest.fixture
def params(randomised):
    net = models.omniglot_net(5, filters=3)
    inputs = jax.ShapeDtypeStruct((1, 28, 28, 1), np.float32)
    return randomised(jax.eval_shape(net.init, jax.random.key(0), inputs))


def published(params, names):
    """The parameters under the authors' names, with those of the offsets as given."""
    arrays = {"w5": params["head"]["kernel"], "b5": params["head"]["bias"]}
    for i in range(4):
        block = params[f"block_{i}"]
        arrays[f"conv{i + 1}"] = block["conv"]["kernel"]
        arrays[f"b{i + 1}"] = block["conv"]["bias"]
        arrays[names.format(i)] = block["norm"]["offset"]
    return arrays


def test_arrays_are_named_by_path_in_order(params):
    names = list(weights.to_arrays(params))
    assert names == sorted(names)
    assert names[:3] == ["block_0/conv/bias", "block_0/conv/kernel", "block_0/norm/offset"]


def test_to_a_file_and_back(params, tmp_path):
    weights.save(tmp_path / "w.npz", params)
    found = weights.load(tmp_path / "w.npz", params)
    jax.tree.map(np.testing.assert_array_equal, found, params)


@pytest.mark.parametrize("names", ["{}_beta", "{}/beta", "model/{}/beta:0", "{}.offset"])
def test_the_names_of_the_authors(params, names):
    found = weights.from_arrays(published(params, names), params)
    assert jax.tree.structure(found) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, found, params)


def test_scopes_and_the_arrays_of_optimizers_are_left_aside(params):
    arrays = published(params, "{}/beta")
    scoped = {f"model/{name}:0": array for name, array in arrays.items()}
    scoped |= {f"model/{name}/Adam:0": array * 0 for name, array in arrays.items()}
    scoped |= {"beta1_power": np.zeros(()), "global_step": np.zeros(())}
    jax.tree.map(np.testing.assert_array_equal, weights.from_arrays(scoped, params), params)


def test_imported_weights_predict_as_the_originals_do(params):
    net, inputs = models.omniglot_net(5, filters=3), np.ones((4, 28, 28, 1), np.float32)
    inputs *= np.arange(4, dtype=np.float32)[:, None, None, None]
    found = weights.from_arrays(published(params, "{}_beta"), params)
    np.testing.assert_array_equal(net.apply(found, inputs), net.apply(params, inputs))


def test_everything_that_does_not_fit_is_named(params):
    arrays = published(params, "{}_beta")
    del arrays["b2"]
    arrays["conv1"] = np.zeros((3, 3, 3, 3))
    with pytest.raises(ValueError, match="do not fit the network") as caught:
        weights.from_arrays(arrays, params)
    assert caught.match(r"block_0/conv/kernel: expected \(3, 3, 1, 3\), got \(3, 3, 3, 3\)")
    assert caught.match("block_1/conv/bias: expected .*, got nothing")
    assert "block_2" not in str(caught.value)


def test_only_what_lacks_is_named():
    with pytest.raises(
        ValueError, match=r"network:\n  head/w: expected \(3,\), got nothing\nThere"
    ):
        weights.from_arrays(
            {"body/w": np.ones(2)}, {"body": {"w": INPUTS[0, :2]}, "head": {"w": INPUTS[0]}}
        )


def test_the_checkpoint_of_the_authors_code(params):
    """Its names, as their graph makes them: a scope, biases without names, slots of Adam."""
    theirs = published(params, "{}/beta")
    for i in range(4):
        theirs[f"Variable_{i}" if i else "Variable"] = theirs.pop(f"b{i + 1}")
        theirs |= {f"{i}/moving_mean": np.zeros(3), f"{i}/moving_variance": np.ones(3)}
    theirs["Variable_4"] = np.zeros(())  # no bias, least of all that of the output layer
    scoped = {f"model/{name}": array for name, array in theirs.items()}
    scoped |= {f"model/model/{name}/Adam_1": array * 0 for name, array in theirs.items()}
    jax.tree.map(np.testing.assert_array_equal, weights.from_arrays(scoped, params), params)
    del scoped["model/b5"]
    with pytest.raises(
        ValueError, match=r"network:\n  head/bias: expected \(5,\), got nothing\nThere"
    ):
        weights.from_arrays(scoped, params)


# ---------------------------------------------------------------------------------------------
# Every pytree that a learner's init returns.


class Mixed(NamedTuple):
    first: Any
    second: Any


def sequential(rngs):
    return nnx.Sequential(nnx.Linear(3, 4, rngs=rngs), nnx.relu, nnx.Linear(4, 1, rngs=rngs))


def narrow(dtype):
    return {"w": jnp.array([-3.5, 0.015625, 1.75, 0.0]).astype(dtype)}


NET = models.mlp((4, 1))
TREES = {
    "nnx.Sequential": lambda: models.from_nnx(sequential).init(KEY, INPUTS),
    "nnx state": lambda: nnx.state(sequential(nnx.Rngs(0))),
    "meta_sgd": lambda: algorithms.meta_sgd(NET, losses.mean_squared_error).init(KEY, INPUTS),
    "meta_curvature": lambda: algorithms.meta_curvature(NET, losses.mean_squared_error).init(
        KEY, INPUTS
    ),
    "siamese": lambda: baselines.siamese(NET, ways=2).init(KEY, INPUTS),
    "running averages": lambda: models.from_linen(linen.BatchNorm(), norm="running").init(
        KEY, INPUTS
    ),
    "tuples and lists": lambda: Mixed([jnp.ones(2), (jnp.zeros(()), 2.0)], {"file": jnp.arange(3)}),
    "bfloat16": lambda: narrow(jnp.bfloat16),
    "float16": lambda: narrow(jnp.float16),
    "float8": lambda: narrow(jnp.float8_e4m3fn),
    "keys": lambda: {"key": jax.random.key(7), "keys": jax.random.split(KEY, 3)},
    "one array": lambda: jnp.arange(3.0),
}


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_every_tree_makes_the_way_there_and_back(tree, tmp_path):
    params = tree()
    weights.save(tmp_path / "w.npz", params)
    shapes = jax.eval_shape(lambda: params)
    found = weights.load(tmp_path / "w.npz", shapes)
    assert jax.tree.structure(found) == jax.tree.structure(params)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(params), strict=True):
        assert a.dtype == jnp.result_type(b)
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("path", "params", "message"),
    [
        ("w.npz", {"a": {"b": jnp.ones(1)}, "a/b": jnp.ones(1)}, "two parameters .* 'a/b'"),
        ("w.npz", {"a": "text"}, "a is not an array of numbers, .* got str of dtype <U4"),
        ("w.npz", {"a": jnp.ones(1), "b": object()}, "b is not an array of numbers"),
        ("w.safetensors", {"a": jnp.ones(1)}, "saved as .npz files; got .*w.safetensors"),
        ("w", {"a": jnp.ones(1)}, "saved as .npz files"),
    ],
)
def test_what_no_file_can_hold_is_refused_at_saving(path, params, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        weights.save(tmp_path / path, params)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_file_that_was_there(params, tmp_path, monkeypatch):
    path = tmp_path / "w.npz"
    weights.save(path, params)
    write = np.lib.format.write_array

    def until_full(file, array, **options):
        if array.ndim > 1:  # a bias fits, a kernel does not
            raise OSError(errno.ENOSPC, "No space left on device")
        write(file, array, **options)

    monkeypatch.setattr(np.lib.format, "write_array", until_full)
    with pytest.raises(OSError, match="No space left"):
        weights.save(path, jax.tree.map(jnp.zeros_like, params))
    assert list(tmp_path.iterdir()) == [path]
    jax.tree.map(np.testing.assert_array_equal, weights.load(path, params), params)


def test_equal_parameters_make_equal_files(params, tmp_path, monkeypatch):
    weights.save(tmp_path / "first.npz", params, {"about": 1})
    monkeypatch.setattr(time, "localtime", lambda *_: time.gmtime(2_000_000_000))
    weights.save(tmp_path / "second.npz", params, {"about": 1})
    assert (tmp_path / "first.npz").read_bytes() == (tmp_path / "second.npz").read_bytes()


# ---------------------------------------------------------------------------------------------
# A part of a network, and other files.


def test_a_part_is_loaded_on_purpose(params, tmp_path, randomised):
    backbone = {name: x for name, x in params.items() if name != "head"}
    weights.save(tmp_path / "w.npz", backbone)
    fresh = randomised(params, seed=1)
    found = weights.load(tmp_path / "w.npz", fresh, partial=True)
    jax.tree.map(np.testing.assert_array_equal, found, {**backbone, "head": fresh["head"]})
    theirs = published(params, "{}/beta")
    del theirs["w5"], theirs["b5"]
    found = weights.from_arrays(theirs, fresh, partial=True)
    jax.tree.map(np.testing.assert_array_equal, found, {**backbone, "head": fresh["head"]})
    with pytest.raises(ValueError, match=r"network:\n  head/bias: .*\n  head/kernel: .*\nThere"):
        weights.load(tmp_path / "w.npz", fresh)
    # Shapes alone have no values to keep.
    with pytest.raises(ValueError, match=r"head/kernel: expected .*, got nothing"):
        weights.load(tmp_path / "w.npz", jax.eval_shape(lambda: fresh), partial=True)


def test_a_part_has_to_fit_and_to_be_there(params):
    other = {"block_0/conv/kernel": np.ones((3, 3, 1, 7))}
    with pytest.raises(
        ValueError, match=r"conv/kernel: expected \(3, 3, 1, 3\), got \(3, 3, 1, 7\)"
    ):
        weights.from_arrays(other, params, partial=True)
    with pytest.raises(
        ValueError, match=r"head/kernel: expected .* nothing(.|\n)*There are layer1"
    ):
        weights.from_arrays({"layer1": np.ones(3)}, params, partial=True)


def test_safetensors_are_read(params, tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    save_file(
        {name: jnp.asarray(x, jnp.bfloat16) for name, x in weights.to_arrays(params).items()}, path
    )
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    jax.tree.map(np.testing.assert_array_equal, weights.load(path, half), half)
    monkeypatch.setitem(sys.modules, "safetensors.flax", None)
    with pytest.raises(ValueError, match=r"needs the package safetensors: pip install .*\.npz"):
        weights.load(path, params)
    with pytest.raises(ValueError, match=r"from .npz and .safetensors files; got .*model.ckpt"):
        weights.load(tmp_path / "model.ckpt", params)


def test_pickled_objects_are_never_loaded(params, tmp_path):
    np.savez(tmp_path / "w.npz", conv1=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        weights.load(tmp_path / "w.npz", params)
