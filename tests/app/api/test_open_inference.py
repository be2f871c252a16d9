"""The Open Inference Protocol as its clients speak it: NVIDIA's own, unmodified, and raw bodies."""

import asyncio
import base64
import gzip
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient import http as triton
from tritonclient.utils import InferenceServerException

from app.settings import Settings
from tests.app.api.conftest import MoodyEngine, hold_up
from tests.app.api.test_bad_requests import NOISE
from tests.conftest import Server, encode
from tests.digits import load_digits

MODEL = "perceiver-mnist"
INFER = f"/v2/models/{MODEL}/infer"
IMAGES, LABELS = load_digits()
SEVEN = encode(IMAGES[0])
MAX_FILES = Settings().max_files


@pytest.fixture(scope="module")
def client_of_triton(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(urlsplit(server.url).netloc) as client:
        yield client


def images(count: int, binary: bool = True) -> triton.InferInput:
    tensor = triton.InferInput("image", [count, 28, 28], "UINT8")
    return tensor.set_data_from_numpy(IMAGES[:count], binary_data=binary)


def pictures(*files: bytes) -> triton.InferInput:
    tensor = triton.InferInput("picture", [len(files)], "BYTES")
    return tensor.set_data_from_numpy(np.array(files, dtype=np.object_))


def test_health_and_metadata(client_of_triton: triton.InferenceServerClient):
    client = client_of_triton
    assert client.is_server_live()
    assert client.is_server_ready()
    server = client.get_server_metadata()
    assert server["name"] == "perceiver-serve"
    assert server["extensions"] == ["binary_tensor_data"]
    model = client.get_model_metadata(MODEL)
    (version,) = model["versions"]
    assert client.get_model_metadata(MODEL, version) == model
    assert client.is_model_ready(MODEL)
    assert client.is_model_ready(MODEL, version)
    assert not client.is_model_ready("other")
    assert not client.is_model_ready(MODEL, "0.0.1")
    shapes = {tensor["name"]: tensor["shape"] for tensor in model["inputs"] + model["outputs"]}
    assert shapes["image"] == [-1, 28, 28]
    assert shapes["picture"] == [-1]
    assert shapes["probabilities"] == [-1, 10]
    assert shapes["digit"] == [-1]
    assert shapes["novelty"] == [-1]


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("count", [1, 64])
def test_infer(
    client_of_triton: triton.InferenceServerClient,
    client: httpx.Client,
    count: int,
    binary: bool,
    compression: str | None,
):
    model = client_of_triton.get_model_metadata(MODEL)
    names = [output["name"] for output in model["outputs"]]
    result = client_of_triton.infer(
        MODEL,
        [images(count, binary)],
        outputs=[triton.InferRequestedOutput(name, binary_data=binary) for name in names],
        request_id="mine",
        request_compression_algorithm=compression,
    )
    assert result.get_response()["id"] == "mine"
    assert result.get_response()["model_version"] == model["versions"][0]
    declared = {output["name"]: output for output in model["outputs"]}
    for name in names:
        assert result.get_output(name)["datatype"] == declared[name]["datatype"]
        assert result.as_numpy(name).shape == (count, *declared[name]["shape"][1:])
        assert ("data" in result.get_output(name)) != binary
    probabilities = result.as_numpy("probabilities")
    assert probabilities.dtype == np.float32
    novelty = result.as_numpy("novelty")
    assert novelty.dtype == np.float32
    assert 0 <= novelty.min() <= novelty.max() <= 1
    assert (novelty <= 0.5).mean() > 0.9
    files = [("files", encode(image)) for image in IMAGES[:count]]
    truth = client.post("/predict/batch", files=files).json()["predictions"]
    told = [prediction["novelty"] for prediction in truth]
    np.testing.assert_allclose(novelty, told, atol=1e-3)
    expected = [prediction["probabilities"] for prediction in truth]
    np.testing.assert_allclose(probabilities, expected, atol=1e-4)
    assert result.as_numpy("digit").tolist() == probabilities.argmax(axis=1).tolist()
    assert (result.as_numpy("digit") == LABELS[:count]).mean() > 0.95


def test_pictures_take_the_upload_path(client_of_triton: triton.InferenceServerClient):
    huge = np.full((300, 300), 255, np.uint8)
    huge[60:228, 60:228] = 255 - np.kron(IMAGES[1], np.ones((6, 6), np.uint8))
    result = client_of_triton.infer(MODEL, [pictures(SEVEN, encode(huge, "JPEG"))])
    assert result.as_numpy("digit").tolist() == [7, LABELS[1]]


def test_by_default_all_outputs_come_and_the_clients_wishes_rule(client: httpx.Client):
    given = tensor_of("image", [1, 28, 28], "UINT8", data=IMAGES[0].tolist())
    plain = client.post(INFER, json={"inputs": [given]}).json()
    names = [output["name"] for output in plain["outputs"]]
    assert "id" not in plain
    assert all("data" in output for output in plain["outputs"])
    wanted = [{"name": "digit"}, {"name": names[0], "parameters": {"binary_data": False}}]
    mixed = client.post(
        INFER,
        json={
            "inputs": [given],
            "outputs": wanted,
            "parameters": {"binary_data_output": True},
        },
    )
    length = int(mixed.headers["Inference-Header-Content-Length"])
    assert mixed.headers["content-type"] == "application/octet-stream"
    digit, first = json.loads(mixed.content[:length])["outputs"]
    assert digit == {
        "name": "digit",
        "shape": [1],
        "datatype": "INT64",
        "parameters": {"binary_data_size": 8},
    }
    assert struct.unpack("<q", mixed.content[length:]) == (7,)
    assert first == plain["outputs"][0]
    assert mixed.headers["server-timing"].startswith("decode;")


def tensor_of(name: str, shape: list, datatype: str, **members: object) -> dict:
    return {"name": name, "shape": shape, "datatype": datatype, **members}


def infer_other_model(client: triton.InferenceServerClient) -> None:
    client.infer("other", [images(1)])


def infer_output(name: str, **wishes: object) -> Callable[[triton.InferenceServerClient], object]:
    wanted = [triton.InferRequestedOutput(name, **wishes)]
    return lambda client: client.infer(MODEL, [images(1)], outputs=wanted)


def infer_input(name: str, array: np.ndarray, datatype: str) -> Callable:
    tensor = triton.InferInput(name, list(array.shape), datatype).set_data_from_numpy(array)
    return lambda client: client.infer(MODEL, [tensor])


def infer_shared(client: triton.InferenceServerClient) -> object:
    tensor = triton.InferInput("image", [1, 28, 28], "UINT8")
    tensor.set_shared_memory("region", 784)
    return client.infer(MODEL, [tensor])


@pytest.mark.parametrize(
    ("call", "status", "hint"),
    [
        (infer_other_model, 404, "there is perceiver-mnist"),
        (lambda client: client.infer(MODEL, [images(1)], model_version="9"), 404, "no version '9'"),
        (lambda client: client.get_model_metadata("other"), 404, "no model 'other'"),
        (lambda client: client.get_model_config(MODEL), 404, "no page"),
        (lambda client: client.get_model_repository_index(), 404, "no page"),
        (infer_output("digits"), 400, "no output 'digits'"),
        (infer_output("probabilities", class_count=3), 400, "classification"),
        (infer_shared, 400, "shared memory"),
        (infer_input("pixels", IMAGES[:1], "UINT8"), 400, "no input 'pixels'"),
        (infer_input("image", IMAGES[:1].astype(np.float32), "FP32"), 400, "'FP32'; send UINT8"),
        (infer_input("image", IMAGES[0], "UINT8"), 400, "shape [28, 28]; send [-1, 28, 28]"),
        (infer_input("image", IMAGES[:0], "UINT8"), 400, "at least 1"),
        (infer_input("image", IMAGES[: MAX_FILES + 1], "UINT8"), 400, f"{MAX_FILES} at a time"),
        (lambda client: client.infer(MODEL, [images(1), images(1)]), 400, "send one"),
        (lambda client: client.infer(MODEL, [images(1), pictures(SEVEN)]), 400, "send one"),
        (lambda client: client.infer(MODEL, [pictures(SEVEN, b"")]), 400, "picture 1: the image"),
        (lambda client: client.infer(MODEL, [pictures(b"text")]), 415, "none of the types"),
        (lambda client: client.infer(MODEL, [pictures(NOISE[:900])]), 422, "truncated"),
        (
            lambda client: client.infer(MODEL, [pictures(bytes(Settings().max_bytes + 1))]),
            413,
            "picture 0 has more than",
        ),
        (lambda client: client.infer(MODEL, [images(1)], timeout=1), 504, "in time"),
    ],
)
def test_the_client_understands_each_error(
    client_of_triton: triton.InferenceServerClient, call: Callable, status: int, hint: str
):
    with pytest.raises(InferenceServerException) as caught:
        call(client_of_triton)
    assert caught.value.status() == str(status)
    assert hint in caught.value.message()


def assert_error(response: httpx.Response, status: int, hint: str = "") -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    assert response.json().keys() == {"error"}
    assert hint in response.json()["error"]


def test_other_methods_and_paths(client: httpx.Client):
    wrong = client.get(INFER)
    assert_error(wrong, 405, "does not answer GET")
    assert wrong.headers["allow"] == "POST"
    assert_error(client.get("/v2/none"), 404, "/v2/none")
    assert client.get("/v2/").json() == client.get("/v2").json()
    assert client.get("/v2x").headers["content-type"] == "application/problem+json"


def body_of(request: object, *blobs: bytes) -> dict:
    """A body in binary form and its header."""
    text = json.dumps(request).encode()
    headers = {"Inference-Header-Content-Length": str(len(text))}
    return {"content": b"".join([text, *blobs]), "headers": headers}


def request_of(*inputs: dict, **members: object) -> dict:
    return {"inputs": list(inputs), **members}


def sized(name: str, shape: list, datatype: str, size: object) -> dict:
    return tensor_of(name, shape, datatype, parameters={"binary_data_size": size})


def element(content: bytes, length: int | None = None) -> bytes:
    return struct.pack("<I", len(content) if length is None else length) + content


ONE_IMAGE = sized("image", [1, 28, 28], "UINT8", 784)
JSON_IMAGE = tensor_of("image", [1, 28, 28], "UINT8", data=[0] * 784)
HEADER = "Inference-Header-Content-Length"


def image_data(data: object, **members: object) -> dict:
    return {"json": request_of(tensor_of("image", [1, 28, 28], "UINT8", data=data), **members)}


def request_in_json(*inputs: dict, **members: object) -> dict:
    return {"json": request_of(*inputs, **members)}


def picture_data(*data: object) -> dict:
    return {"json": request_of(tensor_of("picture", [1], "BYTES", data=list(data)))}


MALFORMED: dict[str, tuple[dict, int, str]] = {
    "no body": ({}, 400, "no body"),
    "no JSON": ({"content": b"\xff\x00"}, 400, "Invalid JSON"),
    "a list": ({"json": []}, 400, "body"),
    "no inputs": ({"json": {"inputs": []}}, 400, "inputs"),
    "many inputs": ({"json": request_of(*[JSON_IMAGE] * 20)}, 400, "inputs"),
    "number for a name": ({"json": request_of({**JSON_IMAGE, "name": 7})}, 400, "name"),
    "id is no text": ({"json": request_of(JSON_IMAGE, id=7)}, 400, "id"),
    "negative shape": ({"json": request_of({**JSON_IMAGE, "shape": [-1, 28, 28]})}, 400, "shape"),
    "huge shape": (request_in_json({**JSON_IMAGE, "shape": [10**400] * 3}), 400, "shape.0"),
    "huge timeout": (request_in_json(JSON_IMAGE, parameters={"timeout": 10**400}), 400, "timeout"),
    "timeout of 64 bits": (
        request_in_json(JSON_IMAGE, parameters={"timeout": 2**63}),
        400,
        "timeout",
    ),
    "words in a shape": ({"json": request_of({**JSON_IMAGE, "shape": ["a"] * 8})}, 400, "shape"),
    "no data": ({"json": request_of(tensor_of("image", [1, 28, 28], "UINT8"))}, 400, "neither"),
    "data twice": (
        body_of(request_of({**ONE_IMAGE, "data": [0] * 784}), bytes(784)),
        400,
        "both",
    ),
    "too few values": (image_data([0] * 783), 400, "783 values"),
    "ragged": (image_data([[0, 0], [0]]), 400, "differ in length"),
    "fractions": (image_data([0.5] * 784), 400, "whole numbers"),
    "256": (image_data([256] * 784), 400, "whole numbers"),
    "huge numbers": (image_data([10**400] * 784), 400, "whole numbers"),
    "text": (image_data(["0"] * 784), 400, "whole numbers"),
    "text among numbers": (image_data([0] * 784 + ["a" * 4000]), 400, "whole numbers"),
    "nulls": (image_data([None] * 784), 400, "whole numbers"),
    "deep lists": (
        {"content": b'{"inputs":' + b"[" * 9000 + b"]" * 9000 + b"}"},
        400,
        "recursion",
    ),
    "lists within lists": ({"content": b"[" * 10**6}, 400, "more than"),
    "output twice": (image_data([0] * 784, outputs=[{"name": "digit"}] * 2), 400, "twice"),
    "binary_data a number": (
        image_data([0] * 784, outputs=[{"name": "digit", "parameters": {"binary_data": 1}}]),
        400,
        "binary_data",
    ),
    "not base64": (picture_data("é!"), 400, "base64"),
    "picture is a number": (picture_data(7), 400, "base64"),
    "two pictures for one": (picture_data("", ""), 400, "2 elements"),
    "header too large": ({"content": b"{}", "headers": {HEADER: "3"}}, 400, HEADER),
    "header without end": ({"content": b"{}", "headers": {HEADER: "9" * 4300}}, 400, HEADER),
    "header negative": ({"content": b"{}", "headers": {HEADER: "-1"}}, 400, HEADER),
    "header no number": ({"content": b"{}", "headers": {HEADER: "1_0"}}, 400, HEADER),
    "blob too short": (body_of(request_of(ONE_IMAGE), bytes(783)), 400, "783 bytes follow"),
    "blob too long": (body_of(request_of(ONE_IMAGE), bytes(785)), 400, "785 bytes follow"),
    "blob without header": ({"json": request_of(ONE_IMAGE)}, 400, "0 bytes follow"),
    "blob of another size": (
        body_of(request_of(sized("image", [2, 28, 28], "UINT8", 784)), bytes(784)),
        400,
        "784 values",
    ),
    "size negative": (body_of(request_of(sized("image", [1, 28, 28], "UINT8", -1))), 400, "size"),
    "size without end": (
        body_of(request_of(sized("image", [1, 28, 28], "UINT8", 10**4299))),
        400,
        "binary_data_size",
    ),
    "size a boolean": (
        body_of(request_of(sized("picture", [1], "BYTES", True)), b"\0"),
        400,
        "binary_data_size",
    ),
    "element cut off": (
        body_of(request_of(sized("picture", [1], "BYTES", 8)), element(b"abcd", 5)),
        400,
        "within its element 0",
    ),
    "half a length": (
        body_of(request_of(sized("picture", [1], "BYTES", 2)), b"\0\0"),
        400,
        "within its element 0",
    ),
    "element missing": (
        body_of(request_of(sized("picture", [2], "BYTES", 8)), element(b"abcd")),
        400,
        "2 elements",
    ),
    "elements without end": (
        body_of(request_of(sized("picture", [1], "BYTES", 4_000_000)), bytes(4_000_000)),
        400,
        "1 elements",
    ),
    "brotli": ({"content": b"{}", "headers": {"Content-Encoding": "br"}}, 415, "gzip, deflate"),
    "not gzip": ({"content": b"{}", "headers": {"Content-Encoding": "gzip"}}, 400, "not gzip"),
    "gzip bomb": (
        {
            "content": gzip.compress(bytes(Settings().max_body_bytes + 1), 1),
            "headers": {"Content-Encoding": "gzip"},
        },
        413,
        "inflates to more than",
    ),
    "half a gzip": (
        {"content": gzip.compress(b"{}")[:-4], "headers": {"Content-Encoding": "gzip"}},
        400,
        "one whole gzip",
    ),
    "deflate and more": (
        {"content": zlib.compress(b"{}") + b"x", "headers": {"Content-Encoding": "deflate"}},
        400,
        "one whole deflate",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_each_malformed_body_is_told(client: httpx.Client, case: str):
    request, status, hint = MALFORMED[case]
    assert_error(client.post(INFER, **request), status, hint)


def test_base64_text_is_a_picture_in_json(client: httpx.Client):
    answer = client.post(INFER, **picture_data(base64.b64encode(SEVEN).decode()))
    digits = {output["name"]: output["data"] for output in answer.json()["outputs"]}
    assert digits["digit"] == [7]


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["image", "picture", "digit", "UINT8", "BYTES", [1], [1, 28, 28]]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["name", "shape", "datatype", "data", "parameters", "binary_data_size"])
            | st.text(max_size=5),
            inner,
            max_size=6,
        )
    ),
    max_leaves=8,
)
GOOD = st.sampled_from(
    [
        body_of(request_of(ONE_IMAGE, parameters={"binary_data_output": True}), bytes(784)),
        body_of(request_of(sized("picture", [1], "BYTES", len(SEVEN) + 4)), element(SEVEN)),
    ]
)
FUZZ = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def assert_answered(response: httpx.Response) -> None:
    if response.status_code != 200:
        assert response.status_code in (400, 413, 415, 422), response.text
        assert_error(response, response.status_code)


