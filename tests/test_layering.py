"""The architecture, enforced: imports go one way, and importing mamljax stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mamljax

PACKAGE = Path(mamljax.__file__).parent

# From the bottom up. A module imports from lines above its own, never from its own line or below;
# the modules of one package may import each other.
LAYERS = [
    {"version", "types", "checks", "files"},
    {"processes"},
    {"sharding"},
    {"partition", "inner_optim", "losses", "models", "tasks"},
    {"inner", "inner_lstm"},
    {"implicit"},
    {"objective"},
    {"meta"},
    {"algorithms"},
    {"evaluate", "train"},
    {"tuning", "baselines"},
    {"recipes"},
    {"running"},
    {"rl"},
    {"data"},
    {"photos"},
    {"__main__"},
]
LAYER = {name: level for level, names in enumerate(LAYERS) for name in names}
# The same for the experiments, which may import all of mamljax. Below them are the configs.
SHELVES = [
    {"harness"},
    {"few_shot", "meta_rl", "regression"},
    {"sinusoid", "omniglot", "miniimagenet", "tieredimagenet", "cub", "cifar_fs"}
    | {"navigation", "locomotion"},
    {"prepare", "classify"},
    {"reproduction", "summary"},
    {"tables"},
    {"results"},
    {"reproduce"},
    {"benchmark"},
    {"redraw"},
]
SHELF = {name: level for level, names in enumerate(SHELVES) for name in names}
# What the core may import from outside; everything else enters through an argument.
CORE = [name for name in LAYER if LAYER[name] <= LAYER["algorithms"] and name != "models"]
HEAVY = [
    "PIL",
    "brax",
    "matplotlib",
    "orbax",
    "tensorflow",
    "tensorflow_datasets",
    "torch",
]


def sources():
    """``(first part of the module's name below mamljax, path)`` of every module but the root."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts != ("__init__",):
            yield parts[0], path


def imported(path):
    """Dotted names of everything a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import of {node.module}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(path):
    """The modules and packages of mamljax that a file imports, by their first name."""
    return {name.split(".")[1] for name in imported(path) if name.startswith("mamljax.")}


@pytest.mark.parametrize(("name", "path"), [pytest.param(*s, id=s[1].stem) for s in sources()])
def test_imports_go_one_way(name, path):
    assert name in LAYER, f"give mamljax.{name} a layer"
    for other in own_imports(path) - {name}:
        # Not a layer: a name of the root package, which itself imports everything.
        assert other in LAYER, f"{path} imports mamljax.{other}: import from its module instead"
        assert LAYER[other] < LAYER[name], f"{path} imports mamljax.{other}, a later layer"


def modules_of(folder):
    """``(shelf, path)`` of every module of the experiments, or of the configs."""
    for path in sorted((PACKAGE.parent / folder).rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent / folder).with_suffix("").parts
        if parts[0] != "__init__":
            yield parts[0], path


@pytest.mark.parametrize(
    ("name", "path"),
    [pytest.param(*s, id="/".join(s[1].parts[-2:])) for s in modules_of("experiments")],
)
def test_experiments_import_one_way(name, path):
    assert name in SHELF, f"give experiments.{name} a shelf"
    for other in (module.split(".") for module in imported(path)):
        if other[0] != "experiments" or other[1] == name:
            continue
        assert SHELF[other[1]] < SHELF[name], f"{path} imports {'.'.join(other)}, a later shelf"


def modules_imported(folder):
    """By module, the modules of the same folder that it imports while it is loaded."""
    root = PACKAGE.parent
    names = {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted((root / folder).rglob("*.py"))
    }
    return {
        module: {
            known
            for name in imported_at_top(path)
            for known in (name, name.rpartition(".")[0])
            if known in names and known != module
        }
        for module, path in names.items()
    }


def imported_at_top(path):
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("folder", ["mamljax", "experiments", "configs"])
def test_no_modules_import_each_other_in_a_circle(folder):
    # A package is left out: it hands on what its modules have, and they name each other in full.
    graph = modules_imported(folder)
    packages = {m for m in graph if any(other.startswith(f"{m}.") for other in graph)}
    graph = {m: known - packages for m, known in graph.items() if m not in packages}
    while leaves := [module for module, known in graph.items() if not known & graph.keys()]:
        for module in leaves:
            del graph[module]
    assert graph == {}


def test_configs_know_nothing_of_the_rest():
    outside = {m.split(".")[0] for _, path in modules_of("configs") for m in imported(path)}
    assert not outside & {"experiments", "mamljax", "tests"}


def test_the_experiments_are_commands_and_shelves():
    folder = PACKAGE.parent / "experiments"
    for path in folder.glob("*.py"):
        if path.name != "__init__.py":
            assert '__name__ == "__main__"' in path.read_text(), f"{path.name} is no command"


def test_core_needs_only_jax_and_optax():
    allowed = {"jax", "numpy", "optax", "mamljax", *sys.stdlib_module_names}
    found = {
        f"{path.name}: {top}"
        for name, path in sources()
        if name in CORE
        for top in {module.split(".")[0] for module in imported(path)} - allowed
    }
    assert found == set()


def test_models_may_add_flax():
    allowed = {"flax", "jax", "numpy", "mamljax", "safetensors", *sys.stdlib_module_names}
    outside = {
        module.split(".")[0]
        for name, path in sources()
        if name == "models"
        for module in imported(path)
    }
    assert outside <= allowed


def test_library_never_imports_the_experiments():
    outside = {m.split(".")[0] for _, path in sources() for m in imported(path)}
    assert not outside & {"experiments", "configs", "tests"}


def test_importing_mamljax_loads_nothing_heavy():
    code = f"import sys, mamljax; print([name for name in {HEAVY} if name in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "[]"


def test_all_names_what_exists():
    assert len(set(mamljax.__all__)) == len(mamljax.__all__)
    assert [name for name in mamljax.__all__ if not hasattr(mamljax, name)] == []
