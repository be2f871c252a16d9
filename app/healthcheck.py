"""`python -m app.healthcheck`: exit code 0 if the service on this machine is ready, else 1."""

import http.client
import os
import sys


def main() -> int:
    """Asks /health/ready on the port of PERCEIVER_PORT."""
    given = os.environ.get("PERCEIVER_PORT", "")
    port = int(given) if given.isdecimal() else 8000  # Kubernetes may set it to tcp://...
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/health/ready")
        return 0 if connection.getresponse().status == 200 else 1
    except OSError:
        return 1


if __name__ == "__main__":
    sys.exit(main())
