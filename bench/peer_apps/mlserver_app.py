"""MLServer with adaptive batching: https://mlserver.readthedocs.io/en/latest/user-guide/adaptive-batching.html.

Its protocol carries tensors, not images: it is sent the 784 pixels, and decodes nothing.
"""

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from bench.peer_apps.reader import Reader


class Digits(MLModel):
    async def load(self) -> bool:
        self.reader = Reader()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        images = self.decode(payload.inputs[0], default_codec=NumpyCodec)
        answers = self.reader.read(np.asarray(images, np.uint8).reshape(-1, 1, 28, 28))
        rows = np.array([answer["probabilities"] for answer in answers])
        return InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output("probabilities", rows)]
        )
