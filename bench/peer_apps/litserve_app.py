"""LitServe with its batching: https://lightning.ai/docs/litserve/features/batching."""

import sys

import litserve
import numpy as np

from bench.peer_apps.reader import MAX_BATCH, Reader


class Digits(litserve.LitAPI):
    def setup(self, device):
        self.reader = Reader()

    def decode_request(self, request):
        return self.reader.pixels(request["file"].file.read())

    def batch(self, inputs):
        return np.stack(inputs)

    def predict(self, batch):
        return self.reader.read(batch)

    def unbatch(self, output):
        return output

    def encode_response(self, output):
        return output


if __name__ == "__main__":
    api = Digits(max_batch_size=MAX_BATCH, batch_timeout=0.005)
    server = litserve.LitServer(api, accelerator="cpu")
    server.run(port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
