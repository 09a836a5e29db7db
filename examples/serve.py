"""A server that tells the class of a photo, by the standard library alone.

    mamljax adapt runs/own --support=my_classes --norm=support --output=adapted
    python examples/serve.py adapted.npz --port=8000
    curl --data-binary @photo.jpg localhost:8000

It answers ``{"label": ..., "probability": ..., "probabilities": {...}}``, and to what is no photo
``{"error": ...}`` with status 400. It is an example: put a real server in front of it, which speaks
TLS and limits how many ask at once.
"""

import argparse
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from mamljax import photos
from mamljax.checks import ArgumentError
from mamljax.data import DataError
from mamljax.photos import Classifier

MAX_BYTES = 2**25


def server(classifier: Classifier, port: int, host: str = "127.0.0.1") -> ThreadingHTTPServer:
    """A server that is ready for `serve_forever`; port 0 takes one that is free.

    Raises:
      ArgumentError: for a classifier whose predictions depend on the photos beside.
    """
    if classifier.recipe.norm == "batch":
        raise ArgumentError("one photo at a time needs an adapted model with --norm=support.")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            size = int(self.headers.get("Content-Length", 0))
            if not 0 < size <= MAX_BYTES:
                self.answer(413, {"error": f"a photo has 1 to {MAX_BYTES:,} bytes; got {size:,}"})
                return
            try:
                (found,) = photos.predict(classifier, [self.rfile.read(size)])
            except (ArgumentError, DataError) as error:
                self.answer(400, {"error": str(error)})
                return
            told = found._asdict()
            del told["photo"]  # which has no name
            self.answer(200, told)

        def answer(self, status, content):
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format, *values):
            """Be silent."""

    return ThreadingHTTPServer((host, port), Handler)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Tell the class of photos that are posted.")
    parser.add_argument("model", help="what `mamljax adapt` has written")
    parser.add_argument("--port", type=int, default=8000)
    given = parser.parse_args()
    with server(photos.load_classifier(given.model), given.port) as running:
        print(f"http://{running.server_address[0]}:{running.server_address[1]}", flush=True)
        running.serve_forever()
