"""`perceiver predict`: reads image files, here or by a service, and prints what they say."""

import argparse
import asyncio
import glob
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from pydantic import ValidationError

from app.inference.engines import EngineError
from app.inference.predictor import Classification, load_predictor
from app.settings import Settings
from model.checkpoint.config import validation_sentence
from model.checkpoint.folder import CheckpointError
from model.modalities import MODALITIES, InputError, find

if TYPE_CHECKING:  # httpx, which it needs, may not be installed
    from app.client import Prediction as PredictionOfService

PURPOSE = "print the label of each of some image files"
EXIT_CODES = """\
exit code:
  0  all images were read
  1  an image could not be read; the others were
  2  nothing was read: wrong usage, no image, no model
  3  nothing was read: the service cannot be reached, or refuses

Prints a table on a terminal and one JSON object per line elsewhere."""
READ_ALL, SOME_FAILED, NOTHING_TO_DO, NO_SERVICE = range(4)

STDIN = "-"
AT_ONCE = 64  # images in memory

# Of a prediction, in the JSON that is printed.
FIELDS = ("label", "confidence", "probabilities", "recognized", "novelty")

_Outcome: TypeAlias = "Classification | PredictionOfService | Exception"
_Predict = Callable[[Sequence[bytes]], Sequence[_Outcome]]


class _RefusalError(Exception):
    """Nothing can be read at all."""

    def __init__(self, sentence: str, code: int = NOTHING_TO_DO) -> None:
        super().__init__(sentence)
        self.code = code


def main(argv: Sequence[str]) -> int:
    """Command line; see `EXIT_CODES`."""
    parser = argparse.ArgumentParser(
        prog="perceiver predict",
        description=PURPOSE.capitalize() + ".",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "images",
        nargs="*",
        metavar="IMAGE",
        help="image file, folder (all images in it), pattern such as 'scans/*.png', or - for one "
        "image on standard input, which is also read where none is named",
    )
    parser.add_argument("--weights", type=Path, help="checkpoint folder to read with, here")
    parser.add_argument("--url", help="service to read with, such as http://127.0.0.1:8000")
    parser.add_argument("--api-key", help="of the service; default $PERCEIVER_API_KEY")
    parser.add_argument(
        "--format", choices=("table", "json"), help="default: table on a terminal, else json"
    )
    options = parser.parse_args(argv)
    if options.url and options.weights:
        parser.error("--weights is of no use with --url: the service has its own")
    given = options.images or ([] if sys.stdin.isatty() else [STDIN])
    if not given:
        parser.error("name an image")
    table = options.format == "table" or (options.format is None and sys.stdout.isatty())
    try:
        names = [name for argument in given for name in _expanded(argument)]
        key = options.api_key or os.environ.get("PERCEIVER_API_KEY")
        predict = _remote(options.url, key) if options.url else _local(options.weights)
        return _print_all(names, predict, table)
    except _RefusalError as refusal:
        print(f"perceiver predict: {refusal}", file=sys.stderr)
        return refusal.code


def _print_all(names: Sequence[str], predict: _Predict, table: bool) -> int:
    failed = False
    width = max(len(name) for name in names)
    if table:
        print(f"{'image':<{width}}  label  confidence")
    for name, outcome in _outcomes(names, predict):
        if isinstance(outcome, Exception):
            failed = True
            print(f"perceiver predict: {name}: {outcome}", file=sys.stderr)
            if not table:
                print(json.dumps({"image": name, "error": str(outcome)}))
        elif table:
            doubt = "" if outcome.recognized else "  looks like none of the labels"
            print(f"{name:<{width}}  {outcome.label:>5}  {outcome.confidence:>10.2%}{doubt}")
        else:
            fields = {field: getattr(outcome, field) for field in FIELDS}
            print(json.dumps({"image": name, **outcome.numbers, **fields}), flush=True)
    return SOME_FAILED if failed else READ_ALL


def _outcomes(names: Sequence[str], predict: _Predict) -> Iterator[tuple[str, _Outcome]]:
    """Each image's name with its prediction, or with what keeps it from one."""
    for start in range(0, len(names), AT_ONCE):
        part = names[start : start + AT_ONCE]
        contents = [_content(name) for name in part]
        predictions = iter(predict([each for each in contents if isinstance(each, bytes)]))
        for name, content in zip(part, contents, strict=True):
            yield name, next(predictions) if isinstance(content, bytes) else content


def _expanded(argument: str) -> Sequence[str]:
    """The image files that an argument stands for."""
    path = Path(argument)
    if path.is_dir():
        suffixes = {suffix for name in MODALITIES for suffix in find(name).suffixes}
        found = [str(file) for file in path.rglob("*") if file.suffix.lower() in suffixes]
        lack = f"there are no images in the folder {argument}"
    elif glob.has_magic(argument) and not path.exists():
        found = [file for file in glob.glob(argument, recursive=True) if Path(file).is_file()]
        lack = f"no file matches {argument}"
    else:
        return [argument]
    if not found:
        raise _RefusalError(lack)
    return sorted(found)


def _content(name: str) -> bytes | OSError:
    try:
        return sys.stdin.buffer.read() if name == STDIN else Path(name).read_bytes()
    except OSError as error:
        return OSError(error.strerror or str(error))


def _local(weights: Path | None) -> _Predict:
    """Predicts with a checkpoint, in this process."""
    try:
        predictor = load_predictor(Settings(weights=weights) if weights else Settings())
    except ValidationError as error:
        raise _RefusalError(validation_sentence(error)) from None
    except (CheckpointError, EngineError) as error:
        raise _RefusalError(str(error)) from None

    async def predict_all(images: Sequence[bytes]) -> list[_Outcome]:
        outcomes: list[_Outcome] = []
        for image in images:
            try:  # the user's own files need no process that can be killed
                sample = predictor.modality.decode(image, predictor.limits)
            except InputError as error:
                outcomes.append(error)
                continue
            values = predictor.modality.prepare(sample, predictor.card.input)
            outcomes += await predictor.predict_arrays([values], deadline=math.inf)
        return outcomes

    runner = asyncio.Runner()
    return lambda images: runner.run(predict_all(images))


def _remote(url: str, api_key: str | None) -> _Predict:
    """Predicts by a service."""
    try:
        from app.client import Client, ClientError
    except ModuleNotFoundError as error:
        lack = f"--url needs {error.name}, which is not installed: pip install {error.name}"
        raise _RefusalError(lack) from None
    client = Client(url, api_key=api_key)

    def predict_all(images: Sequence[bytes]) -> Sequence[_Outcome]:
        try:
            return client.predict_batch(images)
        except ClientError as error:
            raise _RefusalError(str(error), NO_SERVICE) from None

    return predict_all
