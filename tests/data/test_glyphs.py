"""The embedded images: enough classes, no two of them alike, and drawings that really differ."""

import subprocess
import sys
import unicodedata

import matplotlib
import numpy as np
import pytest

from mamljax.data import glyphs


@pytest.fixture(scope="module")
def drawn():
    """One full draw: the images, the names, and what was reported on the way."""
    reports = []
    return *glyphs.draw(reports.append), reports


@pytest.fixture(scope="module")
def outline():
    """The outline of a character in a face, by default the one that draws its prototype."""
    fonts = glyphs._fonts()

    def draw(character, face=None):
        if face is None:
            face = next(i for i, (_, has) in enumerate(fonts) if character in has)
        return glyphs._outline(character, fonts[face][0])

    return draw


@pytest.fixture(scope="module")
def views_of(outline):
    return lambda characters: glyphs._views(np.stack([outline(c) for c in characters]))


def characters(names):
    return [chr(int(name.split()[0].removeprefix("U+"), 16)) for name in names]


def test_images(drawn):
    images, names, _ = drawn
    assert len(names) >= 1000
    assert images.shape == (len(names), 20, 28, 28, 1)
    assert images.dtype == np.uint8
    # Full ink on blank paper in each image, and not too little or too much of it.
    assert np.all(images.max((2, 3, 4)) > 200)
    assert np.all(images.min((2, 3, 4)) == 0)
    ink = images.mean((2, 3, 4)) / 255
    assert ink.min() > 0.01
    assert ink.max() < 0.75


def test_names(drawn):
    _, names, _ = drawn
    assert len(set(names)) == len(names)
    assert "U+0416 CYRILLIC CAPITAL LETTER ZHE" in names
    assert {unicodedata.category(c) for c in characters(names)} <= glyphs.CATEGORIES
    scripts = {name.split()[1] for name in names}
    assert scripts >= {"LATIN", "GREEK", "CYRILLIC", "HEBREW", "ARABIC", "GEORGIAN", "CANADIAN"}


def test_progress_counts_the_classes(drawn):
    _, names, reports = drawn
    assert reports == list(range(1, len(names) + 1))


def test_drawings_of_a_class_differ(drawn):
    images, _, _ = drawn
    for drawings in images:
        assert len({drawing.tobytes() for drawing in drawings}) == 20


def test_drawing_twice_gives_the_same(monkeypatch):
    monkeypatch.setattr(glyphs, "CATEGORIES", {"Nd", "Sc"})
    (first, names), (second, again) = glyphs.draw(), glyphs.draw()
    assert names == again
    assert first.tobytes() == second.tobytes()


def test_prototypes_are_apart(drawn, views_of):
    _, names, _ = drawn
    views = views_of(characters(names))
    distances = glyphs._unlike(views, views)
    assert np.all(distances.diagonal() == 0)
    np.fill_diagonal(distances, np.inf)
    assert distances.min() >= glyphs.APART


@pytest.mark.parametrize(
    "alike",
    [
        "A\N{GREEK CAPITAL LETTER ALPHA}\N{CYRILLIC CAPITAL LETTER A}",
        "0Oo\N{GREEK SMALL LETTER OMICRON}\N{CYRILLIC SMALL LETTER O}",
        "\N{LATIN SMALL LETTER SHARP S}\N{LATIN CAPITAL LETTER SHARP S}",
        "\N{LATIN SMALL LETTER A WITH GRAVE}\N{LATIN SMALL LETTER A WITH ACUTE}",
        "\N{UNION}\N{INTERSECTION}\N{SUBSET OF}\N{SUPERSET OF}",
        *("bq", "dp", "nu", "69"),
    ],
)
def test_look_alikes_share_a_class(drawn, alike):
    _, names, _ = drawn
    assert len(set(alike) & set(characters(names))) <= 1


def test_mirror_images_and_clear_accents_are_classes_of_their_own(drawn):
    _, names, _ = drawn
    assert set("bdCÇà") <= set(characters(names))


