"""The pages of docs/: their Python runs, their commands and links are good, the site builds."""

import inspect
import re
import shlex
import subprocess
import sys
import zlib
from importlib import import_module, util
from pathlib import Path

import jax
import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

from experiments.harness import distributed
from experiments.harness.config import check
from mamljax import tasks
from mamljax.__main__ import COMMANDS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = {str(path.relative_to(DOCS)): path.read_text("utf-8") for path in DOCS.rglob("*.md")}
SLOW = {"tutorials/robots.md", "tutorials/algorithm.md"}

PYTHON = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
SHELL = re.compile(r"^```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
INLINE = re.compile(r"`([^`\n]+)`")
# Which of the words in backticks are meant to be files; `report.md` is one that runs leave.
IN_REPOSITORY = re.compile(
    r"(mamljax|configs|experiments|tests|docs|results)/\S*|[A-Z]+\.md|Makefile"
)


def commands():
    """The words of every shell command of every page, with its page."""
    for page, text in sorted(PAGES.items()):
        for block in SHELL.findall(text):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words:
                    yield page, words


def sinusoid_learns(scope):
    before, after = scope["before"].mean, scope["after"].mean
    assert before[10] > 3
    assert after[1] < 1.2
    assert after[10] < 0.6
    assert Path("fit.png").stat().st_size > 10_000


def images_are_learned(scope):
    before, after = scope["before"].mean, scope["after"].mean
    assert before[-1] < 0.4
    assert after[-1] > before[-1] + 0.2
    assert scope["labels"].shape == (10,)


def photos_are_told_apart(scope):
    assert len(scope["right"]) == 18
    assert sum(scope["right"]) >= 14  # chance is 6


def algorithms_differ_as_told(scope):
    error, plain, noisy = scope["error"], scope["plain"], scope["noisy_test"]
    maml, robust = scope["plain_params"], scope["robust_params"]
    assert error(scope["learned"], scope["learned_params"])[0] < error(plain, maml)[0]
    assert error(scope["remembering"], scope["remembering_params"])[0] < error(plain, maml)[0]
    assert error(plain, robust, noisy)[0] < error(plain, maml, noisy)[0]
    assert error(plain, robust)[0] > error(plain, maml)[0]


def memory_shrinks(scope):
    assert scope["by_fours"] < 0.5 * scope["all_at_once"]
    assert scope["recomputed"] < scope["by_fours"]
    assert scope["report"].mean[1] < scope["report"].mean[0]


def report_is_left(scope):
    found = {path.name for path in scope["workdir"].iterdir()}
    assert {"report.md", "report.json", "metrics.jsonl", "metrics.csv", "tensorboard"} <= found
    assert scope["scores"].mean[5] < scope["scores"].mean[0]


def robot_adapts(scope):
    before, after = scope["before"].mean, scope["after"].mean
    assert after[1] > before[1] + 3
    assert after[1] > after[0] + 6


def methods_combine(scope):
    learner = scope["combined"]
    batch = tasks.sample_tasks(tasks.sinusoid(5, 5), None, jax.random.key(0), 3)
    meta_params = learner.init(jax.random.key(1), batch.query.inputs[0])
    gradient, _ = learner.meta_gradient(meta_params, batch, jax.random.key(2))
    assert jax.tree.structure(gradient) == jax.tree.structure(meta_params)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))
    support = jax.tree.map(lambda x: x[0], batch.support)
    adapted = learner.adapt(meta_params, support, jax.random.key(3))
    assert set(adapted.params) == set(meta_params.model)


PROMISES = {
    "reference/algorithms.md": methods_combine,
    "tutorials/sinusoid.md": sinusoid_learns,
    "tutorials/images.md": images_are_learned,
    "tutorials/photos.md": photos_are_told_apart,
    "tutorials/algorithm.md": algorithms_differ_as_told,
    "tutorials/scale.md": memory_shrinks,
    "tutorials/report.md": report_is_left,
    "tutorials/robots.md": robot_adapts,
}


def runnable_pages():
    for page, text in sorted(PAGES.items()):
        if PYTHON.search(text):
            yield pytest.param(page, marks=[pytest.mark.slow] if page in SLOW else [])


