import functools
import importlib.util
import json
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import omniglot as omniglot_config
from configs import sinusoid as sinusoid_config
from experiments.benchmark import flops, measure, race, steps
from experiments.sinusoid import build_model
from mamljax import Batch, Task, init_state, maml, meta_step
from mamljax.losses import mean_squared_error
from mamljax.models.convolution import convolution
from mamljax.running import metrics


@pytest.fixture
def config():
    small = sinusoid_config.get_config("paper")
    small.log.every = 10
    return small


@pytest.fixture
def suite(tmp_path, config):
    return steps.sinusoid(tmp_path, config)


@pytest.fixture
def torch_peers():
    pytest.importorskip("torch")
    from experiments.benchmark.peers import torch_maml

    return torch_maml


@pytest.fixture
def clock(monkeypatch):
    fake = types.SimpleNamespace(now=0.0)  # passes only while a contestant runs
    monkeypatch.setattr(measure.time, "perf_counter", lambda: fake.now)
    return fake


def racer(clock, name, variant, rate, compiles=True):
    """A contestant of known speed; each run may spend five seconds on compiling."""

    def run(num_iterations):
        clock.now += num_iterations / rate() + 5.0 * compiles
        return 5.0 * compiles

    return measure.Contestant(name, variant, 1, compiles, evaluation, run)


def evaluation(loss=2.0, gradient=(3.0, 4.0), name="w"):
    return measure.Evaluation(loss, {name: np.array(gradient)})


def claim(name, found):
    return measure.Contestant(name, "", 1, False, lambda: found, lambda n: 0.0)


def test_writes_every_measurement_and_a_chart(suite, tmp_path):
    output = tmp_path / "results" / "speed.json"
    race.race(suite, "sinusoid", output, measure.Options(0.01, 1))
    found = json.loads(output.read_text())
    assert sorted(path.name for path in output.parent.iterdir()) == ["speed.json", "speed.png"]
    assert found["config"]["train"]["meta_batch"] == 25
    assert found["device"]["cpu_cores"] >= 1
    assert {"python", "jax", "mamljax"} <= found["versions"].keys()
    assert found["command"]
    assert min(found["matmul_gflops"].values()) > 0
    assert [row["name"] for row in found["results"]] == [c.name for c in suite.contestants]
    for row in found["results"]:
        rate = row["iterations_per_second"]
        assert rate["rounds"] == [rate["min"]] == [rate["median"]] == [rate["max"]]
        assert row["tasks_per_second"] == pytest.approx(25 * rate["median"])
        assert len(row["reference_is_times_faster"]["pairwise"]["rounds"]) == 1
    ours = found["results"][0]
    assert ours["compile_seconds"] > 0
    assert ours["reference_is_times_faster"]["of_medians"] == 1


def test_mamljax_logs_and_goes_on_where_it_stopped(suite, tmp_path):
    ours = suite.contestants[0]
    ours.run(20)
    ours.run(10)
    logged = metrics.read(tmp_path / metrics.FILE)
    assert [record["step"] for record in logged] == [10, 20, 30]
    assert list((tmp_path / "tensorboard" / "mamljax").iterdir())


def test_without_peers_measures_mamljax_alone_and_says_so(tmp_path, config, monkeypatch, capsys):
    monkeypatch.setattr(steps.importlib.util, "find_spec", lambda name: None)
    suite = steps.sinusoid(tmp_path, config)
    assert [one.name for one in suite.contestants] == ["mamljax"]
    quick = suite.contestants[0]._replace(unit=1, run=lambda n: time.sleep(n / 1000) or 0.0)
    output, suite = tmp_path / "speed.json", suite._replace(contestants=[quick])
    found = race.race(suite, "sinusoid", output, measure.Options(0.01, 1))
    assert "torch" not in found["versions"]
    assert "PyTorch is skipped" in found["skipped"][0]
    assert "PyTorch is skipped" in capsys.readouterr().out


def test_torch_computes_the_same_with_the_threads_it_was_given(suite, torch_peers):
    theirs = suite.contestants[1:]
    ways = ["torch.func", "torch loop", "torch batched"]
    assert [one.name for one in theirs] == [name for name in ways for _ in range(2)]
    assert len(measure.require_same(suite.contestants)) == 6
    for one in theirs:
        one.run(2)
        assert torch_peers.torch.get_num_threads() == int(one.variant.split()[0])


@pytest.fixture
def shared(config, tmp_path, torch_peers, monkeypatch):
    """Our contestant, and what the peers are given.

    The problem, the config of training, weights to start from and to compare at, tasks.
    """
    given = []
    with monkeypatch.context() as patch:
        patch.setattr(torch_peers, "contestants", lambda *args: given.extend(args) or [])
        (ours,) = steps.sinusoid(tmp_path, config).contestants
    return ours, *given


