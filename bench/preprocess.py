"""Time from file to model input, by size and format: `python -m bench.preprocess`.

On one core. For each file the fastest of many runs, the least that another program on the machine
can have added to; of each row's files the median and the slowest.
"""

import argparse
from dataclasses import replace
from io import BytesIO
from statistics import median
from time import perf_counter

import numpy as np
from PIL import Image

from model.modalities.digits.form import prepare
from model.modalities.digits.modality import SPEC
from model.modalities.digits.synthetic.user_pictures import NUISANCES, plain, user_picture
from model.modalities.pillow import load_upright
from tests.digits import load_digits

SIZES = ((28, 28), (128, 128), (512, 512), (1024, 768), (3000, 2000))
NAMES = ("plain", "phone photo", "squared paper", "sensor noise")
FILES = 4


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=15, help="of each file (%(default)s)")
    runs = parser.parse_args().runs
    digits, _ = load_digits()
    print(f"{'':38}{'decode, ms':>16}{'prepare, ms':>18}")
    print(
        f"{'size':<12}{'format':<8}{'picture':<18}{'median':>8}{'max':>8}{'median':>10}{'max':>8}"
    )
    for width, height in SIZES:
        for kind in ("PNG", "JPEG"):
            for name in NAMES:
                random = np.random.default_rng(0)
                times = []
                for digit in digits[:FILES]:
                    recipe = NUISANCES[name](plain(random), random)
                    recipe = replace(recipe, width=width, height=height, kind=kind)
                    times.append(fastest(user_picture(digit, recipe, random), runs))
                cells = [f(column) for column in zip(*times, strict=True) for f in (median, max)]
                print(
                    f"{f'{width}x{height}':<12}{kind:<8}{name:<18}"
                    f"{cells[0]:>8.2f}{cells[1]:>8.2f}{cells[2]:>10.2f}{cells[3]:>8.2f}",
                    flush=True,
                )


def fastest(content: bytes, runs: int) -> tuple[float, float]:
    """Milliseconds for decoding and for preparing a file."""
    decoding, preparing = [], []
    for _ in range(runs):
        started = perf_counter()
        picture = load_upright(Image.open(BytesIO(content)))
        decoded = perf_counter()
        prepare(picture, SPEC)
        decoding.append(decoded - started)
        preparing.append(perf_counter() - decoded)
    return min(decoding) * 1e3, min(preparing) * 1e3


if __name__ == "__main__":
    main()
