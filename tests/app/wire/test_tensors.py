"""Requests of the Open Inference Protocol: whatever is sent is read or refused, at little cost."""

import json
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.wire.tensors import Reader, TensorSpec, TooLargeError, WireError

READER = Reader(
    inputs=(TensorSpec("image", "UINT8", (-1, 28, 28)), TensorSpec("picture", "BYTES", (-1,))),
    outputs=(TensorSpec("probabilities", "FP32", (-1, 10)), TensorSpec("digit", "INT64", (-1,))),
    max_rows=64,
)
MIB = 2**20
LONG = 4 * MIB
LONGEST_ERROR = 3000  # characters: sixteen inputs may each lack three members
MANY = 109_000  # values, about as many as a request may have
TEXT = b'"' + b"a" * LONG + b'"'


def document(
    data: bytes = b"[]",
    shape: bytes = b"[1,28,28]",
    name: bytes = b'"image"',
    datatype: bytes = b'"UINT8"',
    more: bytes = b"",
) -> bytes:
    members = b'"name":%s,"shape":%s,"datatype":%s,"data":%s' % (name, shape, datatype, data)
    return b'{"inputs":[{%s}]%s}' % (members, more)


def pictures(data: bytes) -> bytes:
    return document(data, b"[1]", b'"picture"', b'"BYTES"')


def many(value: bytes, count: int = MANY) -> bytes:
    return b"[" + b",".join([value] * count) + b"]"


def parameters(members: bytes) -> bytes:
    return document(more=b',"parameters":{' + members + b"}")


def keys(count: int, length: int) -> bytes:
    return b",".join(b'"%0*d":1' % (length, number) for number in range(count))


