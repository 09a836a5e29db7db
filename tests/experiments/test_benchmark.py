import json

import jax
import numpy as np
import optax
import pytest

from configs import sinusoid as sinusoid_config
from experiments import benchmark, peers
from mamljax import init_state, meta_step, metrics
from mamljax.losses import mean_squared_error


@pytest.fixture
def config():
    small = sinusoid_config.get_config()
    small.log.chunk = 10
    return small


@pytest.fixture
def suite(tmp_path, config):
    return benchmark.sinusoid(tmp_path / "work", config)


@pytest.fixture
def torch_peers():
    pytest.importorskip("torch")
    from experiments.peers import torch_sinusoid

    return torch_sinusoid


class Clock:
    """Time passes only while a contestant runs."""

    now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    fake = Clock()
    monkeypatch.setattr(peers, "time", fake)
    return fake


def racer(clock, name, variant, rate, pieces=1):
    """A contestant of known speed that spends five seconds on compiling."""

    def run(num_iterations):
        clock.now += num_iterations / rate() + 5.0
        return 5.0

    return peers.Contestant(name, variant, 1, pieces, lambda: evaluation(), run)


def evaluation(loss=2.0, gradient=(3.0, 4.0), name="w"):
    return peers.Evaluation(loss, {name: np.array(gradient)})


def claims(*evaluations):
    return [
        peers.Contestant(f"peer{index}", "", 1, 1, lambda found=found: found, lambda n: 0.0)
        for index, found in enumerate(evaluations)
    ]


def test_writes_every_measurement_and_a_chart(suite, tmp_path, capsys):
    output = tmp_path / "results" / "speed.json"
    benchmark.run(suite, "sinusoid", output, seconds=0.01, repeats=2)
    found = json.loads(output.read_text())
    assert sorted(path.name for path in output.parent.iterdir()) == ["speed.json", "speed.png"]
    assert found["config"]["train"]["meta_batch"] == 25
    assert found["device"]["cpu_cores"] >= 1
    assert {"python", "jax", "mamljax"} <= found["versions"].keys()
    assert found["command"]
    assert found["matmul_gflops"].keys() == {"numpy", "jax"}
    assert all(rate > 0 for rate in found["matmul_gflops"].values())
    assert [row["name"] for row in found["results"]] == [c.name for c in suite.contestants]
    for row in found["results"]:
        rate = row["iterations_per_second"]
        assert len(rate["rounds"]) == 2
        assert 0 < rate["min"] <= rate["median"] <= rate["max"]
        assert row["tasks_per_second"] == pytest.approx(25 * rate["median"])
        assert len(row["reference_is_times_faster"]["pairwise"]["rounds"]) == 2
    ours = found["results"][0]
    assert ours["compile_seconds"] > 0
    assert ours["reference_is_times_faster"]["of_medians"] == 1
    assert "mamljax" in capsys.readouterr().out


def test_mamljax_logs_and_goes_on_where_it_stopped(suite, tmp_path):
    ours = suite.contestants[0]
    ours.run(20)
    ours.run(10)
    logged = metrics.read(tmp_path / "work" / metrics.FILE)
    assert [record["step"] for record in logged] == [10, 20, 30]
    assert list((tmp_path / "work" / "tensorboard" / "mamljax").iterdir())


def test_without_torch_measures_mamljax_alone_and_says_so(tmp_path, config, monkeypatch, capsys):
    monkeypatch.setattr(benchmark.importlib.util, "find_spec", lambda name: None)
    suite = benchmark.sinusoid(tmp_path, config)
    found = benchmark.run(suite, "sinusoid", tmp_path / "speed.json", seconds=0.01, repeats=1)
    assert [row["name"] for row in found["results"]] == ["mamljax"]
    assert "torch" not in found["versions"]
    assert "PyTorch is skipped" in found["skipped"][0]
    assert "PyTorch is skipped" in capsys.readouterr().out


def test_torch_computes_the_same_with_the_threads_it_was_given(suite):
    torch = pytest.importorskip("torch")
    theirs = suite.contestants[1:]
    assert [one.name for one in theirs] == ["torch.func"] * 2 + ["torch loop"] * 2
    assert len(peers.require_same(suite.contestants)) == 4
    for one in theirs:
        one.run(2)
        assert torch.get_num_threads() == int(one.variant.split()[0])


def test_a_first_order_gradient_is_not_the_same(config, tmp_path, torch_peers, monkeypatch):
    ours, *shared = benchmark._mamljax_sinusoid(tmp_path, config)
    true_grad = torch_peers.torch.autograd.grad
    monkeypatch.setattr(
        torch_peers.torch.autograd,
        "grad",
        lambda *args, create_graph: true_grad(*args, retain_graph=True),
    )
    *_, looped = torch_peers.contestants(config, *shared)
    with pytest.raises(peers.DisagreementError, match="torch loop, 2 threads and mamljax"):
        peers.require_same([ours, looped])


