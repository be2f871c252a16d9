"""The service's settings: environment variables with the prefix PERCEIVER_, or flags."""

import difflib
import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.cores import usable_cores

LogFormat = Literal["auto", "text", "json"]

# Of the extra `otel`.
_SPAN_PACKAGES = ("opentelemetry.exporter.otlp.proto.http", "opentelemetry.instrumentation.asgi")


PREFIX = "PERCEIVER_"
# Where it is not below the current folder, it is looked for beside this package.
_DEFAULT_WEIGHTS = Path("weights/perceiver-mnist")
_BESIDE = Path(__file__).parents[1]
_WEB_PORTS = {"http": 80, "https": 443}
# Kubernetes tells each container of the services in its namespace, such as one named perceiver.
_SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://\S+")
_SERVICE_VARIABLE = re.compile(r"\w*(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)\w*)")


class Settings(BaseSettings):
    """Serves a classifier over HTTP."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        cli_prog_name="perceiver serve",
        cli_kebab_case=True,
        cli_avoid_json=True,
        cli_exit_on_error=False,
        cli_show_env_vars=True,
    )

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="TCP port to listen on; 0: a free one")
    weights: Path = Field(_DEFAULT_WEIGHTS, description="checkpoint folder")
    engine: Literal["auto", "onnxruntime", "torch"] = Field(
        "auto", description="runtime that computes; auto: torch where it finds a GPU"
    )
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N"
    )
    workers: int = Field(1, ge=1, le=256, description="processes, which share the cores")
    max_batch: int = Field(16, ge=1, le=4096, description="images computed at once, at most")
    max_queue: int = Field(1024, ge=1, description="images that may wait; more are refused: 503")
    request_timeout_s: float = Field(
        10.0, gt=0, le=3600, description="seconds for an answer once the body is read, then 504"
    )
    max_bytes: int = Field(10 * 2**20, ge=1, le=2**30, description="bytes of one image, at most")
    max_pixels: int = Field(
        25_000_000, ge=1, le=100_000_000, description="pixels of one image, at most"
    )
    max_request_pixels: int = Field(
        60_000_000, ge=1, description="pixels to decode of all images of one request, at most"
    )
    max_decoding_pixels: int = Field(
        50_000_000, ge=1, description="pixels of large images that one worker decodes at once"
    )
    max_pending_pixels: int = Field(
        250_000_000,
        ge=1,
        description="pixels that are decoded or wait for it in one worker; more are refused: 503",
    )
    max_decode_cpu_s: float = Field(
        2.0,
        gt=0,
        le=600,
        description="seconds of CPU time to decode a request's images, at most",
    )
    max_decode_bytes: int = Field(
        300 * 2**20, ge=2**27, description="bytes of memory to decode one image, at most"
    )
    max_files: int = Field(64, ge=1, description="images in one batch request, at most")
    max_body_bytes: int = Field(
        64 * 2**20, ge=1, le=2**32, description="bytes of one batch request, at most"
    )
    max_upload_bytes: int = Field(
        256 * 2**20,
        ge=1,
        description="bytes of all requests under way in one worker, inflated, at most",
    )
    max_connections: int = Field(1024, ge=1, description="connections to one worker, at most")
    head_timeout_s: float = Field(
        10.0, gt=0, le=3600, description="seconds for a request's line and headers to arrive"
    )
    body_timeout_s: float = Field(
        60.0, gt=0, le=3600, description="seconds for a request's body to arrive"
    )
    api_keys: SecretStr = Field(
        SecretStr(""), description="keys that may use the service, separated by commas; none: all"
    )
    api_keys_file: Path | None = Field(
        None, description="file of further keys, one per line, read anew at each reload"
    )
    cors_origins: str = Field(
        "", description="web origins whose pages may call, separated by commas; *: any"
    )
    drain_delay_s: float = Field(
        2.0,
        ge=0,
        le=600,
        description="seconds between SIGTERM, which ends readiness, and refusing connections",
    )
    log_format: LogFormat = Field(
        "auto", description="auto (text on a terminal, else json), text or json"
    )
    otlp_endpoint: str = Field(
        "",
        pattern=r"^(https?://\S+)?$",
        description="collector of OpenTelemetry that traces go to, as http://127.0.0.1:4318",
    )

    @model_validator(mode="before")
    @classmethod
    def _find_default_weights(cls, values: dict[str, Any]) -> dict[str, Any]:
        beside = _BESIDE / _DEFAULT_WEIGHTS
        if "weights" in values or _DEFAULT_WEIGHTS.exists() or not beside.exists():
            return values
        return {**values, "weights": beside}

    @model_validator(mode="before")
    @classmethod
    def _overlook_service_links(cls, values: dict[str, Any]) -> dict[str, Any]:
        """PERCEIVER_PORT=tcp://... is Kubernetes' word for a service named perceiver."""
        if _SERVICE_LINK.fullmatch(str(values.get("port", ""))):
            return {name: value for name, value in values.items() if name != "port"}
        return values

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, origins: str) -> str:
        for origin in filter(None, map(str.strip, origins.split(","))):
            if origin not in ("*", "null") and origin != (right := _as_browsers_send(origin)):
                raise ValueError(f"{origin} is no web origin as browsers send it; write {right}")
        return origins

    @field_validator("otlp_endpoint")
    @classmethod
    def _spans_can_be_exported(cls, endpoint: str) -> str:
        try:
            missing = endpoint and not all(map(importlib.util.find_spec, _SPAN_PACKAGES))
        except ModuleNotFoundError:  # not even the packages that would hold it
            missing = True
        if missing:
            raise ValueError("traces need the extra 'otel', which is not installed")
        return endpoint

    @model_validator(mode="after")
    def _one_request_fits(self) -> "Settings":
        if self.max_files > self.max_queue:
            raise ValueError(
                f"max_files ({self.max_files}) must not exceed max_queue ({self.max_queue})"
            )
        sizes = self.max_pixels, self.max_request_pixels, self.max_pending_pixels
        if not sizes[0] <= sizes[1] <= sizes[2]:
            raise ValueError(
                f"max_pixels ({sizes[0]}) must not exceed max_request_pixels ({sizes[1]}), "
                f"nor that max_pending_pixels ({sizes[2]})"
            )
        if 3 * self.max_bytes > self.max_decode_bytes:  # a file, as it comes and on its way
            raise ValueError(
                f"max_decode_bytes ({self.max_decode_bytes}) must be three times max_bytes "
                f"({self.max_bytes}) at least"
            )
        return self

    @property
    def threads(self) -> int:
        """Threads that one worker computes with: its share of the cores it may run on."""
        return max(1, usable_cores() // self.workers)


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """A warning for each variable that has the settings' prefix and names none of them."""
    names = [name.upper() for name in Settings.model_fields]
    warnings = []
    for variable, value in environment.items():
        prefix, name = variable.upper()[: len(PREFIX)], variable.upper()[len(PREFIX) :]
        if prefix != PREFIX or _SERVICE_VARIABLE.fullmatch(name):
            continue
        if _SERVICE_LINK.fullmatch(value) and name.endswith("PORT"):
            if name == "PORT":
                warnings.append(f"{variable} is {value}, a Kubernetes service, and sets no port")
        elif name not in names:
            nearest = difflib.get_close_matches(name, names, 1)
            hint = f"; did you mean {PREFIX}{nearest[0]}?" if nearest else ""
            warnings.append(f"{variable} is no setting{hint}")
    return warnings


def _as_browsers_send(origin: str) -> str:
    """An address as an Origin header has it (RFC 6454, section 7): scheme, host, unusual port.

    Raises:
        ValueError: there is none in it.
    """
    try:
        parts = urlsplit(origin if "://" in origin else f"https://{origin}")
        host, port = (parts.hostname or "").encode("idna").decode(), parts.port
    except ValueError:
        host, port = "", None
    if not re.fullmatch(r"[\w.:-]+", host, re.ASCII):
        raise ValueError(f"{origin} is no web origin, as https://example.com is")
    host = f"[{host}]" if ":" in host else host
    usual = port in (None, _WEB_PORTS.get(parts.scheme))
    return f"{parts.scheme}://{host}" if usual else f"{parts.scheme}://{host}:{port}"