def test_a_first_order_gradient_is_not_the_same(shared, torch_peers):
    ours, *shared = shared
    for one in torch_peers.contestants(*shared, first_order=True):
        with pytest.raises(measure.DisagreementError, match=f"{one.name}, .* and mamljax"):
            measure.require_same([ours, one])


@pytest.mark.parametrize("name", ["vmapped_loss", "looped_loss", "batched_loss"])
def test_torch_trains_as_mamljax_does(config, shared, torch_peers, name):
    _, problem, train, _, weights, batch = shared
    problem = problem._replace(sample_tasks=lambda: problem.to_tasks(batch))
    make_loss, theirs = getattr(torch_peers, name), []
    meta_loss = make_loss(problem, train.inner_lr, train.num_inner_steps)

    def recorded(*args):
        loss = meta_loss(*args)
        theirs.append(loss.item())
        return loss

    torch_peers.trainer(problem, recorded, train.meta_lr, weights, 1)(20)
    np.testing.assert_allclose(theirs, list(our_losses(config, weights, batch, 20)), rtol=1e-4)
    assert theirs[-1] < 0.9 * theirs[0]


def our_losses(config, weights, batch, num_steps):
    learner = maml(build_model(config), mean_squared_error, inner_lr=config.train.inner_lr)
    tx, key = optax.adam(config.train.meta_lr), jax.random.key(0)
    structure = jax.tree.structure(learner.init(key, np.zeros((1, 1))))
    state = init_state(jax.tree.unflatten(structure, list(weights.values())), tx)
    step = jax.jit(meta_step(learner.meta_gradient, tx))
    tasks = Task(Batch(*batch[:2]), Batch(*batch[2:]))
    for _ in range(num_steps):
        state, seen = step(state, tasks, key)
        yield float(seen.loss)


def test_torch_draws_the_same_kind_of_tasks(config, tasks_of, torch_peers):
    from experiments.benchmark.peers import torch_sinusoid

    torch_peers.torch.manual_seed(0)
    config.train.meta_batch = 20_000
    theirs = [part.numpy() for part in torch_sinusoid.problem(config).sample_tasks()]
    drawn = tasks_of(20_000, shots=config.train.shots, queries=config.train.queries)
    for found, expected in zip(theirs, jax.tree.leaves(drawn), strict=True):
        assert found.shape == expected.shape
        spread = [np.quantile(x, (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1)) for x in (found, expected)]
        np.testing.assert_allclose(*spread, atol=0.1)


WRONG = ({"gradient": (3, 4.001)}, {"gradient": (3, np.nan)}, {"loss": 2.0001}, {"name": "v"})


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_wrong_contestant_is_refused(wrong):
    claims = [claim("a", evaluation()), claim("b", evaluation()), claim("c", evaluation(**wrong))]
    with pytest.raises(measure.DisagreementError, match=r"^c, "):
        measure.require_same(claims)


def test_rounding_is_not_a_disagreement():
    near = evaluation(loss=2.00001, gradient=(3.0, 4.0001))
    (record,) = measure.require_same([claim("a", evaluation()), claim("b", near)])
    assert record["gradient_error"] == pytest.approx(2e-5, rel=0.01)


def test_compares_with_the_faster_variant_and_leaves_compiling_out(clock):
    racers = [
        racer(clock, "ours", "", lambda: 800.0),
        racer(clock, "theirs", "1 thread", lambda: 100.0),
        racer(clock, "theirs", "2 threads", lambda: 200.0),
    ]
    rows = measure.measure(measure.Suite({}, 25, racers), seconds=1.0, repeats=3)
    assert [row["best_variant"] for row in rows] == [True, False, True]
    ratios = [row["reference_is_times_faster"]["of_medians"] for row in rows]
    np.testing.assert_allclose(ratios, [1.0, 8.0, 4.0], rtol=1e-3)
    assert rows[0]["compile_seconds"] == 5.0
    assert [row["iterations"][0] for row in rows] == pytest.approx([800, 100, 200], abs=1)


def test_a_contestant_of_changing_speed_is_measured_for_its_time(clock):
    rates = iter([1.0, 1.0] + [100.0] * 95)  # slow while calibrating, fast, and slow again
    changing = racer(clock, "changing", "", lambda: next(rates, 1.0), compiles=False)
    (row,) = measure.measure(measure.Suite({}, 25, [changing]), seconds=1.0, repeats=2)
    np.testing.assert_allclose(row["iterations"], [95, 1], atol=6)
    assert clock.now < 10


