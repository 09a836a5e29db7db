"""Characters of many scripts, drawn from the fonts that matplotlib ships: images without a file.

They make few-shot classification run wherever the package is installed. The set is in the style of
Omniglot (Lake et al. 2015), but its classes are typefaces under random warps, not handwriting:
numbers measured on it are not Omniglot's and must not be compared with them.
"""

import functools
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

VERSION = "1"
"""Names the pixels: changes whenever any of them does, so that stored copies can be told apart."""

SIDE = 28
EXAMPLES = 20

# The first face that has a character draws its prototype; DejaVu Sans has nearly all of them. No
# oblique faces, for the warps slant; the italics are here because their letters differ in shape.
FACES = (
    "DejaVuSans",
    "DejaVuSerif",
    "DejaVuSansMono",
    "STIXGeneral",
    "DejaVuSerif-Italic",
    "STIXGeneralItalic",
    "DejaVuSans-Bold",
    "DejaVuSerif-Bold",
    "STIXGeneralBol",
)

# Letters, numerals, and signs of mathematics and currency: what a hand would write. Other symbols
# are mostly pictures; combining marks and spaces are no characters of their own.
CATEGORIES = frozenset({"Lu", "Ll", "Lt", "Lo", "Nd", "Nl", "Sm", "Sc"})

# Of the compatibility forms (small, circled, joined, sans-serif ...) only these alphabets are more
# than a typeface or a layout of other characters.
STYLES = frozenset({"FRAKTUR", "BLACK-LETTER", "SCRIPT", "DOUBLE-STRUCK"})

# Two characters are of different classes if one of them has this many pixels of ink farther than
# a pixel from any ink of the other: about the dot of an i. Fewer are easily lost in the warps,
# which move and merge ink.
APART = 8

# Ranges of the uniform warps: radians, shear, the logarithm of how much each axis shrinks, pixels,
# and the pen's level (see `_drawings`). Elastic displacements have this deviation, in pixels. On
# the whole they make nearest neighbours of pixels about as poor as they are on Omniglot.
TURN, SHEAR, SHRINK, SHIFT, PEN, ELASTIC = 0.25, 0.25, (-0.05, 0.25), 3.0, (0.22, 0.5), 1.0

_SEED = 20
_FINE = 3  # fine pixels along a pixel: the resolution of outlines, until they are warped
_BODY = 20  # pixels along the longer side of an unwarped character
_EM = 96  # size in which fonts draw a character before it is scaled to its body
_WAVES = 4  # cosines along an axis in elastic displacements: none bends within a few pixels

Font = tuple[ImageFont.FreeTypeFont, frozenset[str]]


def draw(progress: Callable[[int], None] | None = None) -> tuple[np.ndarray, tuple[str, ...]]:
    """All drawings of all classes: the same bytes on each call with the same Pillow and fonts.

    A class is a Unicode character. Characters that look alike, upright or after quarter turns, are
    one class, named after the first of them. The 20 drawings of a class differ in typeface, where
    several have the character, in the breadth of the pen, and in affine and elastic warps.

    Args:
      progress: called after each class with the number of classes drawn so far.

    Returns:
      ``(images, names)``: uint8 ``[C, 20, 28, 28, 1]``, ink 255 on 0, and ``C`` names such as
      ``"U+0416 CYRILLIC CAPITAL LETTER ZHE"``, letters before numerals before signs.

    Raises:
      FileNotFoundError: if this copy of matplotlib comes without its fonts.
    """
    classes = _classes()
    images = np.empty((len(classes), EXAMPLES, SIDE, SIDE, 1), np.uint8)
    for i, (character, outlines) in enumerate(classes.items()):
        images[i] = _drawings(character, outlines)
        if progress is not None:
            progress(i + 1)
    return images, tuple(map(_name, classes))


def _name(character: str) -> str:
    return f"U+{ord(character):04X} {unicodedata.name(character)}"


def _classes() -> dict[str, np.ndarray]:
    """The characters that are classes, each with its outlines ``[F, 84, 84]``, prototype first."""
    fonts = _fonts()
    drawn = set().union(*(characters for _, characters in fonts))
    prototypes = {}
    # By category first, for the first of all that look alike is kept: a letter before a sign.
    for character in sorted(drawn, key=lambda c: (unicodedata.category(c)[0], ord(c))):
        if _eligible(character):
            outline = _outline(character, next(f for f, has in fonts if character in has))
            if outline is not None:
                prototypes[character] = outline
    characters, outlines = list(prototypes), np.stack(list(prototypes.values()))
    kept = _spread(_views(outlines))
    return _with_other_faces({characters[i]: outlines[i] for i in kept}, fonts)


