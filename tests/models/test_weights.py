import jax
import numpy as np
import pytest

from mamljax import models
from mamljax.models import weights


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


def test_pickled_objects_are_never_loaded(params, tmp_path):
    np.savez(tmp_path / "w.npz", conv1=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        weights.load(tmp_path / "w.npz", params)
