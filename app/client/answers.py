"""What the service answers, made of its JSON; other JSON raises KeyError or TypeError."""

from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model reads in one image."""

    digit: int | None  # the label as a number, if it is one
    label: str
    confidence: float
    probabilities: tuple[float, ...]
    recognized: bool
    novelty: float

    @classmethod
    def of(cls, answer: dict[str, Any]) -> Self:
        """From /predict, or from a part of another answer."""
        return cls(
            digit=answer.get("digit"),
            label=answer["label"],
            confidence=answer["confidence"],
            probabilities=tuple(answer["probabilities"]),
            recognized=answer["recognized"],
            novelty=answer["novelty"],
        )

    @property
    def numbers(self) -> dict[str, int | None]:
        """That the label stands for, by name."""
        return {"digit": self.digit}


@dataclass(frozen=True, slots=True)
class BlockAttention:
    """Where one block's latents looked; maps are rows of numbers that sum to 1."""

    mean: list[list[float]]
    latents: list[list[list[float]]]


@dataclass(frozen=True, slots=True)
class Explanation:
    """A prediction, what the model saw, where it looked, and the ink that the answer rests on."""

    prediction: Prediction
    input: list[list[int]]
    attention: list[list[float]]  # mean of all blocks and latents
    blocks: tuple[BlockAttention, ...]
    attribution: list[list[float]]  # nats; see `method`
    method: str

    @classmethod
    def of(cls, answer: dict[str, Any]) -> Self:
        """From /explain."""
        attention, attribution = answer["attention"], answer["attribution"]
        return cls(
            prediction=Prediction.of(answer),
            input=answer["input"],
            attention=attention["mean"],
            blocks=tuple(
                BlockAttention(block["mean"], block["latents"]) for block in attention["blocks"]
            ),
            attribution=attribution["map"],
            method=attribution["method"],
        )


@dataclass(frozen=True, slots=True)
class Box:
    """In pixels of the upright picture, from its top left corner."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class PlacedPart:
    """One part of a picture, such as a digit of a number."""

    prediction: Prediction
    box: Box


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a picture."""

    text: str
    confidence: float
    digits: tuple[PlacedPart, ...]


@dataclass(frozen=True, slots=True)
class Number:
    """What a picture says."""

    text: str
    lines: tuple[Line, ...]
    width: int
    height: int

    @classmethod
    def of(cls, answer: dict[str, Any]) -> Self:
        """From /read."""
        lines = tuple(
            Line(
                line["text"],
                line["confidence"],
                tuple(
                    PlacedPart(Prediction.of(part), Box(**part["box"])) for part in line["digits"]
                ),
            )
            for line in answer["lines"]
        )
        return cls(answer["text"], lines, answer["width"], answer["height"])


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on requests."""

    max_bytes: int
    max_pixels: int
    max_files: int
    max_body_bytes: int


@dataclass(frozen=True, slots=True)
class Metadata:
    """The model and what serves it."""

    name: str
    version: str
    labels: tuple[str, ...]
    engine: str
    device: str
    limits: Limits
    card: dict[str, Any]

    @classmethod
    def of(cls, answer: dict[str, Any]) -> Self:
        """From /metadata."""
        card, engine, limits = answer["card"], answer["engine"], answer["limits"]
        return cls(
            name=card["name"],
            version=card["version"],
            labels=tuple(card["labels"]),
            engine=engine["name"],
            device=engine["device"],
            limits=Limits(**{name: int(limits[name]) for name in Limits.__dataclass_fields__}),
            card=card,
        )