def _fonts() -> list[Font]:
    """The faces, each with the characters that it has."""
    # Here, since matplotlib takes a while to import and drawing is the only use of it.
    import matplotlib
    from matplotlib.ft2font import FT2Font

    fonts = []
    for face in FACES:
        path = Path(matplotlib.get_data_path(), "fonts", "ttf", f"{face}.ttf")
        if not path.is_file():
            raise FileNotFoundError(
                f"glyphs are drawn from the fonts in matplotlib's own package, and {path} is not "
                "there. Install matplotlib from PyPI or conda-forge, which include them."
            )
        # Basic layout: one character, one glyph, whether or not a shaping library is there.
        font = ImageFont.truetype(str(path), _EM, layout_engine=ImageFont.Layout.BASIC)
        fonts.append((font, frozenset(map(chr, FT2Font(str(path)).get_charmap()))))
    return fonts


def _eligible(character: str) -> bool:
    """Return whether a character is of a kind that the set is made of, not another one restyled."""
    words = set(unicodedata.name(character, "").split())
    restyled = unicodedata.decomposition(character).startswith("<")
    own_alphabet = bool(words & STYLES) and "BOLD" not in words
    return (
        unicodedata.category(character) in CATEGORIES
        and bool(words)
        and (own_alphabet or not restyled)
    )


def _outline(character: str, font: ImageFont.FreeTypeFont) -> np.ndarray | None:
    """The character, centred, with a body of standard size: uint8 ``[84, 84]``; None if unfit."""
    drawn = Image.new("L", (3 * _EM, 3 * _EM))
    middle = (1.5 * _EM, 1.5 * _EM)
    ImageDraw.Draw(drawn).text(middle, character, 255, font, anchor="mm")
    box = drawn.getbbox()
    if box is None:
        return None
    width, height = box[2] - box[0], box[3] - box[1]
    # A dot or a bar is nothing to be known by once it is scaled to the size of a letter.
    if max(width, height) < _EM / 4 or max(width, height) > 3 * min(width, height):
        return None
    scale = _FINE * _BODY / max(width, height)
    return _placed(drawn, (round(width * scale), round(height * scale)))


