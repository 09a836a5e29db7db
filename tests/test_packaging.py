"""What is installed: complete, as light as it says, and with versions that are known to work."""

import json
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from mamljax.__main__ import COMMANDS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_a_wheel_holds_every_package():
    configured = PROJECT["tool"]["setuptools"]
    folders = set()
    for name in configured["packages"]:
        for package, folder in configured["package-dir"].items():
            if name == package or name.startswith(f"{package}."):
                name = f"{folder}{name.removeprefix(package)}"
        folders.add(name.replace(".", "/"))
    found = {
        str(path.parent.relative_to(ROOT))
        for package in ("mamljax", "experiments", "configs")
        for path in (ROOT / package).rglob("*.py")
    }
    assert folders == found


def requirements():
    project = PROJECT["project"]
    extras = project["optional-dependencies"]
    return [*project["dependencies"], *extras["dev"], *extras["docs"]]


@pytest.mark.parametrize("requirement", [*map(Requirement, requirements())], ids=str)
def test_constraints_pin_what_is_required(requirement):
    def canonical(name):
        return re.sub(r"[-_.]+", "-", name).lower()

    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    versions = {canonical(name): version for name, version in pinned.items()}
    assert requirement.specifier, "without a lower bound anything might be installed"
    assert requirement.specifier.contains(versions[canonical(requirement.name)])


def seconds(code):
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    return time.perf_counter() - started


def test_importing_takes_hardly_longer_than_importing_jax():
    # A bound in seconds would depend on what else the machine does.
    pairs = [(seconds("import mamljax"), seconds("import jax")) for _ in range(3)]
    assert min(ours for ours, _ in pairs) < 2 * min(jax for _, jax in pairs)


LACKING = ["brax", "matplotlib", "PIL", "tensorboardX", "tensorflow_datasets"]
LIGHT = f"""
import re, sys
from pathlib import Path
sys.modules |= dict.fromkeys({LACKING}, None)  # as if they were not installed
"""


def light(code):
    """Run code where only what a light installation brings can be imported."""
    return subprocess.run(
        [sys.executable, "-c", LIGHT + code], cwd=ROOT, capture_output=True, text=True
    )


def test_a_light_installation_trains_on_own_data():
    snippet = "README = Path('README.md').read_text('utf-8')\n"
    snippet += "exec(re.search(r'own_data -->\\n```python\\n(.*?)```', README, re.DOTALL)[1])\n"
    more = """
from mamljax import evaluate, rl
from mamljax import files
from mamljax.running import checkpoint, metrics, provenance, report
saved = checkpoint.Checkpoints("/nowhere")
print(evaluate(learner, state.meta_params, sampler, jax.random.key(3), num_tasks=4).num_tasks)
"""
    done = light(snippet + more)
    assert done.stdout.split() == ["4"], done.stderr


@pytest.mark.parametrize(
    ("code", "package"),
    [
        ("from mamljax import rl; rl.locomotion('cheetah_direction')", "brax"),
        ("from mamljax import data; data.load('omniglot', 'train')", "tensorflow-datasets"),
        ("from mamljax.running import metrics as m; m.MetricLogger('/tmp', 'a')", "tensorboardX"),
        (
            "from mamljax.running import plots\n"
            "plots.training_curves(Path('a'), {}, {}, ylabel='loss')",
            "matplotlib",
        ),
    ],
    ids=lambda value: value if " " not in value else "",
)
def test_what_lacks_is_told_by_name(code, package):
    done = light(code)
    assert done.returncode == 1
    assert f"which is not installed: pip install {package}" in done.stderr.splitlines()[-1]


def run(*command, cwd):
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder of the commands of an environment that has the wheel, and nothing else."""
    tmp_path = tmp_path_factory.mktemp("installed")
    tools, empty = tmp_path / "tools" / "bin", tmp_path / "empty" / "bin"
    for place in (tools, empty):
        run(sys.executable, "-m", "venv", place.parent, cwd=tmp_path)
    run(tools / "pip", "install", "--quiet", "build", cwd=tmp_path)
    run(tools / "python", "-m", "build", "--outdir", tmp_path / "dist", ROOT, cwd=tmp_path)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    assert len(list((tmp_path / "dist").glob("*.tar.gz"))) == 1  # the wheel is made from it
    install = [empty / "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel]
    run(*install, cwd=tmp_path)
    assert "py.typed" in run(empty / "python", "-m", "zipfile", "-l", wheel, cwd=tmp_path)
    return empty


@pytest.mark.slow
def test_every_command_of_the_wheel_runs_in_an_empty_folder(installed, tmp_path, small):
    command = installed / "mamljax"

    def mamljax(*words):
        return run(command, *words, cwd=tmp_path)

    called = set()
    for words, said in {
        ("--version",): "mamljax ",
        ("train", "sinusoid", "--help"): "--config.train.inner_lr=0.001",
        ("train", "sinusoid:quick", *small): "runs/sinusoid-quick",
        ("report", "runs/sinusoid-quick"): "5-shot",
        ("data", "glyphs", "--cache=cache"): "28 x 28 x 1",
        ("benchmark", "sinusoid", "--seconds=0.01", "--repeats=1"): "mamljax is faster",
        ("reproduce", "--status"): "not begun",
    }.items():
        assert said in " ".join(mamljax(*words).split()), words
        called.add(words[0])
    report = json.loads((tmp_path / "runs" / "sinusoid-quick" / "report.json").read_text())
    assert report["train"]["maml"]["iterations"] == 20
    quick = [
        "--config.train.num_iterations=2",
        "--config.train.meta_batch=2",
        "--config.data.cache=cache",
    ]
    quick += ["--config.evaluate.num_tasks=2", "--config.model.filters=2", "--workdir=runs/glyphs"]
    mamljax("train", "omniglot:quick", *quick)
    quick[-1] = "--workdir=runs/tested"
    mamljax("evaluate", "omniglot:quick", "runs/glyphs/model.npz", *quick)
    # Those that are not run here have tests of their own; each has to tell of itself.
    for name in COMMANDS.keys() - called:
        assert mamljax(name, "--help").strip(), name
