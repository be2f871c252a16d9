"""Ray Serve with its batching: https://docs.ray.io/en/latest/serve/advanced-guides/dyn-req-batch.html."""

import sys
import time

import numpy as np
import ray
from ray import serve
from starlette.requests import Request

from bench.peer_apps.reader import MAX_BATCH, Reader


@serve.deployment(max_ongoing_requests=100)
class Digits:
    def __init__(self) -> None:
        self.reader = Reader()

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=0.005)
    async def read(self, images: list[np.ndarray]) -> list[dict]:
        return self.reader.read(np.stack(images))

    async def __call__(self, request: Request) -> dict:
        form = await request.form()
        return await self.read(self.reader.pixels(await form["file"].read()))


if __name__ == "__main__":
    ray.init(include_dashboard=False, logging_level="ERROR", configure_logging=False)
    serve.start(http_options={"port": int(sys.argv[1])})
    serve.run(Digits.bind(), route_prefix="/predict")
    while True:
        time.sleep(1)