def _placed(drawn: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """The ink of an image, scaled to `size` fine pixels, in the middle of ``[84, 84]``."""
    fine = Image.new("L", (_FINE * SIDE, _FINE * SIDE))
    corner = ((fine.width - size[0]) // 2, (fine.height - size[1]) // 2)
    fine.paste(drawn.resize(size, Image.Resampling.BILINEAR, drawn.getbbox()), corner)
    return np.asarray(fine)


def _views(outlines: np.ndarray) -> np.ndarray:
    """Unwarped images ``[N, 2, 28, 28]`` of ink, 1 on 0: as drawn, and as squares.

    Squares, since characters that differ in width alone are alike once they are warped. Without
    greys, since counts are exact: which classes there are must not depend on rounding errors.
    """
    body = (_FINE * _BODY, _FINE * _BODY)
    squares = np.stack([_placed(Image.fromarray(outline), body) for outline in outlines])
    fine = np.stack([outlines, squares], 1).reshape(-1, 2, SIDE, _FINE, SIDE, _FINE)
    # A third of a pixel is ink: where a hairline runs between two pixels, neither is half full.
    return (fine.mean((3, 5)) >= 255 / 3).astype(np.float32)


def _unlike(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Distances of views ``[N, 2, 28, 28]`` and ``[M, 2, 28, 28]``: pixels of ink, ``[N, M]``.

    It is the ink that one has and the other lacks within a pixel around, in the direction in which
    that is more, and for the view and the quarter turn for which it is the least. Warps move ink
    about; what counts is ink that has no counterpart nearby.
    """

    def flat(images):
        return images.reshape(len(images), -1)

    def distances():
        for one, other in zip(first.swapaxes(0, 1), second.swapaxes(0, 1), strict=True):
            ink, far = flat(one), flat(1 - _widened(one))
            for quarters in range(4):
                turned = np.rot90(other, quarters, (1, 2))
                yield np.maximum(ink @ flat(1 - _widened(turned)).T, far @ flat(turned).T)

    return functools.reduce(np.minimum, distances())


def _widened(images: np.ndarray) -> np.ndarray:
    """The greatest of each pixel and its eight neighbours; the border must be blank."""
    for axis in (1, 2):
        images = functools.reduce(np.maximum, (np.roll(images, step, axis) for step in (-1, 0, 1)))
    return images


def _spread(views: np.ndarray) -> list[int]:
    """Indices of views no two of which are nearer than `APART`; the earlier one is kept."""
    kept: list[int] = []
    for i, distances in enumerate(_unlike(views, views)):
        if np.all(distances[kept] >= APART):
            kept.append(i)
    return kept


def _with_other_faces(
    prototypes: dict[str, np.ndarray], fonts: list[Font]
) -> dict[str, np.ndarray]:
    """Outlines ``[F, 84, 84]``: the prototype, and the other faces that look most like it.

    A face may make a character look more like another class: a Cyrillic te in italics is an m.
    """
    owners, others = [], []
    for owner, character in enumerate(prototypes):
        for font in [font for font, has in fonts if character in has][1:]:
            outline = _outline(character, font)
            if outline is not None:
                owners.append(owner)
                others.append(outline)
    faces = [[outline] for outline in prototypes.values()]
    distances = _unlike(_views(np.stack(others)), _views(np.stack(list(prototypes.values()))))
    for owner, outline, nearest in zip(owners, others, distances.argmin(1), strict=True):
        if nearest == owner:
            faces[owner].append(outline)
    return {c: np.stack(outlines) for c, outlines in zip(prototypes, faces, strict=True)}


def _drawings(character: str, outlines: np.ndarray) -> np.ndarray:
    """The drawings ``[20, 28, 28, 1]`` of a class from its outlines ``[F, 84, 84]``, in turn."""
    # A generator for each class: its warps do not depend on which other classes there are.
    rng = np.random.default_rng([_SEED, ord(character)])
    face = (np.arange(EXAMPLES) % len(outlines))[:, None, None]
    soft = _blurred(outlines / 255)
    # Bilinear interpolation between fine pixels, whose centres lie half of one from their edges.
    x, y = (np.clip(_FINE * (p + SIDE / 2) - 0.5, 0, _FINE * SIDE - 1.001) for p in _warp(rng))
    column, row = x.astype(int), y.astype(int)
    x, y = x - column, y - row
    above = (1 - x) * soft[face, row, column] + x * soft[face, row, column + 1]
    below = (1 - x) * soft[face, row + 1, column] + x * soft[face, row + 1, column + 1]
    ink = (1 - y) * above + y * below
    # On a blurred outline a lower level lies farther out: the mark of a broader pen. The slope
    # leaves about a pixel of grey at the edges, and none on blank paper.
    level = rng.uniform(*PEN, (EXAMPLES, 1, 1))
    ink = np.clip(0.5 + 2.3 * (ink - level), 0, 1)
    return np.round(255 * ink).astype(np.uint8)[..., None]


def _warp(rng: np.random.Generator) -> np.ndarray:
    """Places of each drawing's pixels on its outline: x and y from the centre, [2, 20, 28, 28]."""
    turn = rng.uniform(-TURN, TURN, EXAMPLES)
    shear = rng.uniform(-SHEAR, SHEAR, EXAMPLES)
    shrink = np.exp(rng.uniform(*SHRINK, (2, EXAMPLES)))
    shift = rng.uniform(-SHIFT, SHIFT, (2, EXAMPLES, 1, 1))
    bends = rng.normal(0, ELASTIC, (2, EXAMPLES, _WAVES, _WAVES))

    centred = np.arange(SIDE) - (SIDE - 1) / 2
    x, y = np.broadcast_arrays(centred - shift[0], centred[:, None] - shift[1])
    cos, sin = np.cos(turn), np.sin(turn)
    affine = np.array([[cos + shear * sin, shear * cos - sin], [sin, cos]]) * shrink[:, None]
    waves = np.cos(np.pi * np.outer(np.arange(_WAVES), np.arange(SIDE) + 0.5) / SIDE)
    waves /= np.linalg.norm(waves, axis=0)  # the same deviation at each pixel
    elastic = waves.T @ bends @ waves
    return np.einsum("ijn,jnyx->inyx", affine, np.stack([x, y])) + elastic


def _blurred(outlines: np.ndarray) -> np.ndarray:
    """Outlines under a kernel some two pixels wide: no aliasing, and a slope for the pen."""
    kernel = np.array([1, 2, 3, 2, 1]) / 9
    for axis in (1, 2):
        outlines = np.tensordot(kernel, [np.roll(outlines, i, axis) for i in range(-2, 3)], 1)
    return outlines
