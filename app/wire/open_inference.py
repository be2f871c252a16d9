"""JSON bodies of the Open Inference Protocol's answers, whose tensors `app.wire.tensors` writes."""

from typing import Literal

from pydantic import Field, JsonValue

from app.wire.answers import Answer, example


class InferError(Answer):
    """An error of the Open Inference Protocol."""

    model_config = example(error="the model is not loaded")

    error: str = Field(description="what happened and what would help")


class InferLive(Answer):
    """Answer of /v2/health/live where all is well."""

    model_config = example(live=True)

    live: Literal[True] = True


class InferReady(Answer):
    """Answer of /v2/health/ready where all is well."""

    model_config = example(ready=True)

    ready: Literal[True] = True


class InferServer(Answer):
    """Answer of /v2."""

    model_config = example(
        name="perceiver-serve", version="0.1.0", extensions=["binary_tensor_data"]
    )

    name: str = "perceiver-serve"
    version: str
    extensions: list[str] = Field(["binary_tensor_data"])


class InferTensor(Answer):
    """A tensor of the model."""

    name: str
    datatype: str = Field(description="UINT8, INT64, FP32 or BYTES")
    shape: list[int] = Field(description="-1 is the number of images")


class InferModel(Answer):
    """Answer of /v2/models/NAME."""

    model_config = example(
        name="perceiver-mnist",
        versions=["1.0.0"],
        platform="onnxruntime",
        inputs=[{"name": "picture", "datatype": "BYTES", "shape": [-1]}],
        outputs=[{"name": "digit", "datatype": "INT64", "shape": [-1]}],
    )

    name: str
    versions: list[str]
    platform: str = Field(description="what computes")
    inputs: list[InferTensor]
    outputs: list[InferTensor]


class InferModelReady(Answer):
    """Answer of /v2/models/NAME/ready where all is well."""

    model_config = example(name="perceiver-mnist", ready=True)

    name: str
    ready: Literal[True] = True


class InferData(InferTensor):
    """A tensor with its values."""

    parameters: dict[str, JsonValue] | None = Field(
        None, description="`binary_data_size`: bytes of the values after the JSON"
    )
    data: list[JsonValue] | None = Field(
        None, description="the values, row by row, where they are in the JSON"
    )


class InferAnswer(Answer):
    """Answer of /v2/models/NAME/infer."""

    model_config = example(
        model_name="perceiver-mnist",
        model_version="1.0.0",
        id="42",
        outputs=[{"name": "digit", "datatype": "INT64", "shape": [1], "data": [7]}],
    )

    model_name: str
    model_version: str
    id: str | None = Field(None, description="the caller's own, if sent")
    outputs: list[InferData]
