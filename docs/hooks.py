"""Pages and pictures that lie outside of docs/: the site has them too, from where they are.

Pages of docs/ link to them as they lie in the repository, so that the links are good there as well:
``../RESULTS.md``, ``../results/sinusoid/maml_figure2.png``. What has no place on the site, such as
a source file, is told by its name alone.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = ("RESULTS.md", "BUILD.md", "CONTRIBUTING.md", "CHANGELOG.md")
PICTURES = ("results/**/*.png", "results/**/*.html")
PLAYERS = "<!-- players -->"
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files, config):
    """Add the pages and the pictures."""
    pictures = [path for pattern in PICTURES for path in sorted(ROOT.glob(pattern))]
    for path in (*(ROOT / name for name in PAGES), *pictures):
        uri = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, config, files: Files):
    """Turn links of the repository into those of the site."""
    uri = page.file.src_uri
    # Where the page lies in the repository.
    folder = posixpath.dirname(uri if uri in PAGES else f"docs/{uri}")

    def replaced(found):
        picture, text, target = found.groups()
        path, mark, anchor = target.partition("#")
        if "://" in target or not path:
            return found[0]
        place = posixpath.normpath(posixpath.join(folder, path)).removeprefix("docs/")
        if place == "README.md":
            place = "index.md"
        if files.get_file_from_path(place) is None:
            outside = not (ROOT / "docs" / place).exists() and (ROOT / place).exists()
            return text if outside else found[0]
        relative = posixpath.relpath(place, posixpath.dirname(uri) or ".")
        return f"{picture}[{text}]({relative}{mark}{anchor})"

    return LINK.sub(replaced, markdown.replace(PLAYERS, players(files)))


def players(files: Files) -> str:
    """Links to the pages that play episodes of robots, as far as there are such."""
    pages = [file.src_uri for file in files if file.src_uri.startswith("results/locomotion/")]
    names = {uri: Path(uri).stem.removesuffix("_maml").replace("_", " ") for uri in sorted(pages)}
    links = [f"[{name}](../{uri})" for uri, name in names.items() if uri.endswith(".html")]
    return f"Episodes to watch: {', '.join(links)}." if links else ""
