"""The command ``mamljax``: one front to the experiments, each of which is a module of its own.

    mamljax train sinusoid:quick                      an experiment, into runs/sinusoid-quick
    mamljax train omniglot:5way1shot --config.data.dir=data/omniglot --workdir=runs/omniglot
    mamljax evaluate miniimagenet WEIGHTS.npz --config.data.dir=data/miniimagenet
    mamljax predict runs/own/model.npz --support=my_classes photo.jpg       new classes, new photos
    mamljax adapt runs/own/model.npz --support=my_classes --output=adapted  the classes, to be kept
    mamljax export adapted.npz --format=stablehlo     for programs without mamljax
    mamljax report runs/*                             seeds merged, beside the paper's numbers
    mamljax data omniglot --dir=data/omniglot         prepare an image set, tell what is in it
    mamljax benchmark omniglot                        speed beside other libraries
    mamljax reproduce --status                        the paper's rows: train, verify, tell

`mamljax COMMAND --help` says more; `mamljax train --help` lists experiments and their variants,
`mamljax train EXPERIMENT --help` every config value. `mamljax --version` tells the versions.
"""

import ast
import difflib
import importlib.metadata
import os
import platform
import runpy
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from mamljax.version import __version__

HERE = Path(__file__).parent
HOME = HERE / "bundled" if (HERE / "bundled").is_dir() else HERE.parent
"""The folder of experiments and configs: in an installed wheel, or in a checkout."""


def main() -> None:
    """Run the command line."""
    words = sys.argv[1:]
    if not words or words[0] in ("--help", "-h", "help"):
        print(__doc__)
        return
    if words[0] == "--version":
        jax = importlib.metadata.version("jax")
        print(f"mamljax {__version__}, jax {jax}, Python {platform.python_version()}")
        return
    command = _one_of("command", words[0], COMMANDS)
    try:
        COMMANDS[command](words[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # who reads, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def train(words: Sequence[str]) -> None:
    """Run an experiment, or go on with it: training, evaluation, figures, report."""
    experiment, variant, rest = _experiment("train", words)
    if not _gives(rest, "--help") and not _gives(rest, "--workdir"):
        rest = [f"--workdir={Path('runs', '-'.join(filter(None, (experiment, variant))))}", *rest]
    config = f"{_config(experiment)}:{variant}" if variant else _config(experiment)
    _run(f"experiments.{experiment}", [f"--config={config}", *rest])


def evaluate(words: Sequence[str]) -> None:
    """Test weights, of a run or of others, without training."""
    experiment, _, rest = _experiment("evaluate", words)
    if not rest or rest[0].startswith("-"):
        _refuse(
            f"evaluate {words[0]} needs a file of weights, such as the model.npz that a run "
            "leaves in its work directory."
        )
    weights = Path(rest[0])
    if not weights.is_file():
        _refuse(f"there is no file {weights}.")
    options = rest[1:]
    if not _gives(options, "--workdir"):
        options = [f"--workdir={Path('runs', f'{experiment}-{weights.stem}-tested')}", *options]
    train([words[0], f"--config.weights.test={weights}", *options])


def predict(words: Sequence[str]) -> None:
    """Tell the class of each photo: `experiments.classify`."""
    _run("experiments.classify", ["predict", *words])


def adapt(words: Sequence[str]) -> None:
    """Adapt a model to new classes, and keep it: `experiments.classify`."""
    _run("experiments.classify", ["adapt", *words])


def export(words: Sequence[str]) -> None:
    """Write an adapted model for programs without mamljax: `experiments.classify`."""
    _run("experiments.classify", ["export", *words])


def report(words: Sequence[str]) -> None:
    """Merge the reports of runs: `experiments.summary`."""
    _run("experiments.summary", words)


def data(words: Sequence[str]) -> None:
    """Prepare an image set: `experiments.prepare`."""
    _run("experiments.prepare", words)


def benchmark(words: Sequence[str]) -> None:
    """Measure speed: `experiments.benchmark`."""
    rest = list(words)
    if rest and not rest[0].startswith("-"):
        suite = rest.pop(0)
        rest.insert(0, f"--suite={suite}")
        if not _gives(rest, "--output"):
            rest.append(f"--output={Path('runs', 'benchmark', suite)}.json")
    _run("experiments.benchmark", rest)


def reproduce(words: Sequence[str]) -> None:
    """Train the paper's rows, verify their weights: `experiments.reproduce`."""
    _run("experiments.reproduce", words)


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "adapt": adapt,
    "export": export,
    "report": report,
    "data": data,
    "benchmark": benchmark,
    "reproduce": reproduce,
}


def _experiment(command: str, words: Sequence[str]) -> tuple[str, str, list[str]]:
    """Experiment, variant and the words that follow; without an experiment, says which there are.

    An experiment is a command with a config file of its name.
    """
    names = sorted(
        path.stem
        for path in (HOME / "configs").glob("[a-z]*.py")
        if (HOME / "experiments" / path.name).exists()
    )
    if not words or words[0].startswith("-"):
        print(f"usage: mamljax {command} EXPERIMENT[:VARIANT] ...\n")
        for name in names:
            print(_described(name))
        raise SystemExit(0 if _gives(words, "--help") or "-h" in words else 2)
    name, _, variant = words[0].partition(":")
    return _one_of("experiment", name, names), variant, list(words[1:])


def _described(experiment: str) -> str:
    """What a config file says at its top: of what it is, and which variants there are."""
    tree = ast.parse((HOME / "configs" / f"{experiment}.py").read_text(encoding="utf-8"))
    title, *paragraphs = (ast.get_docstring(tree) or "").split("\n\n")
    variants = next((part for part in paragraphs if part.startswith("Variants")), "")
    return f"    {experiment:16}{title}\n{textwrap.indent(variants, ' ' * 8)}\n"


def _config(experiment: str) -> str:
    return _shown(HOME / "configs" / f"{experiment}.py")


def _shown(path: Path) -> str:
    """Relative where that is shorter, as one would type it."""
    return min(os.path.relpath(path), str(path), key=len)


def _gives(words: Sequence[str], flag: str) -> bool:
    return any(word.split("=")[0] == flag for word in words)


def _run(module: str, arguments: Sequence[str]) -> None:
    """Run a module of the experiments as ``python -m`` would, from any folder."""
    sys.path.insert(0, str(HOME))
    paths = (str(HOME), os.environ.get("PYTHONPATH"))  # for those that it starts
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    sys.argv[1:] = ["--help" if word == "-h" else word for word in arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _one_of(what: str, word: str, allowed: Sequence[str] | dict) -> str:
    if word not in allowed:
        near = difflib.get_close_matches(word, allowed, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        _refuse(f"there is no {what} {word!r}; there are {', '.join(allowed)}.{hint}")
    return word


def _refuse(message: str) -> NoReturn:
    print(f"error: {message}\nmamljax --help says more.", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    main()