COSTLY: dict[str, Callable[[], bytes]] = {
    "one long string among numbers": lambda: document(
        b"[" + b"0," * MANY + b'"aaaa%s"]' % TEXT[1:-1]
    ),
    "a wide character in a long string": lambda: document(b'["\xf0\x9f\x98\x80' + TEXT[1:] + b"]"),
    "the same, escaped": lambda: document(b'["\\ud83d\\ude00' + TEXT[1:] + b"]"),
    "text in the place of base64": lambda: pictures(b'["!' + TEXT[1:] + b"]"),
    "members missing": lambda: b'{"inputs":[{"data":[' + TEXT + b"]}]}",
    "sixteen times missing": lambda: (
        b'{"inputs":' + many(b'{"data":["%s"]}' % TEXT[: LONG // 16], 16) + b"}"
    ),
    "a long id": lambda: document(more=b',"id":' + TEXT),
    "a long name": lambda: document(name=TEXT),
    "a long datatype": lambda: document(datatype=TEXT),
    "a long parameter": lambda: parameters(b'"x":' + TEXT),
    "a long member": lambda: document(more=b',"x":' + TEXT),
    "a long name of an output": lambda: document(more=b',"outputs":[{"name":' + TEXT + b"}]"),
    "many strings": lambda: document(many(b'"%s"' % (b"a" * 40))),
    "many keys": lambda: parameters(keys(MANY // 2, 80)),
    "many long numbers": lambda: document(many(b"9" * 4299, LONG // 4300)),
    "many long fractions": lambda: document(many(b"0." + b"9" * 4299, LONG // 4300)),
    "a number without end": lambda: document(b"[" + b"9" * LONG + b"]"),
    "a fraction without end": lambda: document(b"[0." + b"9" * LONG + b"]"),
    "empty lists": lambda: document(many(b"[]", MANY // 2)),
    "empty objects": lambda: document(many(b"{}", MANY // 2)),
    "objects in objects": lambda: document(many(b'{"a":{"b":{}}}', MANY // 4)),
    "lists of one": lambda: document(many(b"[0]", MANY // 2)),
    "lists of two lengths": lambda: document(b"[[0,0]," + many(b"[0]", MANY // 2)[1:]),
    "deep lists": lambda: document(many(b"[" * 180 + b"]" * 180, MANY // 181)),
    "deep lists, one deeper": lambda: document(b"[[]," + many(b"[" * 150 + b"]" * 150, 700)[1:]),
    "brackets": lambda: b"[" * LONG,
    "commas": lambda: b"," * LONG,
    "quotes": lambda: b'"' * LONG,
    "backslashes": lambda: b'{"' + b"\\" * LONG,
    "NUL": lambda: bytes(LONG),
    "blanks": lambda: document(b"[" + b" " * LONG + b"]"),
}


@pytest.mark.parametrize("case", COSTLY)
def test_no_document_costs_much(case: str):
    """In proportion to its length, however it is made; pydantic and NumPy would copy some."""
    text = COSTLY[case]()
    tracemalloc.start()
    started = time.process_time()
    with pytest.raises(WireError) as caught:
        READER.read(text, None)
    cpu_s = time.process_time() - started
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # A character takes up to four bytes, a value 64 and its place in two lists.
    assert peak < 4.5 * len(text) + 100 * MANY
    assert cpu_s < 1.5
    assert len(str(caught.value)) < LONGEST_ERROR


@pytest.mark.parametrize("wide", ["😀".encode(), "€".encode(), b"\\ud83d\\ude00", b"\\u20ac"])
def test_the_longest_documents_must_be_ascii(wide: bytes):
    long = b"a" * 17 * MIB
    with pytest.raises(WireError, match="ASCII"):
        READER.read(document(more=b',"id":"' + wide + long + b'"'), None)
    for narrow in (b"a", b"\\u00e9", b"\\u002B"):  # the last is how .NET writes base64's plus
        with pytest.raises(WireError, match="is not base64"):
            READER.read(pictures(b'["!' + narrow + long + b'"]'), None)


REFUSED: dict[str, tuple[bytes, str]] = {
    "text among numbers": (document(b'[0,"0"]'), "whole numbers"),
    "fraction": (document(b"[0,1.0]"), "whole numbers"),
    "truth": (document(b"[0,true]"), "whole numbers"),
    "null": (document(b"[null]"), "whole numbers"),
    "object": (document(b"[{}]"), "whole numbers"),
    "NaN": (document(b"[NaN]"), "whole numbers"),
    "infinity": (document(b"[-Infinity]"), "whole numbers"),
    "negative": (document(b"[-1]"), "whole numbers"),
    "256": (document(b"[256]"), "whole numbers"),
    "10^400": (document(b"[1" + b"0" * 400 + b"]"), "whole numbers"),
    "list among numbers": (document(b"[0,[0]]"), "whole numbers"),
    "number among lists": (document(b"[[0],0]"), "whole numbers"),
    "truth in a list": (document(b"[[[true]]]"), "whole numbers"),
    "ragged": (document(b"[[0,0],[0]]"), "differ in length"),
    "ragged within": (document(b"[[[0],[0]],[[0],[0,0]]]"), "differ in length"),
    "too deep": (document(b"[" * 300 + b"]" * 300), "recursion"),
    "no list": (document(b"0"), "data"),
    "surrogate": (document(more=b',"id":"\\ud800"'), "Invalid JSON"),
    "BOM": (b"\xef\xbb\xbf" + document(), "Invalid JSON"),
    "UTF-16": (document().decode().encode("utf-16"), "Invalid JSON"),
    "no UTF-8": (document(more=b',"id":"\xff"'), "Invalid JSON"),
    "shape of huge numbers": (document(shape=many(b"9" * 4299, 3)), "shape.0"),
    "shape beyond 64 bits": (document(shape=b"[%d,28,28]" % 2**63), "shape.0"),
    "shape of large numbers": (document(shape=many(b"%d" % (2**63 - 1), 8)), "shape"),
    "rows without end": (document(shape=b"[%d,28,28]" % (2**63 - 1)), "at a time"),
    "timeout of 10^400": (parameters(b'"timeout":1' + b"0" * 400), "timeout"),
    "timeout beyond 64 bits": (parameters(b'"timeout":%d' % 2**63), "timeout"),
    "timeout negative": (parameters(b'"timeout":-1'), "timeout"),
    "timeout infinite": (parameters(b'"timeout":Infinity'), "timeout"),
    "another name's key twice": (document(more=b',"inputs":[],"inputs":0'), "inputs"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_of_the_protocol_is_refused(case: str):
    text, hint = REFUSED[case]
    with pytest.raises(WireError, match=hint) as caught:
        READER.read(text, None)
    assert len(str(caught.value)) < 200


def test_a_name_is_told_by_its_first_characters():
    for name in ("x" * 10_000, "\U000e0001" * 10_000):
        with pytest.raises(WireError, match="no input") as caught:
            READER.read(document(name=json.dumps(name).encode()), None)
        assert len(str(caught.value)) < 150


@pytest.mark.parametrize("size", [2**63, 10**400, 10**4299, -1])
def test_sizes_beyond_all_bodies_are_refused(size: int):
    text = json.dumps(
        request("image", [1, 28, 28], "UINT8", parameters={"binary_data_size": size})
    ).encode()
    with pytest.raises(WireError, match="binary_data_size") as caught:
        READER.read(text + bytes(784), len(text))
    assert len(str(caught.value)) < 200


def request(name: str, shape: list[int], datatype: str, **members: object) -> dict[str, object]:
    return {"inputs": [{"name": name, "shape": shape, "datatype": datatype, **members}]}


def test_lists_are_read_flat_and_nested():
    values = np.random.default_rng(0).integers(0, 256, (64, 28, 28), np.uint8)
    for data in (values.tolist(), values.ravel().tolist(), values.reshape(64, -1).tolist()):
        text = json.dumps(request("image", [64, 28, 28], "UINT8", data=data)).encode()
        np.testing.assert_array_equal(READER.read(text, None).values, values)


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(0, 255)
    | st.sampled_from([10**400, -(10**400), 10**4299, 2**63, 2**64, 1.0, 256, 28])
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["image", "picture", "digit", "UINT8", "BYTES", "AAAA", [1], [1, 28, 28]])
    | st.just([0] * 784)
)
NAMES = (
    st.text(max_size=5)
    | st.sampled_from(["id", "parameters", "inputs", "outputs", "name", "shape", "datatype"])
    | st.sampled_from(["data", "timeout", "binary_data", "binary_data_size", "shared_memory_x"])
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=12,
)
MEMBERS = ("id", "parameters", "outputs")
INPUT_MEMBERS = ("name", "shape", "datatype", "data", "parameters")


@settings(max_examples=600, deadline=None)
@given(
    changes=st.dictionaries(st.sampled_from(INPUT_MEMBERS), VALUES, max_size=2),
    members=st.dictionaries(st.sampled_from(MEMBERS), VALUES, max_size=2),
    blob=st.binary(max_size=8),
    cut=st.none() | st.integers(-2, 400),
)
@example({}, {}, b"", None)
def test_any_document_is_read_or_refused(
    changes: dict[str, object], members: dict[str, object], blob: bytes, cut: int | None
):
    made = request("image", [1, 28, 28], "UINT8", data=[0] * 784)
    (tensor,) = made["inputs"]  # type: ignore[misc]
    text = json.dumps({**made, "inputs": [{**tensor, **changes}], **members}).encode()
    check(text + blob, len(text) if cut is None else cut)


@settings(max_examples=300, deadline=None)
@given(value=VALUES, encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]))
def test_any_json_is_read_or_refused(value: object, encoding: str):
    text = json.dumps(value, ensure_ascii=False).encode(encoding, "surrogatepass")
    check(text, None)


@settings(max_examples=300, deadline=None)
@given(
    at=st.integers(0, 10**6),
    length=st.integers(0, 3),
    put=st.binary(max_size=4) | st.sampled_from([b"[", b"]", b"{", b'"', b",", b"\\u", b"1e999"]),
)
def test_a_damaged_document_is_read_or_refused(at: int, length: int, put: bytes):
    text = document(many(b"7", 784), more=b',"id":"a","parameters":{"timeout":5}')
    at %= len(text)
    check(text[:at] + put + text[at + length :], None)


def check(body: bytes, json_length: int | None) -> None:
    try:
        read = READER.read(body, json_length)
    except WireError as error:
        told = str(error)
    else:
        told = read.name
        assert 0 < len(read.values) <= READER.max_rows
    assert len(told) < LONGEST_ERROR


def test_too_many_values_are_told_apart():
    with pytest.raises(TooLargeError):
        READER.read(document(many(b"0", 2 * MANY)), None)
