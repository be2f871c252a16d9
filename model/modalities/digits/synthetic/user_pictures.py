"""Pictures as people upload them, drawn from MNIST digits: image files with known labels.

A digit is redrawn as a smooth line, laid on a sheet, photographed or scanned, and saved. Each
nuisance of `NUISANCES` is a switch of its own over a plain drawing; `mixed` throws several.
They measure the form that pictures are brought into, teach the novelty head that such are digits,
and let the classifier see training digits as the service meets them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Digit = NDArray[np.uint8]  # (28, 28), light on black
Field = NDArray[np.floating]  # (H, W)
Colours = NDArray[np.floating]  # (H, W, 3), in [0, 1]
Random = np.random.Generator
Colour = tuple[float, float, float]

SIDE = 28
# Pixels per pixel of MNIST that a digit's outline is drawn with before it is laid on the sheet.
FINE = 6


@dataclass(frozen=True)
class Recipe:
    """How one picture comes about; lengths are shares of the digit's size unless said otherwise."""

    width: int = 320  # of the picture, pixels
    height: int = 320
    digit: float = 0.6  # its height, or width if that is more, as a share of the shorter side
    place: tuple[float, float] = (0.5, 0.5)  # of the free room above and to the left
    cut: float = 0.0  # share of the digit beyond the picture's edge
    edge: int = 0  # which edge: top, right, bottom, left
    ink: Colour = (0.12, 0.12, 0.14)
    paper: Colour = (0.95, 0.95, 0.93)
    pen: float | None = None  # width of the line; none: the writer's own
    swollen: float = 0.0  # added on each side of the line
    gaps: int = 0  # breaks in the line
    lines: str = ""  # "ruled", "squared", or none
    spacing: float = 0.5  # between lines
    line_width: float = 0.012
    line_strength: float = 0.4  # contrast of the lines over that of the ink
    slant: float = 0.0  # of the sheet, degrees
    border: float = 0.0  # dark edge of a scan, share of the shorter side
    specks: int = 0
    texture: float = 0.0  # deviation of the paper's brightness
    shade: float = 1.0  # light at its darkest over light at its brightest
    shadow: float = 1.0  # light in a cast shadow
    shadow_softness: float = 0.1  # of its edge, share of the picture
    turn: float = 0.0  # degrees
    perspective: float = 0.0  # shift of corners, share of the picture
    blur: float = 0.0  # sigma
    noise: float = 0.0  # deviation
    kind: str = "PNG"
    mode: str = "RGB"  # or a name of `_ENCODERS`
    quality: int = 90
    orientation: int = 1  # EXIF


def user_picture(digit: Digit, recipe: Recipe, random: Random) -> bytes:
    """One digit as an image file."""
    line = _redraw(digit, recipe, random)
    if recipe.mode in ("dark alpha", "light alpha"):
        return _save_alpha(_lay(line, recipe, 0)[0], recipe, random)
    askew = recipe.turn or recipe.perspective
    margin = round(0.35 * max(recipe.width, recipe.height)) if askew else 0
    cover, height = _lay(line, recipe, margin)
    sheet = _sheet(cover.shape, height, recipe, margin, random)
    ink = np.asarray(recipe.ink, np.float32)
    picture: Colours = sheet * (1 - cover[..., None]) + ink * cover[..., None]
    if recipe.lines:  # a pen does not hide the lines: the darker of both shows
        picture = np.minimum(picture, sheet) if sum(recipe.ink) < sum(recipe.paper) else picture
    if margin:
        picture = _photograph(picture, recipe, margin, random)
    picture = picture * _light((recipe.height, recipe.width), recipe, random)[..., None]
    if recipe.border:
        picture = _dark_edges(picture, recipe, random)
    if recipe.blur:
        picture = ndimage.gaussian_filter(picture, (recipe.blur * height, recipe.blur * height, 0))
    if recipe.noise:
        noise = random.standard_normal(picture.shape, np.float32)
        picture = picture + recipe.noise * noise
    return _save(picture.clip(0, 1), recipe, random)