@pytest.mark.parametrize("name", ["vmapped_loss", "looped_loss"])
def test_torch_trains_as_mamljax_does(config, tmp_path, torch_peers, monkeypatch, name):
    _, _, weights, batch = benchmark._mamljax_sinusoid(tmp_path, config)
    tensors = [torch_peers.torch.tensor(part) for part in batch]
    monkeypatch.setattr(torch_peers, "sample_tasks", lambda config: tensors)
    theirs = []
    meta_loss = getattr(torch_peers, name)(config.train.inner_lr)

    def recorded(*args):
        loss = meta_loss(*args)
        theirs.append(loss.item())
        return loss

    torch_peers._trainer(recorded, config, weights, 1)(20)
    np.testing.assert_allclose(theirs, our_losses(config, weights, batch, 20), rtol=1e-4)
    assert theirs[-1] < 0.9 * theirs[0]


def our_losses(config, weights, batch, num_steps):
    from experiments.sinusoid import build_model
    from mamljax import Batch, Task, maml

    learner = maml(build_model(config), mean_squared_error, inner_lr=config.train.inner_lr)
    tx = optax.adam(config.train.meta_lr)
    shape = learner.init(jax.random.key(0), np.zeros((1, 1)))
    params = jax.tree.unflatten(jax.tree.structure(shape), list(weights.values()))
    state, step = init_state(params, tx), jax.jit(meta_step(learner.meta_gradient, tx))
    losses = []
    for _ in range(num_steps):
        tasks = Task(Batch(*batch[:2]), Batch(*batch[2:]))
        state, seen = step(state, tasks, jax.random.key(0))
        losses.append(float(seen.loss))
    return losses


def test_torch_draws_the_same_kind_of_tasks(config, tasks_of, torch_peers):
    torch_peers.torch.manual_seed(0)
    config.train.meta_batch = 20_000
    theirs = [part.numpy() for part in torch_peers.sample_tasks(config)]
    drawn = tasks_of(20_000, shots=config.train.shots, queries=config.train.queries)
    for found, expected in zip(theirs, jax.tree.leaves(drawn), strict=True):
        assert found.shape == expected.shape
        np.testing.assert_allclose(found.mean(), expected.mean(), atol=0.05)
        np.testing.assert_allclose(found.std(), expected.std(), rtol=0.02)
        np.testing.assert_allclose(found.min(), expected.min(), rtol=0.01)
        np.testing.assert_allclose(found.max(), expected.max(), rtol=0.01)


@pytest.mark.parametrize(
    "wrong",
    [
        evaluation(gradient=(3.0, 4.001)),
        evaluation(gradient=(3.0, float("nan"))),
        evaluation(loss=2.0001),
        evaluation(loss=float("nan")),
        evaluation(name="v"),
    ],
    ids=["gradient", "nan gradient", "loss", "nan loss", "names"],
)
def test_a_wrong_contestant_is_refused(wrong):
    with pytest.raises(peers.DisagreementError, match="peer2"):
        peers.require_same(claims(evaluation(), evaluation(), wrong))


def test_rounding_is_not_a_disagreement():
    near = evaluation(loss=2.00001, gradient=(3.0, 4.0001))
    (record,) = peers.require_same(claims(evaluation(), near))
    assert record["gradient_error"] == pytest.approx(2e-5, rel=0.01)


def test_compares_with_the_faster_variant_and_leaves_compiling_out(clock):
    racers = [
        racer(clock, "ours", "", lambda: 800.0),
        racer(clock, "theirs", "1 thread", lambda: 100.0),
        racer(clock, "theirs", "2 threads", lambda: 200.0),
    ]
    rows = peers.measure(peers.Suite({}, 25, racers), seconds=1.0, repeats=3)
    assert [row["best_variant"] for row in rows] == [True, False, True]
    ratios = [row["reference_is_times_faster"]["of_medians"] for row in rows]
    np.testing.assert_allclose(ratios, [1.0, 8.0, 4.0], rtol=1e-3)
    assert rows[0]["compile_seconds"] == 5.0
    assert rows[0]["iterations_per_round"] == pytest.approx(800, abs=1)
    assert rows[0]["tasks_per_second"] == pytest.approx(800 * 25)


def test_a_contestant_that_becomes_slow_is_cut_off(clock):
    rates = iter([100.0] * 4)  # while calibrating; from then on a hundredth
    slow = racer(clock, "slow", "", lambda: next(rates, 1.0), pieces=10)
    rows = peers.measure(peers.Suite({}, 25, [slow]), seconds=1.0, repeats=2)
    assert rows[0]["iterations_per_second"]["rounds"][-1] == pytest.approx(1.0)
    assert clock.now < 200
