"""The FastAPI app that most people write: one endpoint, eager PyTorch."""

from fastapi import FastAPI, UploadFile

from bench.peer_apps.reader import Reader

app = FastAPI()
reader = Reader()


@app.post("/predict")
def predict(file: UploadFile) -> dict[str, object]:
    return reader.read(reader.pixels(file.file.read())[None])[0]
