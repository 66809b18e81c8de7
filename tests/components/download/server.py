"""A server on loopback that serves shards and plans, and fails as it is told."""

import contextlib
import hashlib
import http.server
import json
import socket
import struct
import threading
import time


class FaultServer:
    """Files by path, and for some what goes wrong.

    Attributes:
        files: bytes by path.
        faults: by path: a function for each of its next requests, called with the handler and the
            file's bytes in place of sending it.
        requests: (method, path, range or empty), in order.
        etags: by path; by default the content's digest. Empty: none is sent.
    """

    def __init__(self):
        self.files, self.faults, self.etags = {}, {}, {}
        self.requests = []
        self.ranges = True
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_HEAD(self):
                server.answer(self, body=False)

            def do_GET(self):
                server.answer(self)

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self._http.shutdown()
        self._http.server_close()

    def release(self, shards, partition="2/frame"):
        """Serve shards, bytes by (split, name), with their plans; returns the source."""
        release, level = partition.split("/")
        plans = {}
        for (split, name), content in shards.items():
            self.files[f"/{partition}/{split}/{name}"] = content
            digest = hashlib.md5(content).hexdigest()
            plans.setdefault(split, {})[name] = digest
        for split, plan in plans.items():
            path = f"/{release}/download_plans/{level}_{split}.json"
            self.files[path] = json.dumps({"files": plan}).encode()
        return f"{self.url}/{partition}"

    def got(self, path):
        """Ranges of the GET requests of a path."""
        return [asked for method, one, asked in self.requests if (method, one) == ("GET", path)]

    def answer(self, handler, body=True):
        path = handler.path
        asked = handler.headers.get("Range", "")
        self.requests.append((handler.command, path, asked))
        content = self.files.get(path)
        faults = self.faults.get(path)
        if body and faults:
            fault = faults.pop(0) if isinstance(faults, list) else faults
            if fault is not None:
                with contextlib.suppress(OSError):
                    fault(handler, content)
                return
        if content is None:
            status(404)(handler, content)
            return
        send(handler, content, self.etag(path, content), body, self.ranges)

    def etag(self, path, content):
        return self.etags.get(path, f'"{hashlib.sha1(content).hexdigest()}"')


def send(handler, content, etag="", body=True, ranges=True, cut=None):
    """The content as asked for; `cut`: so many bytes of the answer's body alone."""
    asked = handler.headers.get("Range", "")
    unchanged = handler.headers.get("If-Range", etag) == etag
    start = 0
    if asked and ranges and unchanged:
        start = int(asked.removeprefix("bytes=").partition("-")[0])
        if start >= len(content):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(content)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    else:
        handler.send_response(200)
    handler.send_header("Content-Length", str(len(content) - start))
    if etag:
        handler.send_header("ETag", etag)
    handler.end_headers()
    if body:
        part = content[start:]
        handler.wfile.write(part if cut is None else part[:cut])
    if cut is not None:
        handler.close_connection = True


def status(code, **headers):
    def fault(handler, content):
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return fault


def redirect(url):
    return status(302, Location=url)


def reset(after):
    """The connection is reset after so many bytes of the body."""

    def fault(handler, content):
        send(handler, content, cut=after)
        handler.wfile.flush()
        linger = struct.pack("ii", 1, 0)
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        handler.close_connection = True

    return fault


def truncated(after, etag=""):
    """The body ends early, against its stated length."""
    return lambda handler, content: send(handler, content, etag, cut=after)


def endless(after=None):
    """No length is stated: the connection's end is the body's; `after` bytes of it."""

    def fault(handler, content):
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(content if after is None else content[:after])
        handler.close_connection = True

    return fault


def chunked(after):
    """A chunked body that breaks off after so many bytes."""

    def fault(handler, content):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"%x\r\n" % len(content) + content[:after])
        handler.close_connection = True

    return fault


def wrong(handler, content):
    """As many other bytes."""
    send(handler, bytes(255 - byte for byte in content))


def ignores_range(handler, content):
    """All of it, whatever was asked for."""
    send(handler, content, ranges=False)


def other_range(handler, content):
    """A part that was not asked for."""
    handler.send_response(206)
    handler.send_header("Content-Range", f"bytes 1-{len(content) - 1}/{len(content)}")
    handler.send_header("Content-Length", str(len(content) - 1))
    handler.end_headers()
    handler.wfile.write(content[1:])


def stalls(after, seconds):
    """Some bytes, and then none."""

    def fault(handler, content):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[:after])
        handler.wfile.flush()
        time.sleep(seconds)
        handler.close_connection = True

    return fault


def drips(pause):
    """A byte at a time."""

    def fault(handler, content):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        for i in range(len(content)):
            handler.wfile.write(content[i : i + 1])
            handler.wfile.flush()
            time.sleep(pause)

    return fault


def odd_length(handler, content):
    """A length of thousands of digits."""
    handler.send_response(200)
    handler.send_header("Content-Length", "9" * 5000)
    handler.end_headers()
    handler.wfile.write(content[:500])
    handler.close_connection = True
