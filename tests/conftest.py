"""What every test shares: eight simulated devices, strict shapes, small learners and tasks."""

import collections
import gc
import os
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from mamljax import Batch, Task, losses, maml, models, tasks

# Compiling is most of the time here: with jax 0.10 it takes half as long without the emitters of
# fused loops. Later versions have no others, and end at a flag that they do not know. In one part
# it takes less, too. `XLA_FLAGS= make test` tests what programs get.
faster = ["--xla_cpu_parallel_codegen_split_count=1"]
if jax.__version_info__ < (0, 11):
    faster.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join(faster))
# Before anything asks JAX for a device, or its backend starts with a single one.
jax.config.update("jax_num_cpu_devices", 8)
# [K, 1] against [K] must be an error in the library, never a silent [K, K].
jax.config.update("jax_numpy_rank_promotion", "raise")
# Most programs here run a few times: compiling them takes longer, by half with all optimisations.
jax.config.update("jax_disable_most_optimizations", True)
# Nor is a program compiled twice, by the workers of one run and by what they start.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    compiled_programs = tempfile.TemporaryDirectory(prefix="mamljax-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled_programs.name
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def pytest_collection_modifyitems(items):
    """Begin with the experiments, whose tests are the longest: no worker ends long before another.

    `make test` keeps xdist from taking the files with the most tests first.
    """
    items.sort(key=lambda item: "experiments" not in item.path.parts)


def pytest_terminal_summary(terminalreporter):
    """What tests counted by `record_property`: kills, flipped bits, junk."""
    counts = collections.Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) == "call":
                for name, number in report.user_properties:
                    counts[name] += number
    if counts:
        counted = ", ".join(f"{number:,} {name}" for name, number in sorted(counts.items()))
        terminalreporter.write_line(f"Survived: {counted}.")


@pytest.fixture(autouse=True, scope="module")
def forget_programs():
    """Free what the programs of a module hold once it is done: they add up to gigabytes."""
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture
def x64():
    """Double precision within one test: finite differences need it."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def small():
    """Flags that make the sinusoid experiment a matter of seconds."""
    return (
        "--config.train.num_iterations=20",
        "--config.log.every=10",
        "--config.evaluate.num_tasks=4",
        "--config.evaluate.shots=(5,)",
        "--config.evaluate.num_inner_steps=1",
        "--config.tune.num_tasks=4",
    )


@pytest.fixture
def learner_of():
    """A small smooth sinusoid learner with any options of `maml`; tanh has no kinks."""

    def build(**options):
        model = models.mlp((6, 1), activation="tanh")
        return maml(model, losses.mean_squared_error, **{"inner_lr": 0.05, **options})

    return build


@pytest.fixture
def tasks_of():
    """A batch of sinusoid tasks, the same for the same seed."""

    def draw(num_tasks, *, shots=4, queries=5, seed=0):
        sampler = tasks.sinusoid(shots, queries)
        return tasks.sample_tasks(sampler, None, jax.random.key(seed), num_tasks)

    return draw


@pytest.fixture
def clusters_of():
    """A sampler of `ways` clusters in `size` dimensions; labels come in order, shot by shot."""

    def build(ways=3, shots=2, queries=4, *, size=4, noise=0.3):
        def sampler(meta_params, key):
            del meta_params
            # One draw: most of the time to compile a small sampler goes to its generator.
            draws = jax.random.normal(key, (1 + shots + queries, ways, size))
            examples = (draws[:1] + noise * draws[1:]).reshape(-1, size)
            labels = jnp.tile(jnp.arange(ways), shots + queries)
            cut = ways * shots
            return Task(Batch(examples[:cut], labels[:cut]), Batch(examples[cut:], labels[cut:]))

        return sampler

    return build


@pytest.fixture
def params_of():
    """Parameters of a learner in the precision of the test; Flax makes float32 ones."""

    def make(learner, data, seed=1):
        params = learner.init(jax.random.key(seed), data.query.inputs[0])
        return jax.tree.map(lambda x: jax.numpy.asarray(x, data.query.inputs.dtype), params)

    return make


@pytest.fixture
def assert_close():
    """Two trees agree leaf by leaf, relative to the norm of the expected leaf."""

    def check(found, expected, rtol):
        def leaf(path, a, b):
            a, b = np.asarray(a), np.asarray(b)
            name = jax.tree_util.keystr(path)
            assert a.shape == b.shape, f"{name}: {a.shape} against {b.shape}"
            error, norm = np.linalg.norm(a - b), np.linalg.norm(b)
            assert error <= rtol * norm, f"{name}: relative error {error / norm:.2e} > {rtol}"

        jax.tree_util.tree_map_with_path(leaf, found, expected)

    return check


@pytest.fixture
def randomised():
    """A tree of standard normal numbers, with the shapes and types of the given one."""

    def draw(tree, seed=0):
        rng = np.random.default_rng(seed)
        return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), tree)

    return draw


@pytest.fixture
def assert_finite_differences():
    """The meta-gradient against central differences of the meta-loss along random directions."""

    def check(learner, params, tasks, *, rtol=1e-6, eps=1e-6):
        key = jax.random.key(7)
        flat, unravel = ravel_pytree(params)

        @jax.jit
        def loss_and_gradient(flat):
            gradient, metrics = learner.meta_gradient(unravel(flat), tasks, key)
            return metrics.loss, ravel_pytree(gradient)[0]

        gradient = loss_and_gradient(flat)[1]
        for direction in np.random.default_rng(0).normal(size=(3, flat.size)):
            ahead, behind = (
                loss_and_gradient(flat + sign * eps * direction)[0] for sign in (1, -1)
            )
            np.testing.assert_allclose(gradient @ direction, (ahead - behind) / (2 * eps), rtol)

    return check