def _redraw(digit: Digit, recipe: Recipe, random: Random) -> Field:
    """The digit's line as smooth coverage in [0, 1], `FINE` times as fine, cut to its extent."""
    fine = np.asarray(
        Image.fromarray(digit.astype(np.float32) / 255).resize(
            (SIDE * FINE, SIDE * FINE), Image.Resampling.BICUBIC
        )
    )
    mask = np.pad(fine > 0.45, 2 * FINE)
    rows = np.flatnonzero(mask.any(axis=1))
    height = float(rows[-1] - rows[0] + 1)
    if recipe.gaps:
        mask = _broken(mask, recipe, random)
    if recipe.pen is not None:
        distance = ndimage.distance_transform_edt(~_skeleton(mask)) - recipe.pen * height / 2
    else:
        outside = ndimage.distance_transform_edt(~mask)
        distance = outside - ndimage.distance_transform_edt(mask) - recipe.swollen * height
    line = (0.5 - ndimage.gaussian_filter(distance, 1.5) / 1.5).clip(0, 1).astype(np.float32)
    if not line.any():
        line = mask.astype(np.float32)
    rows, columns = np.flatnonzero(line.max(axis=1)), np.flatnonzero(line.max(axis=0))
    return line[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _broken(mask: NDArray[np.bool_], recipe: Recipe, random: Random) -> NDArray[np.bool_]:
    """Gaps across the line, as a dry pen leaves."""
    middles = np.argwhere(_skeleton(mask))
    rows, columns = np.indices(mask.shape)
    mask = mask.copy()
    for row, column in middles[random.integers(len(middles), size=recipe.gaps)]:
        angle = random.uniform(0, np.pi)
        along = (rows - row) * np.sin(angle) + (columns - column) * np.cos(angle)
        near = np.hypot(rows - row, columns - column) < 2.5 * FINE
        mask &= ~((np.abs(along) < random.uniform(0.3, 0.75) * FINE) & near)
    return mask


def _skeleton(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Thinned to a line one pixel wide (Zhang and Suen, Communications of the ACM 27, 1984)."""
    thin = np.pad(mask, 1)
    while True:
        before = int(thin.sum())
        for first in (True, False):
            # The eight neighbours, clockwise from the one above.
            steps = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
            around = np.stack([np.roll(thin, (-r, -c), (0, 1)) for r, c in steps])
            count = around.sum(axis=0)
            rises = (~around & np.roll(around, -1, axis=0)).sum(axis=0)
            up, right, down, left = around[0], around[2], around[4], around[6]
            if first:
                open_side = ~(up & right & down) & ~(right & down & left)
            else:
                open_side = ~(up & right & left) & ~(up & down & left)
            thin &= ~((count >= 2) & (count <= 6) & (rises == 1) & open_side)
        if int(thin.sum()) == before:
            return thin[1:-1, 1:-1]


def _lay(line: Field, recipe: Recipe, margin: int) -> tuple[Field, float]:
    """The line on a sheet with so many more pixels all round, and the digit's size in pixels."""
    size = recipe.digit * min(recipe.width, recipe.height)
    scale = size / max(line.shape)
    height, width = (max(1, round(n * scale)) for n in line.shape)
    image = Image.fromarray(line)
    filter_ = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    small = np.asarray(image.resize((width, height), filter_)).clip(0, 1)
    top = round(recipe.place[0] * (recipe.height - height))
    left = round(recipe.place[1] * (recipe.width - width))
    if recipe.cut:
        hidden_rows, hidden_columns = round(recipe.cut * height), round(recipe.cut * width)
        top = (-hidden_rows, top, recipe.height - height + hidden_rows, top)[recipe.edge]
        left = (left, recipe.width - width + hidden_columns, left, -hidden_columns)[recipe.edge]
    sheet = Image.new("F", (recipe.width + 2 * margin, recipe.height + 2 * margin))
    sheet.paste(Image.fromarray(small), (left + margin, top + margin))
    return np.asarray(sheet), float(max(height, width))


def _sheet(
    shape: tuple[int, ...], size: float, recipe: Recipe, margin: int, random: Random
) -> Colours:
    """Empty paper (H, W, 3) with its lines, grain and specks."""
    paper = np.asarray(recipe.paper, np.float32)
    ink = np.asarray(recipe.ink, np.float32)
    sheet = np.broadcast_to(paper, (*shape, 3)).copy()
    if recipe.texture:
        grain = random.standard_normal(shape, np.float32)
        coarse = ndimage.zoom(
            random.standard_normal([n // 6 + 2 for n in shape]).astype(np.float32), 6, order=1
        )[: shape[0], : shape[1]]
        sheet += (recipe.texture * (ndimage.gaussian_filter(grain, 0.8) + coarse))[..., None]
    if recipe.lines:
        lines = _lines(shape, size, recipe, random)
        # Blue or red lines on paper, or grey.
        tint = ink * 0.5 + np.asarray([(0.1, 0.2, 0.5), (0.2, 0.2, 0.2)][random.integers(2)]) * 0.5
        sheet += (lines * recipe.line_strength)[..., None] * (tint - paper).astype(np.float32)
    for _ in range(recipe.specks):
        row, column = random.uniform(0, shape[0]), random.uniform(0, shape[1])
        radius = max(0.6, size * random.uniform(0.004, 0.025))
        strength = random.uniform(0.5, 1.0)
        top, left = max(0, int(row - radius - 1)), max(0, int(column - radius - 1))
        part = sheet[top : int(row + radius + 2), left : int(column + radius + 2)]
        rows, columns = np.indices(part.shape[:2])
        distance = np.hypot(rows + top - row, columns + left - column)
        part += ((radius - distance + 0.5).clip(0, 1) * strength)[..., None] * (ink - part)
    return sheet


def _lines(shape: tuple[int, ...], size: float, recipe: Recipe, random: Random) -> Field:
    """Coverage of printed lines."""
    rows, columns = (axis.astype(np.float32) for axis in np.ogrid[: shape[0], : shape[1]])
    slope = np.float32(np.tan(np.radians(recipe.slant)))
    spacing, half = recipe.spacing * size, max(0.5, recipe.line_width * size / 2)

    def stripes(along: Field) -> Field:
        phase = (along + np.float32(random.uniform(0, spacing))) % np.float32(spacing)
        cover: Field = (half + 0.5 - np.minimum(phase, spacing - phase)).clip(0, 1)
        return cover

    lines = stripes(rows - slope * columns)
    if recipe.lines == "squared":
        lines = np.maximum(lines, stripes(columns + slope * rows))
    return lines


def _light(shape: tuple[int, int], recipe: Recipe, random: Random) -> Field:
    """Light on the sheet, at most 1: a lamp to one side and a cast shadow."""
    light: Field = np.ones(shape, np.float32)
    rows = np.linspace(-0.5, 0.5, shape[0], dtype=np.float32)[:, None]
    columns = np.linspace(-0.5, 0.5, shape[1], dtype=np.float32)
    if recipe.shade < 1:
        angle = random.uniform(0, 2 * np.pi)
        ramp = rows * np.float32(np.sin(angle)) + columns * np.float32(np.cos(angle))
        if random.random() < 0.5:
            ramp -= np.hypot(rows, columns)
        ramp = (ramp - ramp.min()) / np.ptp(ramp)
        light = recipe.shade + (1 - recipe.shade) * ramp
    if recipe.shadow < 1:
        angle = random.uniform(0, 2 * np.pi)
        ramp = rows * np.float32(np.sin(angle)) + columns * np.float32(np.cos(angle))
        ramp = ramp - np.float32(random.uniform(-0.35, 0.35))
        lit = (ramp / max(recipe.shadow_softness, 1 / max(shape)) + 0.5).clip(0, 1)
        light = light * (recipe.shadow + (1 - recipe.shadow) * lit)
    return light


def _dark_edges(picture: Colours, recipe: Recipe, random: Random) -> Colours:
    """What a scanner or a camera sees beside the page, on one to four edges."""
    height, width = picture.shape[:2]
    dark = random.uniform(0.0, 0.25)
    sides = random.permutation(4)[: random.integers(1, 5)]
    for side in sides:
        depth = recipe.border * min(height, width) * random.uniform(0.4, 1)
        slope = random.uniform(-0.03, 0.03)
        rows, columns = np.ogrid[:height, :width]
        away = (rows, width - 1 - columns, height - 1 - rows, columns)[side]
        along = (columns, rows)[side % 2]
        beside = (depth + slope * along - away + 0.5).clip(0, 1)[..., None].astype(np.float32)
        picture = picture * (1 - beside) + dark * beside
    return picture


def _photograph(picture: Colours, recipe: Recipe, margin: int, random: Random) -> Colours:
    """The middle of the sheet, seen askew."""
    width, height = recipe.width, recipe.height
    cosine, sine = np.cos(np.radians(recipe.turn)), np.sin(np.radians(recipe.turn))
    rows, targets = [], []
    for x, y in ((0, 0), (width, 0), (width, height), (0, height)):
        dx, dy = x - width / 2, y - height / 2
        jitter = random.uniform(-1, 1, 2) * recipe.perspective * (width, height)
        u = cosine * dx - sine * dy + width / 2 + margin + jitter[0]
        v = sine * dx + cosine * dy + height / 2 + margin + jitter[1]
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        targets += [u, v]
    coefficients = np.linalg.solve(np.array(rows), np.array(targets))
    pixels = Image.fromarray((picture.clip(0, 1) * 255).round().astype(np.uint8))
    seen = pixels.transform(
        (width, height), Image.Transform.PERSPECTIVE, tuple(coefficients), Image.Resampling.BICUBIC
    )
    return np.asarray(seen, np.float32) / 255


_TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def _save(picture: Colours, recipe: Recipe, random: Random) -> bytes:
    options: dict[str, Any] = {}
    if recipe.mode == "I;16":
        grey = picture.mean(axis=2)
        image = Image.fromarray((grey * 65535).round().astype(np.uint16))
    else:
        image = Image.fromarray((picture * 255).round().astype(np.uint8))
        if recipe.mode == "1":
            # Scanners and fax machines cut at a level, others scatter dots.
            dither = Image.Dither.FLOYDSTEINBERG if random.random() < 0.5 else Image.Dither.NONE
            image = image.convert("1", dither=dither)
        elif recipe.mode == "P":
            image = image.quantize(int(random.integers(4, 32)))
        elif recipe.mode != "RGB":
            image = image.convert(recipe.mode)
    if recipe.orientation > 1:
        image = image.transpose(_TURNED[recipe.orientation])
        exif = Image.Exif()
        exif[0x0112] = recipe.orientation
        options["exif"] = exif
    if recipe.kind in ("JPEG", "WEBP"):
        options["quality"] = recipe.quality
    return _encoded(image, recipe.kind, **options)


def _save_alpha(cover: Field, recipe: Recipe, random: Random) -> bytes:
    """Ink that is only in the alpha channel; the colour of what is invisible means nothing."""
    shade = 255 if recipe.mode == "light alpha" else int(random.integers(0, 80))
    layers = np.empty((*cover.shape, 4), np.uint8)
    layers[..., :3] = shade
    if random.random() < 0.5:
        layers[..., :3][cover == 0] = random.integers(256)
    layers[..., 3] = (cover * 255).round()
    return _encoded(Image.fromarray(layers), "PNG")


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    if kind == "PNG":
        options["compress_level"] = 1
    image.save(file, kind, **options)
    return file.getvalue()


def plain(random: Random) -> Recipe:
    """A drawing that nothing is wrong with, some 200 to 600 pixels large."""
    width = int(random.integers(200, 600))
    return Recipe(
        width=width,
        height=int(width * random.uniform(0.75, 1.33)),
        digit=random.uniform(0.4, 0.75),
        place=(random.uniform(0.2, 0.8), random.uniform(0.2, 0.8)),
    )


def _hue(random: Random, brightest: float, darkest: float) -> Colour:
    """A strong colour whose largest and smallest components are as told."""
    parts = [brightest, darkest, random.uniform(darkest, brightest)]
    red, green, blue = random.permutation(parts)
    return red, green, blue


def _luminance(colour: Colour) -> float:
    return float(np.dot(colour, (0.299, 0.587, 0.114)))


def _coloured(recipe: Recipe, random: Random) -> Recipe:
    while True:
        light = random.random() < 0.2
        ink = _hue(random, random.uniform(0.5, 0.9), random.uniform(0.0, 0.25))
        paper = _hue(random, random.uniform(0.85, 1.0), random.uniform(0.55, 0.85))
        # As different as ink and paper that someone writes with and sees.
        if abs(_luminance(ink) - _luminance(paper)) > 0.2:
            return replace(recipe, ink=paper if light else ink, paper=ink if light else paper)


def _lined(recipe: Recipe, random: Random, kind: str) -> Recipe:
    return replace(
        recipe,
        lines=kind,
        spacing=random.uniform(0.35, 1.3) if kind == "ruled" else random.uniform(0.2, 0.8),
        line_width=random.uniform(0.006, 0.02),
        line_strength=random.uniform(0.2, 0.6),
        slant=random.uniform(-2, 2) * (random.random() < 0.5),
    )


def _thumbnail(recipe: Recipe, random: Random) -> Recipe:
    side = int(random.integers(8, 13))
    dark = random.random() < 0.5
    ink, paper = ((0.0,) * 3, (1.0,) * 3) if dark else ((1.0,) * 3, (0.0,) * 3)
    return replace(
        recipe, width=side, height=side, digit=random.uniform(0.85, 1), place=(0.5, 0.5),
        ink=ink, paper=paper,
    )  # fmt: skip


def _extreme(recipe: Recipe, random: Random) -> Recipe:
    short, long = int(random.integers(60, 160)), int(random.integers(800, 1600))
    width, height = (short, long) if random.random() < 0.5 else (long, short)
    place = (random.uniform(0.05, 0.95), random.uniform(0.05, 0.95))
    return replace(recipe, width=width, height=height, digit=random.uniform(0.6, 0.85), place=place)


Nuisance = Callable[[Recipe, Random], Recipe]

NUISANCES: dict[str, Nuisance] = {
    "plain": lambda r, g: r,
    "light on dark": lambda r, g: replace(r, ink=(0.95,) * 3, paper=(g.uniform(0, 0.2),) * 3),
    "coloured": _coloured,
    "ruled paper": lambda r, g: _lined(r, g, "ruled"),
    "squared paper": lambda r, g: _lined(r, g, "squared"),
    "uneven light": lambda r, g: replace(r, shade=g.uniform(0.3, 0.6)),
    "shadow": lambda r, g: replace(
        r, shadow=g.uniform(0.45, 0.75), shadow_softness=float(g.choice([0.01, 0.05, 0.2]))
    ),
    "transparent, dark ink": lambda r, g: replace(r, mode="dark alpha"),
    "transparent, light ink": lambda r, g: replace(r, mode="light alpha"),
    "thick marker": lambda r, g: replace(r, swollen=g.uniform(0.015, 0.035)),
    "thin pen": lambda r, g: replace(r, pen=g.uniform(0.012, 0.03)),
    "small in a corner": lambda r, g: replace(
        r, width=int(g.integers(600, 1200)), height=int(g.integers(600, 1200)),
        digit=g.uniform(0.06, 0.12), place=(g.choice([0.04, 0.96]), g.choice([0.04, 0.96])),
    ),
    "cut off at the edge": lambda r, g: replace(
        r, cut=g.uniform(0.04, 0.1), edge=int(g.integers(4))
    ),
    "EXIF rotation": lambda r, g: replace(
        r, orientation=int(g.integers(1, 9)), kind=str(g.choice(["JPEG", "PNG", "WEBP"]))
    ),
    "JPEG blocks": lambda r, g: replace(r, kind="JPEG", quality=int(g.integers(3, 12))),
    "sensor noise": lambda r, g: replace(r, noise=g.uniform(0.05, 0.15)),
    "blur": lambda r, g: replace(r, blur=g.uniform(0.02, 0.05)),
    "16-bit scan": lambda r, g: replace(
        r, mode="I;16", kind=str(g.choice(["PNG", "TIFF"])), noise=0.02
    ),
    "thumbnail": _thumbnail,
    "broken strokes": lambda r, g: replace(r, gaps=int(g.integers(1, 4))),
    "scan edge": lambda r, g: replace(r, border=g.uniform(0.02, 0.08)),
    "specks": lambda r, g: replace(r, specks=int(g.integers(5, 40))),
    "low contrast": lambda r, g: replace(
        r, ink=(g.uniform(0.55, 0.65),) * 3, paper=(g.uniform(0.74, 0.8),) * 3, noise=0.01
    ),
    "paper texture": lambda r, g: replace(r, texture=g.uniform(0.02, 0.05)),
    "phone photo": lambda r, g: replace(
        r, kind="JPEG", quality=80, turn=g.uniform(-15, 15), perspective=g.uniform(0.03, 0.1),
        shade=g.uniform(0.6, 0.95), noise=0.02, blur=0.008, paper=(0.8, 0.78, 0.72),
    ),
    "huge": lambda r, g: replace(
        r, width=3000, height=2000, digit=g.uniform(0.2, 0.7),
        kind=str(g.choice(["JPEG", "PNG"])), pen=g.uniform(0.015, 0.06),
    ),
    "extreme aspect": _extreme,
    "1-bit": lambda r, g: replace(r, mode="1"),
    "palette": lambda r, g: replace(r, mode="P", kind=str(g.choice(["PNG", "GIF"]))),
    "CMYK JPEG": lambda r, g: replace(r, mode="CMYK", kind="JPEG"),
}  # fmt: skip

# What may come together in one picture: at most one of each row.
_TOGETHER = (
    ("light on dark", "coloured", "low contrast"),
    ("thick marker", "thin pen", "broken strokes"),
    ("ruled paper", "squared paper", "paper texture"),
    ("uneven light", "shadow"),
    ("specks", "scan edge"),
    ("phone photo", "small in a corner", "extreme aspect"),
    ("sensor noise", "blur"),
    ("JPEG blocks", "EXIF rotation", "palette", "16-bit scan", "CMYK JPEG"),
)
MIXED = "mixed"


def mixed(random: Random) -> Recipe:
    """Three to five nuisances in one picture, each milder than it may be alone."""
    recipe = start = plain(random)
    for row in sorted(random.permutation(len(_TOGETHER))[: random.integers(3, 6)]):
        alone = NUISANCES[random.choice(_TOGETHER[row])](start, random)
        changed = {k: v for k, v in vars(alone).items() if v != getattr(start, k)}
        if recipe.paper != start.paper:  # as a photo's, which is grey
            changed.pop("paper", None)
        recipe = replace(recipe, **changed)
    # Nobody reads what is small and faint under noise, or lies beneath a dark edge.
    if recipe.digit < 0.2:
        recipe = replace(recipe, digit=random.uniform(0.12, 0.2))
    if abs(_luminance(recipe.ink) - _luminance(recipe.paper)) < 0.35:
        recipe = replace(recipe, digit=max(recipe.digit, 0.35), noise=0.02, texture=0.0)
    if recipe.border:
        place = (float(np.clip(along, 0.25, 0.75)) for along in recipe.place)
        long = max(recipe.width, recipe.height) > 2 * min(recipe.width, recipe.height)
        recipe = replace(
            recipe,
            place=(next(place), next(place)),
            digit=min(recipe.digit, 0.6),
            border=0.0 if long else recipe.border,
        )
    return replace(
        recipe,
        noise=recipe.noise / 2,
        blur=recipe.blur / 2,
        quality=max(recipe.quality, 15),
        mode=recipe.mode if recipe.kind != "JPEG" or recipe.mode == "CMYK" else "RGB",
    )


def user_pictures(digits: NDArray[np.uint8], name: str, seed: int = 0) -> Iterator[bytes]:
    """Each of the digits (N, 28, 28) as an image file with one nuisance, alike for the same seed.

    Raises:
        KeyError: there is no such nuisance: neither a key of `NUISANCES` nor `MIXED`.
    """
    random = np.random.default_rng([seed, *name.encode()])
    for digit in digits:
        recipe = mixed(random) if name == MIXED else NUISANCES[name](plain(random), random)
        yield user_picture(digit, recipe, random)
