import json

import pytest

from experiments.benchmark import speed
from experiments.benchmark.measure import Options

DEVICE = {"platform": "cpu", "count": 2}


def race_of(times):
    """What `experiments.benchmark` writes, as far as it is read: peers by how much slower."""

    def row(name, slower, best=True):
        return {
            "name": name,
            "best_variant": best,
            "milliseconds_per_iteration": 10.0 * slower,
            "iterations_per_second": {"median": 100.0 / slower},
            "tasks_per_second": 400.0 / slower,
            "compile_seconds": 2.0,
            "temporary_megabytes": 5.0,
            "gflops": 50.0 if name == "mamljax" else None,
            "reference_is_times_faster": {
                "of_medians": slower,
                "pairwise": {"min": 0.9 * slower, "max": 1.2 * slower},
            },
        }

    peers = [row(name, slower) for name, slower in times.items()]
    slow = row("torch.func", 99.0, best=False)
    return {
        "results": [row("mamljax", 1.0), *peers, slow],
        "matmul_gflops": {"numpy": 190.0, "jax": 200.0},
        "device": DEVICE,
    }


def breakdown():
    return {
        "seconds": {"simulation": 2.0, "trust region": 1.0, "meta-iteration": 3.0},
        "meta_iterations_per_second": 1 / 3,
        "env_steps_per_second": {"random actions": 9e3, "training": 5e3},
        "device": DEVICE,
    }


@pytest.fixture
def measured(monkeypatch):
    """Commands that were run; each writes what the real one would."""
    commands = []

    def run(command, check):
        assert check
        commands.append(command)
        (path,) = (word.split("=")[1] for word in command if word.startswith("--output="))
        (suite,) = (word.split("=")[1] for word in command if word.startswith("--suite="))
        racing = suite in speed.RACES
        found = race_of({"torch.func": 3.0, "torch loop": 6.0}) if racing else breakdown()
        with open(path, "w") as file:
            json.dump(found, file)

    monkeypatch.setattr(speed.subprocess, "run", run)
    return commands


def test_measures_what_is_missing_and_puts_everything_together(tmp_path, measured, capsys):
    output = tmp_path / "results" / "speed.json"
    output.parent.mkdir()
    alone = output.with_name("speed_sinusoid.json")
    alone.write_text(json.dumps(race_of({})))
    found = speed.run(output, Options(1.0, 2))
    assert len(measured) == len(speed.RACES) + len(speed.BREAKDOWNS) - 1
    assert {"--seconds=1.0", "--repeats=2"} <= set(measured[0])
    assert json.loads(output.read_text()) == json.loads(json.dumps(found))
    assert output.with_suffix(".png").stat().st_size > 1000
    first, second, *_ = found["races"]
    assert (first["name"], first["times_faster"]) == ("sinusoid", {})
    assert second["times_faster"] == {"torch.func": 3.0, "torch loop": 6.0}
    assert second["rounds_faster"]["torch.func"] == pytest.approx([2.7, 3.6])
    assert second["share_of_peak"] == 0.25
    assert [row["name"] for row in found["breakdowns"]] == list(speed.BREAKDOWNS)
    printed = capsys.readouterr().out
    assert "omniglot_20way" in printed
    assert "5,000" in printed
    measured.clear()
    speed.run(output, Options(1.0, 2))
    assert measured == []


def test_a_failed_measurement_is_not_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(speed.sys, "executable", "false")
    with pytest.raises(speed.subprocess.CalledProcessError):
        speed.run(tmp_path / "speed.json", Options(1.0, 1))
    assert not (tmp_path / "speed.json").exists()
