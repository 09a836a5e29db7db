"""Models and adapted learners leave by `jax.export`, for any number of examples."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from mamljax import Batch, algorithms, baselines, losses, maml, models
from mamljax.models import conv_net
from mamljax.models.convolution import in_form

KEY = jax.random.key(0)
POOLED = {"downsample": "max_pool", "readout": "flatten"}


def symbolic(shape, names, dtype=jnp.float32):
    """An array of unknown length; all that share one scope of names may be exported together."""
    (length,) = export.symbolic_shape(names) if isinstance(names, str) else (names,)
    return jax.ShapeDtypeStruct((length, *shape), dtype)


def there_and_back(function, *shapes):
    """The function as a file holds it."""
    return export.deserialize(export.export(jax.jit(function))(*shapes).serialize()).call


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (models.mlp((4, 1)), (2,)),
        (models.mlp((4, 1), norm="batch"), (2, 3)),
        (conv_net(3, filters=2, blocks=1), (8, 7, 1)),
        (conv_net(3, filters=2, blocks=1, norm="layer", **POOLED), (9, 8, 2)),
        (models.gaussian_policy(2, hidden=(4,)), (3,)),
        (models.with_context(models.mlp((4, 1)), (2,)), (3,)),
    ],
    ids=["mlp", "mlp, norm", "strided", "pooled", "policy", "context"],
)
def test_models_export_for_any_batch(model, shape):
    params = model.init(KEY, jnp.zeros((2, *shape)))
    predict = there_and_back(lambda x: model.apply(params, x), symbolic(shape, "b"))
    inputs = jax.random.normal(KEY, (5, *shape))
    found, expected = predict(inputs), jax.jit(model.apply)(params, inputs)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected
    )
    assert len(jax.tree.leaves(predict(inputs[:1]))[0]) == 1


@pytest.mark.parametrize("net", [{}, POOLED], ids=str)
def test_convolutions_of_jaxs_own_become_onnx(net, tmp_path):
    to_onnx = pytest.importorskip("jax2onnx").to_onnx
    onnxruntime = pytest.importorskip("onnxruntime")
    model = conv_net(3, filters=4, blocks=2, norm="layer", **net)
    images = np.asarray(jax.random.normal(KEY, (5, 9, 8, 3)))
    params = jax.jit(model.init)(KEY, images)
    path = str(tmp_path / "net.onnx")
    with in_form("lax"):
        to_onnx(
            lambda x: model.apply(params, x), [("B", 9, 8, 3)], return_mode="file", output_path=path
        )
    session = onnxruntime.InferenceSession(path)
    (found,) = session.run(None, {session.get_inputs()[0].name: images})
    np.testing.assert_allclose(found, jax.jit(model.apply)(params, images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("net", [{}, POOLED], ids=str)
def test_adaptation_exports_for_any_shots_and_queries(net):
    net = conv_net(3, filters=2, blocks=1, **net)
    learner = algorithms.meta_sgd(net, losses.cross_entropy, inner_lr=0.1, num_steps=2)
    params = learner.init(KEY, jnp.zeros((2, 4, 4, 1)))

    def answer(params, support, inputs):
        return learner.predict(learner.adapt(params, support, None).params, inputs)

    shots, queries = export.symbolic_shape("k, q")
    support = Batch(symbolic((4, 4, 1), shots), symbolic((), shots, jnp.int32))
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    exported = there_and_back(answer, shapes, support, symbolic((4, 4, 1), queries))
    images = jax.random.normal(KEY, (11, 4, 4, 1))
    support = Batch(images[:6], jnp.arange(6, dtype=jnp.int32) % 3)
    found = exported(params, support, images[6:])
    np.testing.assert_allclose(
        found, jax.jit(answer)(params, support, images[6:]), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize(
    "learner",
    [
        baselines.prototypical(conv_net(None, filters=2, blocks=1), ways=3),
        baselines.mann(ways=3, hidden=4, slots=4, width=3, reads=1),
    ],
    ids=["prototypical", "mann"],
)
def test_adapted_parameters_travel_as_an_argument(learner):
    params = learner.init(KEY, jnp.zeros((2, 4, 4, 1)))
    images = jax.random.normal(KEY, (8, 4, 4, 1))
    adapted = learner.adapt(params, Batch(images[:3], jnp.arange(3)), None).params
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), adapted)
    predict = there_and_back(learner.predict, shapes, symbolic((4, 4, 1), "q"))
    expected = jax.jit(learner.predict)(adapted, images)
    np.testing.assert_allclose(predict(adapted, images), expected, rtol=1e-4, atol=1e-5)


ELSEWHERE = """
import sys, numpy as np, jax
from jax import export
predict = export.deserialize(bytearray(open("net.bin", "rb").read())).call
np.save("found.npy", predict(np.load("inputs.npy")))
assert "mamljax" not in sys.modules and "flax" not in sys.modules
"""


def test_an_adapted_model_is_read_where_there_is_no_mamljax(tmp_path):
    learner = maml(models.mlp((8, 1)), losses.mean_squared_error, inner_lr=0.1)
    x = np.linspace(-1, 1, 7, dtype=np.float32)[:, None]
    params = learner.init(KEY, x)
    adapted = learner.adapt(params, Batch(x, x**2), None).params
    predict = export.export(jax.jit(lambda x: learner.predict(adapted, x)))(symbolic((1,), "b"))
    (tmp_path / "net.bin").write_bytes(predict.serialize())
    np.save(tmp_path / "inputs.npy", x)
    subprocess.run([sys.executable, "-c", ELSEWHERE], cwd=tmp_path, check=True)
    expected = learner.predict(adapted, x)
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, rtol=1e-5, atol=1e-6)