def test_distance_counts_the_ink_without_a_counterpart():
    blank = np.zeros((28, 28), np.float32)
    bar, moved, longer, lying, dotted = (blank.copy() for _ in range(5))
    bar[8:20, 13:15] = 1
    moved[9:21, 14:16] = 1  # by a pixel each way: the same
    longer[8:24, 13:15] = 1  # four more rows, one of them within a pixel
    lying[13:15, 8:20] = 1  # a quarter turn
    dotted[8:20, 13:15] = dotted[4:6, 4:6] = 1

    def unlike(one, other):
        first, second = (np.stack([[image, image]]) for image in (one, other))
        np.testing.assert_array_equal(
            glyphs._unlike(first, second), glyphs._unlike(second, first).T
        )
        return glyphs._unlike(first, second).item()

    assert unlike(bar, bar) == 0
    assert unlike(bar, moved) == 0
    assert unlike(bar, lying) == 0
    assert unlike(bar, longer) == 6
    assert unlike(bar, dotted) == 4
    assert unlike(lying, dotted) == 4


def test_widths_alone_do_not_tell_characters_apart(views_of):
    assert glyphs._unlike(views_of("■"), views_of("▮")).item() < glyphs.APART


@pytest.mark.parametrize("character", [" ", ".", "|", "—", "·"])
def test_blanks_dots_and_bars_are_not_drawn(outline, character):
    assert outline(character) is None


@pytest.mark.parametrize(
    "name",
    [
        "COMBINING ACUTE ACCENT",
        "ROMAN NUMERAL EIGHT",
        "VULGAR FRACTION ONE HALF",
        "CIRCLED DIGIT ONE",
        "SUPERSCRIPT TWO",
        "MATHEMATICAL BOLD CAPITAL A",
        "MATHEMATICAL BOLD SCRIPT CAPITAL A",
        "MATHEMATICAL SANS-SERIF CAPITAL A",
        "LATIN SMALL LIGATURE FI",
        "BRAILLE PATTERN DOTS-123456",
    ],
)
def test_marks_and_restyled_characters_are_left_out(name):
    assert not glyphs._eligible(unicodedata.lookup(name))


@pytest.mark.parametrize("character", ["\n", "\ue000", "\U000e0fff"])
def test_characters_without_a_name_are_left_out(character):
    assert not glyphs._eligible(character)


def test_faces_that_look_like_another_class_are_left_out(outline):
    te, fonts = "\N{CYRILLIC SMALL LETTER TE}", glyphs._fonts()
    alone, beside = (
        glyphs._with_other_faces({c: outline(c) for c in pair}, fonts)[te]
        for pair in (te, te + "m")
    )
    assert len(alone) == sum(te in has for _, has in fonts)
    italic = outline(te, glyphs.FACES.index("DejaVuSerif-Italic"))
    assert any(np.array_equal(italic, drawn) for drawn in alone)
    assert not any(np.array_equal(italic, drawn) for drawn in beside)
    assert 1 < len(beside) < len(alone)


@pytest.mark.parametrize("rotated", [False, True])
def test_as_hard_for_pixels_as_omniglot(drawn, rotated):
    """Vinyals et al. (2016) report 41.7 % for nearest neighbours, 5-way 1-shot."""
    images, _, _ = drawn
    rng, hits = np.random.default_rng(0), []
    for _ in range(1000):
        classes = rng.choice(len(images), 5, replace=False)
        pairs = [images[c, rng.choice(20, 2, replace=False), :, :, 0] / 255 for c in classes]
        if rotated:
            pairs = [np.rot90(pair, int(rng.integers(4)), (1, 2)) for pair in pairs]
        support, query = np.stack(pairs, 1).reshape(2, 5, -1)
        distances = np.sum((query[:, None] - support) ** 2, -1)
        hits.append(distances.argmin(1) == np.arange(5))
    assert 0.36 < np.mean(hits) < 0.46


def test_missing_fonts_are_explained(monkeypatch, tmp_path):
    monkeypatch.setattr(matplotlib, "get_data_path", lambda: str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"DejaVuSans\.ttf is not there\. Install"):
        glyphs.draw()


def test_importing_it_leaves_matplotlib_alone():
    code = "import sys, mamljax.data.glyphs; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
