"""The command line refuses what is wrong in one line that says how to mend it."""

import subprocess
import sys
from pathlib import Path

import pytest

from configs import locomotion, navigation, sinusoid
from configs.base import few_shot, ranges
from experiments.benchmark import compiling
from experiments.harness.config import check

ROOT = Path(__file__).parents[3]


def call(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "experiments.sinusoid", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.train.inner_rl=1", 'Did you mean "inner_lr" instead of "inner_rl"?'),
        ("--config.trian.inner_lr=1", 'Did you mean "train" instead of "trian"?'),
        ("--config.train.num_iterations=many", "--config.train.num_iterations=many: invalid"),
        ("--config.evaluate.shots=(5,x)", "a tuple of numbers is expected"),
        ("--config.evaluate.num_tasks=0", "--config.evaluate.num_tasks=0: must be at least 1."),
        ("--config.train.inner_lr=-1", "--config.train.inner_lr=-1.0: must be at least 0."),
        ("--config.train.meta_lr=nan", "--config.train.meta_lr=nan: must be finite."),
        ("--config=configs/sinusoid.py:quik", "Did you mean 'quick'?"),
        ("--config=configs/sinusoids.py", "No such file"),
        ("--confg=1", "Did you mean: config"),
        ("quick", "unexpected arguments ['quick']"),
    ],
)
def test_wrong_values_are_refused_with_a_hint(tmp_path, argument, message):
    done = call(f"--workdir={tmp_path / 'run'}", argument)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_what_the_library_refuses_ends_in_one_line_too(tmp_path):
    done = call(f"--workdir={tmp_path / 'run'}", "--config.task.amplitude=(5.0, 0.1)")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: amplitude must be (low, high)")
    assert "Traceback" not in done.stderr


def test_a_missing_workdir_is_refused():
    assert "--workdir must have a value" in call().stderr


def test_help_lists_flags_and_config_values():
    asked = call("--help")
    assert asked.returncode == 0
    text = asked.stdout
    assert "--workdir" in text
    assert "--config.train.inner_lr=0.001" in text


@pytest.mark.parametrize("variant", sinusoid.VARIANTS)
def test_every_variant_builds_and_passes_its_own_checks(variant):
    config = sinusoid.get_config(variant)
    check(config)
    assert config.train.method == ("fomaml" if variant == "fomaml" else "maml")


@pytest.fixture(scope="module")
def configs():
    """Every config but the sinusoids', whose variants are tested above."""
    found = [navigation.get_config(), *map(locomotion.get_config, locomotion.VARIANTS)]
    for file, _ in compiling.FILES.values():
        for setting in file.SETTINGS:
            variants = [setting, *(f"{setting}_{option}" for option in few_shot.OPTIONS)]
            found += map(file.get_config, variants)
    return found


def test_every_other_variant_passes_the_checks_of_values(configs):
    assert len(configs) > 70
    for config in configs:
        check(config)


def test_every_number_has_a_stated_range(configs):
    def is_number(value):
        return isinstance(value, (int, float, tuple)) and not isinstance(value, bool)

    for config in [sinusoid.get_config("table2"), *configs]:
        plain = [name for name, field in ranges.fields(config) if is_number(field)]
        assert plain == [], "write Count(4), Amount(0.1), ...: see configs/base/ranges.py"


def test_values_at_test_follow_those_of_training_until_they_are_set():
    config = sinusoid.get_config()
    config.train.inner_lr = 0.02
    assert config.evaluate.inner_lr == 0.02
    config.evaluate.inner_lr = 0.5
    assert (config.train.inner_lr, config.evaluate.inner_lr) == (0.02, 0.5)
    config.evaluate.inner_lr = -1.0
    with pytest.raises(ValueError, match=r"--config.evaluate.inner_lr=-1.0: must be at least 0"):
        check(config)
    config = locomotion.get_config("ant_direction")
    config.train.gae_lambda = 0.7
    assert config.evaluate.gae_lambda == 0.7
    assert config.evaluate.episodes == config.train.episodes == 40
