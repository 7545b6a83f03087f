"""A small hub: serves model folders over the part of the Hugging Face hub's HTTP interface that downloads need.

`python -m tests.hub_server ROOT` serves ROOT/OWNER/NAME/REVISION/, where REVISION is a commit, and prints its port. REVISION `main` is
the file ROOT/OWNER/NAME/main, which holds a commit. The file ROOT/OWNER/NAME/token, if it is there, holds the token without which the
model is denied; its first word says how: `gated` or `private`. Files whose names are in ROOT/hidden are listed, but not
sent. Uploads are taken with the token `good`, as one commit that holds all files itself, as the real hub takes small ones; LFS and Xet
are not here. Each request is a line of ROOT/requests: method, path, status.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

TOKENS = ("good", "other")
"""The hub knows these."""


class Hub(BaseHTTPRequestHandler):
    """One request."""

    root: Path

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            owner, name, *rest = parts[2:]
            what, revision = (rest[0], rest[1]) if len(rest) > 1 else ("revision", "main")
        elif len(parts) > 4:
            owner, name, what, revision = parts[:4]
        else:
            return self._answer(404, {})
        repository = self.root / owner / name
        if (refusal := self._refusal(repository)) is not None:
            return self._answer(*refusal)
        commit = (repository / "main").read_text() if revision == "main" else revision
        folder = repository / commit
        if not folder.is_dir():
            return self._answer(404, {"X-Error-Code": "RevisionNotFound"})
        if what == "resolve":
            return self._file(folder / "/".join(parts[4:]), commit)
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        rows = [(path.relative_to(folder).as_posix(), path.stat().st_size, etag(path)) for path in files]
        content: Any = [{"type": "file", "path": path, "size": size, "oid": oid} for path, size, oid in rows]
        if what == "revision":
            siblings = [{"rfilename": path, "size": size, "blobId": oid} for path, size, oid in rows]
            content = {"id": f"{owner}/{name}", "sha": commit, "siblings": siblings}
        self._answer(200, {"Content-Type": "application/json"}, json.dumps(content).encode())

    def do_POST(self) -> None:
        """Creates a repository, says how files are sent, or takes a commit."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or self._chunks()
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if given not in TOKENS:
            return self._answer(401, {"X-Error-Message": "Invalid credentials in Authorization header"})
        if given == "other":
            return self._answer(403, {"X-Error-Message": "the token has no right to write"})
        if parts == ["api", "repos", "create"]:
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            (self.root / name).mkdir(parents=True, exist_ok=True)
            is_private = asked.get("private") or asked.get("visibility") == "private"
            (self.root / name / "private").write_text(str(is_private))
            return self._json({"url": f"http://{self.headers['Host']}/{name}"})
        if parts == ["api", "validate-yaml"]:  # the head of a model card
            return self._json({"errors": [], "warnings": []})
        _, _, owner, name, what, *_ = parts
        if what == "preupload":
            files = [one["path"] for one in json.loads(body)["files"]]
            return self._json({"files": [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in files]})
        commit = hashlib.sha1(body).hexdigest()
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                path = self.root / owner / name / commit / line["value"]["path"]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(base64.b64decode(line["value"]["content"]))
        (self.root / owner / name / "main").write_text(commit)
        self._json({"commitOid": commit, "commitUrl": f"http://{self.headers['Host']}/{owner}/{name}/commit/{commit}"})

    def _chunks(self) -> bytes:
        """The body of a request that is sent in chunks."""
        whole = b""
        while self.headers.get("Transfer-Encoding") == "chunked" and (size := int(self.rfile.readline(), 16)):
            whole += self.rfile.read(size)
            self.rfile.readline()
        return whole

    def _json(self, content: Any) -> None:
        self._answer(200, {"Content-Type": "application/json"}, json.dumps(content).encode())

    def _refusal(self, repository: Path) -> tuple[int, dict[str, str]] | None:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if given and given not in TOKENS:
            return 401, {"X-Error-Message": "Invalid credentials in Authorization header"}
        if not repository.is_dir():
            return 404 if given else 401, {"X-Error-Code": "RepoNotFound"}
        if (repository / "token").is_file():
            how, token = (repository / "token").read_text().split()
            if given != token:
                return (
                    (403, {"X-Error-Code": "GatedRepo"}) if how == "gated" else (404, {"X-Error-Code": "RepoNotFound"})
                )
        return None

    def _file(self, path: Path, commit: str) -> None:
        hidden = self.root / "hidden"
        if not path.is_file() or (hidden.is_file() and path.name in hidden.read_text()):
            return self._answer(404, {"X-Error-Code": "EntryNotFound"})
        headers = {"ETag": f'"{etag(path)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        content = path.read_bytes()
        begin = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        self._answer(206 if begin else 200, headers, content[begin:])

    def _answer(self, status: int, headers: dict[str, str], content: bytes = b"") -> None:
        with (self.root / "requests").open("a") as log:
            log.write(f"{self.command} {urlsplit(self.path).path} {status}\n")
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None: ...


def etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    Hub.root = Path(sys.argv[1])
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()
