"""An explanation as a picture that a person can read."""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from app.inference.explainer import Explanation

PANEL = 224  # pixels a side: eight to one of the model's
GAP = 24
CAPTION = 44
MARGIN = 24
ANSWER = 150
PAPER, INK, MUTED, ACCENT = "#ffffff", "#1b1b1f", "#6b6b76", "#d8401c"
# Colours of a map's values from 0 to 1.
GLOW = ((255, 255, 255), (255, 226, 150), (255, 153, 51), (216, 64, 28), (92, 12, 32))
FOR = ((255, 255, 255), (255, 186, 150), (216, 64, 28), (110, 16, 24))
AGAINST = ((255, 255, 255), (160, 196, 255), (40, 96, 216), (12, 32, 110))


def draw(explanation: Explanation, uploaded: Image.Image, labels: Sequence[str]) -> bytes:
    """What was uploaded, what the model saw, where it looked, what counted, what it answered.

    Args:
        explanation: of the picture uploaded.
        uploaded: upright, in RGBA, of any size.
        labels: class names in the order of the probabilities.

    Returns: a PNG file.
    """
    maps, ink = explanation.maps, explanation.values.max(axis=0)
    looked = maps.attention.mean(axis=(0, 1))
    glow = _coloured(looked / looked.max(), GLOW)
    shares = maps.attribution / max(float(np.abs(maps.attribution).max()), 1e-6)
    counted = np.where(
        (shares >= 0)[..., None], _coloured(shares, FOR), _coloured(-shares, AGAINST)
    )
    panels = [
        ("Uploaded", "", _fitted(uploaded)),
        ("What the model saw", f"{ink.shape[1]} x {ink.shape[0]} pixels", _enlarged(255 - ink)),
        ("Where it looked", "attention: the darker, the more", _over(ink, glow)),
        ("What the answer rests on", "ink for it red, against it blue", _over(ink, counted)),
    ]
    width = 2 * MARGIN + len(panels) * PANEL + (len(panels) - 1) * GAP
    canvas = Image.new("RGB", (width, 2 * MARGIN + CAPTION + PANEL + ANSWER), PAPER)
    pen = ImageDraw.Draw(canvas)
    for index, (title, subtitle, panel) in enumerate(panels):
        left, top = MARGIN + index * (PANEL + GAP), MARGIN
        pen.text((left, top), title, INK, _font(16))
        pen.text((left, top + 21), subtitle, MUTED, _font(12))
        canvas.paste(panel, (left, top + CAPTION))
        box = (left - 1, top + CAPTION - 1, left + PANEL, top + CAPTION + PANEL)
        pen.rectangle(box, outline="#d5d5dc")
    _answer(pen, explanation, labels, width, MARGIN + CAPTION + PANEL + 20)
    file = io.BytesIO()
    canvas.save(file, "PNG")
    return file.getvalue()


def _answer(
    pen: ImageDraw.ImageDraw, explanation: Explanation, labels: Sequence[str], width: int, top: int
) -> None:
    """The label, large, its confidence, and a bar per class; paler where it is not recognized."""
    prediction = explanation.prediction
    ink, accent = (INK, ACCENT) if prediction.recognized else (MUTED, MUTED)
    pen.text((MARGIN, top), prediction.label, ink, _font(84))
    if not prediction.recognized:
        pen.text((MARGIN, top + 100), "This looks like none of the labels", ACCENT, _font(14))
    left = MARGIN + max(72, round(pen.textlength(prediction.label, _font(84))) + 24)
    pen.text((left, top + 36), _percent(prediction.confidence), ink, _font(28))
    pen.text((left, top + 72), "confidence", MUTED, _font(13))
    left += 130
    step = (width - MARGIN - left) / len(labels)
    height = 70
    for index, probability in enumerate(prediction.probabilities):
        start = left + index * step
        colour = accent if labels[index] == prediction.label else "#b9b9c3"
        base = top + height + 12
        bar = (start, base - max(1, height * probability), start + 0.7 * step, base)
        pen.rectangle(bar, fill=colour)
        middle = start + 0.35 * step
        pen.text((middle, base + 14), labels[index], INK, _font(14), anchor="mm")
        percent = _percent(probability) if probability >= 0.005 else ""
        pen.text((middle, base + 32), percent, MUTED, _font(11), anchor="mm")


def _percent(share: float) -> str:
    """Never 100 % of what is not certain."""
    if share < 1:
        share = min(share, 0.999)
    return f"{share:.1%}" if share < 0.1 or share >= 0.99 else f"{share:.0%}"


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _fitted(picture: Image.Image) -> Image.Image:
    """Onto a square panel, the aspect kept; what is transparent is white."""
    scale = PANEL / max(picture.size)
    width, height = (max(1, round(length * scale)) for length in picture.size)
    smooth = Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST
    picture = picture.resize((width, height), smooth)
    panel = Image.new("RGBA", (PANEL, PANEL), PAPER)
    panel.alpha_composite(picture, ((PANEL - width) // 2, (PANEL - height) // 2))
    return panel.convert("RGB")


def _enlarged(pixels: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(pixels).resize((PANEL, PANEL), Image.Resampling.NEAREST).convert("RGB")


def _coloured(
    values: NDArray[np.float32], colours: Sequence[tuple[int, int, int]]
) -> NDArray[np.float32]:
    """Values (H, W), 0 to 1 -> colours (H, W, 3), 0 to 255."""
    stops = np.linspace(0, 1, len(colours))
    # The root shows what is faint too.
    channels = [
        np.interp(np.sqrt(values.clip(0)), stops, channel) for channel in zip(*colours, strict=True)
    ]
    return np.stack(channels, axis=-1).astype(np.float32)


def _over(ink: NDArray[np.uint8], colours: NDArray[np.float32]) -> Image.Image:
    """Colours with the strokes as a darker shade of them."""
    shade = 1 - 0.45 * (ink.astype(np.float32) / 255)[..., None]
    pixels = (colours * shade).round().astype(np.uint8)
    return Image.fromarray(pixels).resize((PANEL, PANEL), Image.Resampling.NEAREST)