@FUZZ
@given(
    members=st.fixed_dictionaries(
        {"inputs": VALUES}, optional={"id": VALUES, "outputs": VALUES, "parameters": VALUES}
    ),
    blob=st.binary(max_size=20),
)
def test_no_json_makes_a_5xx(client: httpx.Client, members: dict, blob: bytes):
    assert_answered(client.post(INFER, **body_of(members, blob)))


@FUZZ
@given(change=st.dictionaries(st.sampled_from(list(ONE_IMAGE)), VALUES, max_size=2))
def test_no_member_makes_a_5xx(client: httpx.Client, change: dict):
    assert_answered(client.post(INFER, **body_of(request_of({**ONE_IMAGE, **change}), bytes(784))))


@FUZZ
@given(
    good=GOOD,
    edits=st.lists(st.tuples(st.integers(0, 1000), st.binary(max_size=4)), max_size=5),
    length=st.none() | st.integers(-5, 1500),
    encoding=st.sampled_from([None, None, "gzip", "deflate"]),
)
def test_no_bytes_make_a_5xx(
    client: httpx.Client,
    good: dict,
    edits: list[tuple[int, bytes]],
    length: int | None,
    encoding: str | None,
):
    content, headers = good["content"], dict(good["headers"])
    for at, replacement in edits:
        content = content[:at] + replacement + content[at + len(replacement) :]
    if length is not None:
        headers[HEADER] = str(length)
    if encoding:
        headers["Content-Encoding"] = encoding
        compressed = gzip.compress(content) if encoding == "gzip" else zlib.compress(content)
        content = compressed if length is None else compressed[:length]
    assert_answered(client.post(INFER, content=content, headers=headers))


@pytest.mark.anyio
async def test_a_full_queue_refuses_with_retry_after(
    engine: MoodyEngine,
    inside: httpx.AsyncClient,
):
    first = await hold_up(engine, inside)
    request = body_of(request_of(sized("image", [2, 28, 28], "UINT8", 2 * 784)), bytes(2 * 784))
    one, other = await asyncio.gather(*[inside.post(INFER, **request) for _ in range(2)])
    late, refused = (one, other) if one.status_code == 504 else (other, one)
    assert_error(refused, 503, "images are waiting")
    assert refused.headers["retry-after"] == "1"
    assert_error(late, 504, "in time")
    engine.open.set()
    await first


@pytest.mark.anyio
async def test_an_engine_that_fails_is_a_500_of_the_protocol(
    engine: MoodyEngine,
    inside: httpx.AsyncClient,
):
    engine.fails_above = 0.0
    request = body_of(request_of(ONE_IMAGE), bytes([255] * 784))
    refused = await inside.post(INFER, **request)
    assert_error(refused, 500, "on our side")
    assert "secret" not in refused.text