@pytest.mark.parametrize(
    "name",
    [
        "omniglot",
        pytest.param("miniimagenet", marks=pytest.mark.slow),
        pytest.param("miniimagenet_fomaml", marks=pytest.mark.slow),
    ],
)
def test_images_are_the_same_step_in_naive_jax_and_in_other_libraries(tmp_path, name):
    load, get_config = steps.IMAGES[name]
    if load is steps.noise:
        load = functools.partial(load, (33, 33, 3))
    config = get_config()
    config.train.meta_batch, config.model.filters, config.log.every = 2, 4, 2
    config.train.num_inner_steps = min(config.train.num_inner_steps, 2)
    config.train.queries = 1
    suite = steps.on_images(tmp_path, config, load)
    ours, naive, *theirs = suite.contestants
    expected = {"torch": ["torch.func"] * 2 + ["torch loop"] * 2, "jax_meta": ["jax-meta"]}
    if config.method == "fomaml":  # which jax-meta has not
        del expected["jax_meta"]
    there = [names for package, names in expected.items() if importlib.util.find_spec(package)]
    assert [one.name for one in theirs] == [name for names in there for name in names]
    assert all(
        record["gradient_error"] < 1e-6 for record in measure.require_same(suite.contestants)
    )
    assert ours.temporary_megabytes < 50
    for one in (naive, *theirs):
        one.run(1)


def test_counts_the_operations_of_products():
    matrix, images, kernel = jnp.ones((3, 4)), jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 5))
    assert flops.product_flops(lambda x: x.T @ x, matrix) == 2 * 4 * 3 * 4
    loop = lambda x: jax.lax.scan(lambda c, _: (c @ c, None), x, None, 7)[0]  # noqa: E731
    assert flops.product_flops(loop, matrix.T @ matrix) == 7 * 2 * 4**3
    one = 2 * (2 * 8 * 8 * 5) * (3 * 3 * 3)
    for form in ("lax", "patches"):
        convolve = functools.partial(convolution, form=form)
        assert flops.product_flops(convolve, images, kernel) == one
    padded = 2 * (2 * 8 * 8 * 5) * (3 * 3 * 4)  # to four channels
    assert (
        flops.product_flops(functools.partial(convolution, form="direct"), images, kernel) == padded
    )
    grouped = jax.vmap(functools.partial(convolution, form="lax"))
    both = (jnp.stack([x, x]) for x in (images, kernel))
    assert flops.product_flops(grouped, *both) == 2 * one
    endless = lambda x: jax.lax.while_loop(lambda c: c[0, 0] > 0, lambda c: c @ c, x)  # noqa: E731
    with pytest.raises(ValueError, match="unknown length"):
        flops.product_flops(endless, matrix.T @ matrix)


@pytest.mark.slow
def test_inner_loops_differ_in_memory_and_order_alone(tmp_path):
    config = steps.SUITES["inner_loop"][1]()
    assert config.train.num_inner_steps == 10
    config.train.meta_batch, config.model.filters, config.log.every = 2, 4, 1
    suite = steps.inner_loop(tmp_path, config)
    second, remat, first = suite.contestants
    (record,) = measure.require_same(suite.contestants)
    assert record["name"] == "second-order, remat"
    assert record["gradient_error"] < 1e-9
    assert first.check is None
    assert (
        2 * max(remat.temporary_megabytes, first.temporary_megabytes) < second.temporary_megabytes
    )


def test_torch_draws_the_episodes_of_the_config():
    pytest.importorskip("torch")
    from experiments.benchmark.peers import torch_images

    config = omniglot_config.get_config("5way1shot")
    config.train.meta_batch, config.task.shots, config.train.queries = 3, 2, 4
    classes, most = 7, 9
    images = np.zeros((classes, most, 1, 2, 2), np.uint8)
    images[..., 0, 0] = 10 * np.arange(1, classes + 1)[:, None, None]  # it turns with the image
    images[..., 0, 1] = np.arange(1, most + 1)[:, None]
    drawn = torch_images.sample_tasks(config, torch_images.torch.from_numpy(images))
    support_x, support_y, query_x, query_y = (part.numpy() for part in drawn)
    assert support_x.shape == (3, 10, 1, 2, 2)
    assert query_x.shape == (3, 20, 1, 2, 2)
    np.testing.assert_array_equal(support_y, np.repeat(np.arange(5), 2)[None].repeat(3, 0))
    for task in range(3):
        both = np.concatenate([support_x[task], query_x[task]]).round(5) * 255
        labels = np.concatenate([support_y[task], query_y[task]])
        corner = both.reshape(30, 4).max(1).round()
        for label in range(5):
            assert len(set(corner[labels == label])) == 1  # one class, disjoint images of it
            assert len({tuple(x.ravel()) for x in both[labels == label]}) == 6
        assert len(set(corner)) == 5
