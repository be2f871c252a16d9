"""BentoML with adaptive batching: https://docs.bentoml.com/en/latest/get-started/adaptive-batching.html."""

import bentoml
import numpy as np
from PIL.Image import Image

from bench.peer_apps.reader import MAX_BATCH, Reader
from model.modalities.digits.form import prepare


@bentoml.service(traffic={"timeout": 30})
class Digits:
    def __init__(self) -> None:
        self.reader = Reader()

    @bentoml.api(route="/predict", batchable=True, max_batch_size=MAX_BATCH, max_latency_ms=1000)
    def predict(self, file: list[Image]) -> list[dict]:
        spec = self.reader.spec
        return self.reader.read(np.stack([prepare(image, spec) for image in file]))