@pytest.mark.parametrize("page", [*runnable_pages()])
def test_python_of_a_page_runs_and_keeps_its_promise(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    scope = {"__name__": "__main__"}
    for block in PYTHON.finditer(PAGES[page]):
        above = PAGES[page].count("\n", 0, block.start(1))
        exec(compile("\n" * above + block[1], DOCS / page, "exec"), scope)
    if page in PROMISES:
        PROMISES[page](scope)


def test_every_tutorial_is_held_to_something():
    tutorials = {page for page in PAGES if page.startswith("tutorials/")}
    assert tutorials <= PROMISES.keys()


@pytest.mark.parametrize("page", sorted(PAGES))
def test_links_and_named_files_exist(page):
    text = FENCED.sub("", PAGES[page])
    targets = [target for target in LINK.findall(text) if "://" not in target]
    missing = {target for target in targets if not (DOCS / page).parent.joinpath(target).exists()}
    named = [name for name in INLINE.findall(text) if IN_REPOSITORY.fullmatch(name)]
    missing |= {name for name in named if not (ROOT / name.partition(":")[0]).exists()}
    assert missing == set()


@pytest.mark.parametrize("page", sorted(PAGES))
def test_named_parts_of_the_library_exist(page):
    text = FENCED.sub("", PAGES[page])
    for name in INLINE.findall(text) + re.findall(r"^::: (\S+)", text, re.MULTILINE):
        if re.fullmatch(r"mamljax(\.\w+)+", name):
            assert resolve(name) is not None


def resolve(name):
    """What a dotted name stands for; modules come before functions that share their name."""
    try:
        return import_module(name)
    except ModuleNotFoundError:
        parent, _, last = name.rpartition(".")
        return getattr(resolve(parent), last)


@pytest.mark.parametrize("page", sorted(PAGES))
def test_named_config_values_exist(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    names = ("sinusoid", "omniglot", "miniimagenet", "tieredimagenet", "cub", "cifar_fs")
    names += ("navigation", "locomotion")
    configs = [import_module(f"configs.{name}").get_config().to_dict() for name in names]
    for code in INLINE.findall(PAGES[page]):
        if variant := re.fullmatch(r"configs/(\w+)\.py:(\w+)", code):
            import_module(f"configs.{variant[1]}").get_config(variant[2])
        if field := re.match(r"(?:--)?config\.([\w.]+)", code):
            assert any(has(config, field[1].split(".")) for config in configs), code


def has(tree, path):
    return not path or (isinstance(tree, dict) and path[0] in tree and has(tree[path[0]], path[1:]))


# ml_collections loads a config file in a way that Python 3.12 has deprecated.
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
@pytest.mark.parametrize(
    "words",
    [pytest.param(words, id=f"{page}: {' '.join(words)[:70]}") for page, words in commands()],
)
def test_commands_are_accepted(words, monkeypatch):
    monkeypatch.chdir(ROOT)
    if words[0] == "mamljax":
        assert words[1] in COMMANDS
        if words[1] == "train":
            name, _, variant = words[2].partition(":")
            import_module(f"configs.{name}").get_config(*filter(None, [variant]))
        if words[1] == "report":
            for name in (word for word in words[2:] if word[0] not in "->"):
                assert name.startswith("runs") or list(ROOT.glob(name)), name
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        assert set(words[1:]) <= set(targets)
    if words[:2] != ["python", "-m"]:
        return
    module, arguments = words[2], words[3:]
    assert util.find_spec(module), f"there is no module {module}"
    if module == "experiments.summary":
        for name in arguments:
            if name == "--paired" or name.startswith("--output="):
                continue
            assert name.startswith("runs/") or list(ROOT.glob(name)), name
    elif any(word.startswith("--config=") for word in arguments):
        check_config(arguments)


def check_config(arguments):
    """Parse them as the experiments do, with flags of this call's own."""
    own = flags.FlagValues()
    argv = ["experiment", *arguments]
    config_flags.DEFINE_config_file("config", flag_values=own, sys_argv=argv)
    for name in ("workdir", *distributed.FLAGS):
        flags.DEFINE_string(name, None, "", flag_values=own)
    assert own(argv) == ["experiment"]
    check(own.config)
    assert own.workdir is not None


def test_commands_were_found():
    trained = [words for _, words in commands() if words[:2] == ["mamljax", "train"]]
    configured = [words for _, words in commands() if any("--config=" in word for word in words)]
    assert len(trained) + len(configured) >= 8


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    return folder


def test_site_builds_without_a_warning(site):
    for page in PAGES:
        html = Path(page).with_suffix(".html" if page.endswith("index.md") else "")
        assert (site / html if html.suffix else site / html / "index.html").is_file(), page
    assert not list(site.rglob("*.py"))


def test_pictures_and_pages_outside_of_docs_are_part_of_the_site(site):
    gallery = (site / "gallery" / "index.html").read_text("utf-8")
    shown = re.findall(r'<img [^>]*src="([^"]+)"', gallery)
    assert len(shown) >= 12
    assert all((site / "gallery" / name).resolve().is_file() for name in shown)
    home = (site / "index.html").read_text("utf-8")
    assert 'src="results/sinusoid/maml_figure2.png"' in home
    assert 'href="RESULTS/"' in home
    results = (site / "RESULTS" / "index.html").read_text("utf-8")
    assert "<table>" in results


def test_the_site_loads_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        html = page.read_text("utf-8")
        loaded = re.findall(r'<(?:script|img|link|iframe)[^>]* (?:src|href)="([^"]+)"', html)
        assert not [address for address in loaded if "://" in address], page
    css = "".join(path.read_text("utf-8") for path in site.rglob("*.css"))
    assert "url(http" not in css
    tutorial = (site / "tutorials" / "sinusoid" / "index.html").read_text("utf-8")
    assert '<span class="kn">import</span>' in tutorial  # coloured when it was built


def test_reference_has_everything_public(site):
    # The inventory: four lines of header, then names, compressed.
    inventory = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    listed = {line.split(" ")[0] for line in zlib.decompress(inventory).decode().splitlines()}
    packages = ["", ".algorithms", ".losses", ".models", ".tasks", ".data", ".baselines", ".rl"]
    for name in packages:
        package = import_module(f"mamljax{name}")
        for public in getattr(package, "__all__", []):
            found = getattr(package, public)
            if inspect.ismodule(found):
                assert found.__name__ in listed
            elif callable(found):
                assert f"{found.__module__}.{found.__qualname__}" in listed, (name, public)
    modules = "partition inner_optim sharding train evaluate tuning running.checkpoint"
    modules += " running.metrics running.progress running.report running.plots running.provenance"
    assert {f"mamljax.{name}" for name in modules.split()} <= listed


def test_examples_of_the_reference_are_code(site):
    html = (site / "reference" / "algorithms" / "index.html").read_text("utf-8")
    assert "<blockquote>" not in html
    assert html.count('<span class="gp">') >= 5  # prompts, coloured
