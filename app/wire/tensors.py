"""The wire format of the Open Inference Protocol v2 over REST, with its binary tensor data.

https://github.com/kserve/open-inference-protocol (specification/protocol/inference_rest.md), and
Triton's extension `binary_tensor_data`: the body is JSON, then the tensors' bytes in the order of
the JSON, little-endian and row-major. Knows no model, and nothing of HTTP but its bodies.
"""

import base64
import json
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError
from pydantic_core import from_json

from model.checkpoint.config import validation_sentence

JSON_LENGTH = "Inference-Header-Content-Length"  # header with the bytes of JSON, if more follows

Datatype = Literal["UINT8", "BYTES", "FP32", "INT64"]
Values = NDArray[np.uint8] | list[bytes]

_NUMPY: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "INT64": np.dtype("<i8")}
_LENGTH = struct.Struct("<I")
_MOST_TENSORS = 16  # named in one request; no model has more
# JSON has more commas and brackets than values, but not by this factor.
_JSON_OVERHEAD = 2
_JSON_FLOOR = 10_000
# Python keeps a string with one wide character at two or four bytes for each of its characters.
_MOST_WIDE = 16 * 2**20  # bytes of JSON that may hold such

_QUOTED = 48  # characters of what a caller sent that an error tells, at most

_Count = Annotated[int, Field(ge=0, lt=2**63)]


class WireError(Exception):
    """The request is not as the protocol has it; the message tells its sender why."""


class TooLargeError(WireError):
    """There are more images in the batch than may be, or more values in the JSON."""


