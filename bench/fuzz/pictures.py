"""Broken picture files: foretold, decoded and prepared as the service does it."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from numpy.typing import NDArray

from app.inference.decoder_process import within_limits
from app.settings import Settings
from bench.fuzz.trials import PROMISES, Meter, Tally, resident_mib, where
from model.modalities import InputError, Limits, find
from model.modalities.digits.modality import SPEC
from model.modalities.picture_header import TINY_PIXELS, read_header
from tests.conftest import encode
from tests.digits import load_digits
from tests.mutations.pictures import costly_seeds, mutant

# A decoder that takes as much memory as it may is stopped there.
REFUSED_FOR_MEMORY = "stopped for its memory"


class Pictures:
    """Tries pictures within the limits of a decoder process, which SIGPROF may end."""

    def __init__(self) -> None:
        costly_seeds()  # made while this process may still take what it likes
        settings = Settings()
        self._limits = Limits(settings.max_pixels)
        self._cpu_s, self._memory = settings.max_decode_cpu_s, settings.max_decode_bytes
        self._modality = find("digits")
        self._good = encode(load_digits()[0][0])
        self._right = self._read(self._good)[1]

    def try_all(self, numbers: range, on_next: Callable[[int], None]) -> Tally:
        """Tries each."""
        meter, tally = Meter(), Tally()
        for number in numbers:
            on_next(number)
            content = mutant(number)
            with meter.measure() as taken:
                outcome, pause_s = self._try(content, number, tally)
            tally.outcomes[outcome] += 1
            tally.cost(number, PROMISES["pictures"], pause_s=pause_s, **taken)
        if (self._read(self._good)[1] != self._right).any():
            tally.find(numbers[-1], "after it a good picture is read otherwise than before")
        tally.resident_mib = resident_mib()
        return tally

    def _try(self, content: bytes, number: int, tally: Tally) -> tuple[str, float]:
        """What becomes of it, and how long the event loop would take for its part."""
        begun = time.process_time()
        is_tiny = foretold = False
        try:
            is_tiny = self._modality.cost(content, self._limits).is_tiny
            foretold = True
        except InputError as error:
            outcome = type(error).__name__
        except Exception as error:
            tally.find(number, f"cost: {where(error)}")
        pause_s = time.process_time() - begun
        try:
            call = partial(self._read, content)
            result = within_limits(call, self._cpu_s, self._memory).value
            if isinstance(result, InputError):
                raise result
            (width, height), prepared = result
            outcome = "read"
            if prepared.shape != (1, 28, 28) or prepared.dtype != SPEC.dtype:
                tally.find(number, f"prepared as {prepared.shape} of {prepared.dtype}")
            if not foretold:
                tally.find(number, "is decoded, though its header is refused")
            header = read_header(content, self._limits.pixels)
            most = TINY_PIXELS if is_tiny else header.width * header.height
            if width * height > most:
                tally.find(number, f"has {width} x {height} pixels, more than {most} foretold")
        except InputError as error:
            outcome = type(error).__name__
            if "memory" in str(error):
                outcome = REFUSED_FOR_MEMORY
        except Exception as error:
            outcome = "unexpected"
            tally.find(number, where(error))
        return outcome, time.process_time() - begun if is_tiny else pause_s

    def _read(self, content: bytes) -> tuple[tuple[int, int], NDArray[Any]]:
        """Size of the whole picture, and what the network gets."""
        picture = self._modality.decode(content, self._limits)
        return picture.info.get("size", picture.size), self._modality.prepare(picture, SPEC)
