"""Fetching Omniglot, from a server on this machine that can misbehave."""

import contextlib
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from mamljax.data import DataError, omniglot

FILES = {"images_background.zip": b"background" * 30_000, "images_evaluation.zip": b"evaluation"}
MD5 = {name: hashlib.md5(data).hexdigest() for name, data in FILES.items()}


@contextlib.contextmanager
def serving(answer):
    """``(url, names asked for)``; `answer` makes of a name the (status, length, data) to send."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path.split("/")[-1])
            status, length, data = answer(asked[-1])
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(data)

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/python", asked
        finally:
            server.shutdown()
            thread.join()


def honest(name):
    return 200, len(FILES[name]), FILES[name]


def test_fetches_what_is_missing_and_that_alone(tmp_path):
    folder = tmp_path / "new" / "omniglot"
    with serving(honest) as (url, asked):
        omniglot.download(folder, url, MD5)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES
        (folder / "images_evaluation.zip").unlink()
        (folder / "images_background.zip").unlink()
        (folder / "images_background").mkdir()
        omniglot.download(folder, url, MD5)
    assert asked == [*FILES, "images_evaluation.zip"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda name: (404, 0, b""), "could not be fetched .*404"),
        (lambda name: (200, 5, b"other"), "is not the file that was published"),
        (lambda name: (200, len(FILES[name]), FILES[name][:-5]), "not the file|could not be fetch"),
        (lambda name: (200, 0, b""), "is not the file that was published"),
    ],
)
def test_anything_else_is_refused_and_leaves_nothing(tmp_path, answer, message):
    with serving(answer) as (url, _), pytest.raises(DataError, match=message):
        omniglot.download(tmp_path, url, MD5)
    assert list(tmp_path.iterdir()) == []


def test_endless_answers_end(tmp_path, monkeypatch):
    monkeypatch.setattr(omniglot, "MAX_BYTES", 1000)
    with serving(honest) as (url, _), pytest.raises(DataError, match="is not the file"):
        omniglot.download(tmp_path, url, MD5)
    assert list(tmp_path.iterdir()) == []


def test_no_server_says_what_to_do(tmp_path):
    with serving(honest) as (url, _):
        pass
    with pytest.raises(
        DataError, match=r"could not be fetched .*: try again, or put .* there your"
    ):
        omniglot.download(tmp_path, url, MD5)


def test_a_folder_that_cannot_be_written(tmp_path, write):
    write(tmp_path / "file")
    with pytest.raises(DataError, match=r"could not be fetched into .*file"):
        omniglot.download(tmp_path / "file", "http://127.0.0.1:9", MD5)
