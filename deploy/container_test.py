"""Builds the project's image and tries what an operator relies on; needs no package.

    python deploy/container_test.py [ENGINE]

ENGINE takes docker's arguments: docker (the default), podman, or a script. The image runs on a
read-only file system, without capabilities, as the user that it names itself. Ends with exit code 0
where all held, and prints the image's size and the time from start to ready.
"""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMAGE = "perceiver-serve:test"
NAME = "perceiver-container-test"
MAX_MB = 400  # unpacked, in millions of bytes
START_LIMIT_S = 30.0
DRAIN_DELAY_S = 10.0
STOP_LIMIT_S = 20.0


class Engine:
    """A container engine with docker's command line."""

    def __init__(self, command: str) -> None:
        # As given if it can be found from here, whatever the folder.
        self._command = str(Path(command).resolve()) if "/" in command else command

    def __call__(self, *arguments: str) -> str:
        """What the command prints; raises `CalledProcessError` where it fails."""
        result = subprocess.run(
            [self._command, *arguments], cwd=ROOT, check=False, capture_output=True, text=True
        )
        if result.returncode:
            print(result.stdout, result.stderr, sep="\n", file=sys.stderr)
            result.check_returncode()
        return result.stdout.strip()


def main(command: str = "docker") -> None:
    """Builds, runs, asks and stops; raises where something does not hold."""
    engine = Engine(command)
    started = time.monotonic()
    engine("build", "--tag", IMAGE, ".")
    built_s = time.monotonic() - started
    image = json.loads(engine("inspect", "--type", "image", IMAGE))[0]
    megabytes = image["Size"] / 1e6
    print(f"built in {built_s:.0f} s, {megabytes:.0f} MB unpacked")
    check(megabytes < MAX_MB, f"the image has more than {MAX_MB} MB")
    with suppress(subprocess.CalledProcessError):
        engine("rm", "--force", NAME)
    port = free_port()
    engine(
        *("run", "--detach", "--name", NAME, "--read-only"),
        *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *("--publish", f"127.0.0.1:{port}:{port}", "--env", f"PERCEIVER_PORT={port}"),
        # To run the health check in a container may take seconds where the cores are busy.
        *("--env", f"PERCEIVER_DRAIN_DELAY_S={DRAIN_DELAY_S}"),
        IMAGE,
    )
    try:
        wait_until_ready(engine, f"http://127.0.0.1:{port}")
        try_it(engine, f"http://127.0.0.1:{port}", image)
    except BaseException:
        print(engine("logs", NAME), file=sys.stderr)
        raise
    finally:
        engine("rm", "--force", NAME)
    print("the container holds")


def wait_until_ready(engine: Engine, url: str) -> None:
    """Prints how long it took from the start of the container's process."""
    limit = time.monotonic() + START_LIMIT_S
    while status(f"{url}/health/ready") != 200:
        check(time.monotonic() < limit, "it does not get ready")
        time.sleep(0.01)
    ready = datetime.now(UTC)
    started = datetime.fromisoformat(state(engine)["StartedAt"][:23] + "+00:00")
    print(f"ready {(ready - started).total_seconds():.2f} s after the start")


def try_it(engine: Engine, url: str, image: dict) -> None:
    """All that a running container should do, and a clean end."""
    user = engine("exec", NAME, "id", "-u")
    check(user == image["Config"]["User"] != "0", f"it runs as user {user}")
    metadata = json.loads(get(f"{url}/metadata"))
    check(metadata["engine"]["name"] == "onnxruntime", "it computes in another engine")
    seven = (ROOT / "app/samples/7.png").read_bytes()
    answer = json.loads(get(f"{url}/predict", seven))
    check(answer["digit"] == 7, f"it reads {answer}")
    print(f"{answer['model']} {answer['version']} reads a 7 as {answer['label']}")

    # Docker tells it among the settings, podman beside them.
    how, *check_command = {**image, **image["Config"]}["Healthcheck"]["Test"]
    check(how == "CMD", f"the health check is {how}")
    engine("exec", NAME, *check_command)
    engine("kill", "--signal", "TERM", NAME)
    while status(f"{url}/health/ready") == 200:
        pass
    check(status(f"{url}/health/live") == 200, "it died instead of draining")
    try:
        engine("exec", NAME, *check_command)
    except subprocess.CalledProcessError as error:
        check(error.returncode == 1, "the health check breaks")
    else:
        raise SystemExit("container test: the health check says it is ready while it drains")
    print("the health check tells ready from draining")
    signalled = time.monotonic()
    while state(engine)["Running"]:
        check(time.monotonic() < signalled + STOP_LIMIT_S, "SIGTERM does not end it")
    code = state(engine)["ExitCode"]
    check(code == 0, f"SIGTERM ended it with exit code {code}")
    print("SIGTERM ended it with exit code 0")


def state(engine: Engine) -> dict:
    """The container's state as the engine tells it."""
    return json.loads(engine("inspect", "--type", "container", NAME))[0]["State"]


def get(url: str, image: bytes | None = None) -> bytes:
    """The body of a GET, or of a POST of an image."""
    request = urllib.request.Request(url, image, {"Content-Type": "image/png"})
    with urllib.request.urlopen(request, timeout=10) as response:
        return response.read()


def status(url: str) -> int:
    """The status of a GET, 0 where nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def check(holds: bool, sentence: str) -> None:
    """Ends the test with the sentence where something does not hold."""
    if not holds:
        raise SystemExit(f"container test: {sentence}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