@dataclass(frozen=True)
class TensorSpec:
    """A tensor as a model's metadata declares it; -1 in the shape is the batch."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Inputs:
    """What a request brings.

    Attributes:
        id: the caller's own name of the request.
        name: of the input.
        values: (B, ...) of a UINT8 tensor, B byte strings of a BYTES tensor.
        outputs: name -> whether it is wanted in binary form, in the order wanted.
        timeout_us: within which the answer is of use, None where that is not said.
    """

    id: str | None
    name: str
    values: Values
    outputs: Mapping[str, bool]
    timeout_us: int | None


class _Parameters(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", defer_build=True)

    def model_post_init(self, context: object) -> None:
        if any(name.startswith("shared_memory") for name in self.model_extra or ()):
            raise WireError("shared memory is not supported; send the tensor in the body")


class _InputParameters(_Parameters):
    binary_data_size: _Count | None = None


class _OutputParameters(_Parameters):
    binary_data: bool | None = None


class _RequestParameters(_Parameters):
    binary_data_output: bool = False
    timeout: _Count | None = None


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, defer_build=True)


class _Input(_Part):
    name: str
    shape: Annotated[list[_Count], Field(max_length=8), FailFast()]
    datatype: str
    parameters: _InputParameters = Field(default_factory=_InputParameters)
    data: list[Any] | None = None


class _Output(_Part):
    name: str
    parameters: _OutputParameters = Field(default_factory=_OutputParameters)


class _Request(_Part):
    model_config = ConfigDict(title="body")

    id: str | None = Field(None, max_length=1024)
    parameters: _RequestParameters = Field(default_factory=_RequestParameters)
    inputs: list[_Input] = Field(min_length=1, max_length=_MOST_TENSORS)
    outputs: list[_Output] = Field([], max_length=_MOST_TENSORS)


@dataclass(frozen=True)
class Reader:
    """Reads requests to a model.

    Args:
        inputs: of the model, each of datatype UINT8 or BYTES with a batch as first dimension; a
            request brings one of them.
        outputs: of the model.
        max_rows: in a batch.
    """

    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    max_rows: int

    def read(self, body: bytes | bytearray, json_length: int | None) -> Inputs:
        """Parses a request.

        Args:
            body: JSON, then the tensors' bytes.
            json_length: bytes of JSON; None: all of them.

        Raises:
            WireError: it is malformed, or not what the model takes.
        """
        if json_length is None:
            json_length = len(body)
        if not 0 <= json_length <= len(body):
            raise WireError(f"{JSON_LENGTH} is {json_length}, the body has {len(body)} bytes")
        # Not copied where it is large: it may be all of the body.
        request = self._parse(body if json_length == len(body) else body[:json_length])
        if len(request.inputs) > 1:
            names = " or ".join(repr(spec.name) for spec in self.inputs)
            raise WireError(f"there are {len(request.inputs)} inputs; send one, {names}")
        (given,) = request.inputs
        blob, size = memoryview(body)[json_length:], given.parameters.binary_data_size
        if len(blob) != (size or 0):
            raise WireError(
                f"the binary_data_size is {size or 0}, but {len(blob)} bytes follow the JSON"
            )
        spec = _find(given.name, self.inputs, "input")
        values = self._values(given, spec, None if size is None else blob)
        outputs = self._choose(request.outputs, request.parameters.binary_data_output)
        timeout_us = request.parameters.timeout or None  # 0 is Triton's "as the server likes"
        return Inputs(request.id, spec.name, values, outputs, timeout_us)

    def _parse(self, text: bytes | bytearray) -> _Request:
        # Lists of small values take much more room in memory than here: bound their number first.
        largest = max(math.prod(spec.shape[1:]) for spec in self.inputs) * self.max_rows
        limit = largest * _JSON_OVERHEAD + _JSON_FLOOR
        if sum(text.count(mark) for mark in (b",", b"[", b"{")) > limit:
            raise TooLargeError(f"the JSON has more than {limit:,} values")
        if len(text) > _MOST_WIDE and _has_wide_characters(text):
            raise WireError(f"JSON of more than {_MOST_WIDE:,} bytes must be plain ASCII")
        try:
            # Parsed first: pydantic would copy what is wrong with the JSON once for each error.
            return _Request.model_validate(from_json(text))
        except ValidationError as error:
            raise WireError(f"not an inference request: {validation_sentence(error)}") from None
        except ValueError as error:
            raise WireError(f"not an inference request: Invalid JSON: {error}") from None

    def _values(self, given: _Input, spec: TensorSpec, blob: memoryview | None) -> Values:
        name = repr(spec.name)
        if given.datatype != spec.datatype:
            datatype = quote(given.datatype)
            raise WireError(f"input {name} has the datatype {datatype}; send {spec.datatype}")
        rows = given.shape[0] if given.shape else 0
        if rows == 0 or tuple(given.shape[1:]) != spec.shape[1:]:
            raise WireError(
                f"input {name} has the shape {quote(given.shape)}; send {list(spec.shape)}, "
                "where -1 is the number of images, at least 1"
            )
        if rows > self.max_rows:
            most = f"send {self.max_rows} at a time, at most"
            raise TooLargeError(f"input {name} has {rows} images; {most}")
        if (blob is None) == (given.data is None):
            what = "neither" if blob is None else "both"
            raise WireError(f"input {name} has {what} 'data' and 'binary_data_size'; send one")
        data = given.data or []
        if spec.datatype == "BYTES":
            return _from_base64(data, rows, name) if blob is None else _unpack(blob, rows, name)
        numbers = _numbers(data, name) if blob is None else np.frombuffer(blob, np.uint8)
        if numbers.size != math.prod(given.shape):
            raise WireError(
                f"input {name} has {numbers.size} values, its shape {given.shape} has "
                f"{math.prod(given.shape)}"
            )
        return numbers.reshape(given.shape)

    def _choose(self, wanted: Sequence[_Output], binary: bool) -> dict[str, bool]:
        if not wanted:
            return {spec.name: binary for spec in self.outputs}
        choice: dict[str, bool] = {}
        for output in wanted:
            spec = _find(output.name, self.outputs, "output")
            if "classification" in (output.parameters.model_extra or {}):
                instead = "rank the output 'probabilities' instead"
                raise WireError(f"classification is not supported; {instead}")
            if spec.name in choice:
                raise WireError(f"output {spec.name!r} is asked for twice")
            own = output.parameters.binary_data
            choice[spec.name] = binary if own is None else own
        return choice


def write(
    head: Mapping[str, object],
    specs: Sequence[TensorSpec],
    arrays: Mapping[str, NDArray[Any]],
    binary: Mapping[str, bool],
) -> tuple[bytes, int | None]:
    """Makes an answer's body.

    Args:
        head: the answer's members besides `outputs`.
        specs: of the outputs.
        arrays: name -> values, at least of the outputs wanted.
        binary: name -> whether in binary form, of the outputs wanted, in that order.

    Returns: the body, and the bytes of JSON in it, None where it is all JSON.
    """
    datatypes = {spec.name: spec.datatype for spec in specs}
    outputs: list[dict[str, object]] = []
    blobs: list[bytes] = []
    for name, as_bytes in binary.items():
        array = arrays[name].astype(_NUMPY[datatypes[name]])
        output: dict[str, object]
        output = {"name": name, "shape": list(array.shape), "datatype": datatypes[name]}
        if as_bytes:
            blobs.append(array.tobytes())
            output["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            output["data"] = array.ravel().tolist()
        outputs.append(output)
    text = json.dumps({**head, "outputs": outputs}, separators=(",", ":")).encode()
    return b"".join([text, *blobs]), len(text) if blobs else None


def _find(name: str, specs: Iterable[TensorSpec], what: str) -> TensorSpec:
    for spec in specs:
        if spec.name == name:
            return spec
    names = ", ".join(spec.name for spec in specs)
    raise WireError(f"the model has no {what} {quote(name)}; it has {names}")


def _unpack(blob: memoryview, count: int, name: str) -> list[bytes]:
    """The elements of a BYTES tensor: each a length of four bytes, then as many bytes."""
    elements: list[bytes] = []
    start = 0
    while start < len(blob) and len(elements) < count:
        end = start + _LENGTH.size
        if end <= len(blob):
            end += _LENGTH.unpack_from(blob, start)[0]
        if end > len(blob):
            raise WireError(f"input {name} ends within its element {len(elements)}")
        elements.append(bytes(blob[start + _LENGTH.size : end]))
        start = end
    if start < len(blob) or len(elements) < count:
        raise WireError(f"input {name} has not the {count} elements of its shape")
    return elements


def _from_base64(data: list[Any], count: int, name: str) -> list[bytes]:
    if len(data) != count:
        raise WireError(f"input {name} has {len(data)} elements, its shape has {count}")
    elements: list[bytes] = []
    for element in data:
        try:
            elements.append(base64.b64decode(element, validate=True))
        except (TypeError, ValueError):
            raise WireError(
                f"element {len(elements)} of input {name} is not base64 text; JSON holds no other "
                "bytes, or send binary data"
            ) from None
    return elements


def _numbers(data: list[Any], name: str) -> NDArray[np.uint8]:
    """Nested or flat lists of numbers, flattened."""
    kinds = set(map(type, data))
    while kinds == {list}:
        if len(set(map(len, data))) > 1:
            raise WireError(f"the lists in input {name} differ in length")
        data = list(chain.from_iterable(data))
        kinds = set(map(type, data))
    try:
        if kinds <= {int}:
            return np.frombuffer(bytes(data), np.uint8)
    except (ValueError, OverflowError):
        pass
    raise WireError(f"input {name} holds something else than whole numbers from 0 to 255")


def _has_wide_characters(text: bytes | bytearray) -> bool:
    """Whether some character may lie beyond Latin-1, as it is or escaped."""
    return not text.isascii() or text.count(rb"\u") > text.count(rb"\u00")


def quote(value: object) -> str:
    """What a caller sent, as an error may tell it: its first characters."""
    text = repr(value[:_QUOTED] if isinstance(value, str) else value)
    return text if len(text) <= _QUOTED else text[:_QUOTED] + "..."
