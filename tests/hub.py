"""A Hub of one process: what `huggingface_hub` asks of the real one to create, fill and download repositories.

It holds whole repositories in memory, git files and large files (LFS, basic transfer) apart as the real one does, and
wants the token for whatever changes something. The protocol: https://huggingface.co/docs/hub/api and git-lfs's batch API.
"""

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse

LARGE = (".safetensors", ".wav", ".png")  # what the Hub's own .gitattributes sends to large storage


class Hub:
    """Repositories by (type, name): files, and the messages of the commits."""

    def __init__(self, token: str) -> None:
        self.token, self.address = token, ""
        self.files: dict[tuple[str, str], dict[str, bytes]] = {}
        self.commits: dict[tuple[str, str], list[str]] = {}
        self.large: dict[str, bytes] = {}  # by sha256
        self.downloads: list[str] = []

    def revision(self, repo: tuple[str, str]) -> str:
        return hashlib.sha1("\n".join([*repo, *self.commits[repo]]).encode()).hexdigest()

    def commit(self, repo: tuple[str, str], lines: list[dict]) -> str:
        files = self.files[repo]
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
            elif line["key"] == "header":
                self.commits[repo].append(value["summary"])
            else:
                raise HTTPException(400, f"unknown operation {line['key']}")
        return self.revision(repo)

    def app(self) -> FastAPI:
        app = FastAPI()

        def owner(request: Request) -> None:
            if request.headers.get("authorization") != f"Bearer {self.token}":
                raise HTTPException(401, "Invalid credentials")

        def found(kind: str, org: str, name: str) -> tuple[str, str]:
            repo = (kind.removesuffix("s"), f"{org}/{name}")
            if repo not in self.files:
                raise HTTPException(404, headers={"X-Error-Code": "RepoNotFound"})
            return repo

        @app.post("/api/repos/create", dependencies=[Depends(owner)])
        async def create(request: Request) -> Response:
            asked = await request.json()
            kind, name = asked.get("type", "model"), f"{asked.get('organization', 'me')}/{asked['name']}"
            if kind == "space" and asked.get("sdk") != "gradio":
                raise HTTPException(400, "a Space needs its sdk")
            known, url = (kind, name) in self.files, f"{self.address}/{'spaces/' if kind == 'space' else ''}{name}"
            if not known:
                self.files[kind, name], self.commits[kind, name] = {".gitattributes": b"*.safetensors filter=lfs\n"}, ["initial commit"]
            return JSONResponse({"url": url}, 409 if known else 200)

        @app.post("/api/validate-yaml")
        async def validate(request: Request) -> dict:
            content = (await request.json())["content"]
            return {"errors": [] if content.startswith("---\n") else [{"message": "no front matter"}], "warnings": []}

        @app.get("/api/{kind}/{org}/{name}")
        @app.get("/api/{kind}/{org}/{name}/revision/{revision}")
        def info(kind: str, org: str, name: str) -> dict:
            repo = found(kind, org, name)
            return {"id": repo[1], "sha": self.revision(repo), "private": False, "tags": [], "downloads": 0, "likes": 0,
                    "siblings": [{"rfilename": path} for path in self.files[repo]]}

        @app.get("/api/{kind}/{org}/{name}/tree/{revision}")
        @app.get("/api/{kind}/{org}/{name}/tree/{revision}/{under:path}")
        def tree(kind: str, org: str, name: str, under: str = "") -> list[dict]:
            files = self.files[found(kind, org, name)]
            inside = {path: data for path, data in files.items() if path.startswith(under and f"{under}/")}
            if under and not inside:
                raise HTTPException(404, headers={"X-Error-Code": "EntryNotFound"})
            return [{"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                    for path, data in inside.items()]

        @app.post("/api/{kind}/{org}/{name}/preupload/{revision}", dependencies=[Depends(owner)])
        async def preupload(kind: str, org: str, name: str, request: Request) -> dict:
            found(kind, org, name)
            return {"files": [{"path": file["path"], "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                               "shouldIgnore": False} for file in (await request.json())["files"]]}

        @app.post("/{org}/{name}.git/info/lfs/objects/batch", dependencies=[Depends(owner)])
        @app.post("/{prefix}/{org}/{name}.git/info/lfs/objects/batch", dependencies=[Depends(owner)])
        async def batch(request: Request) -> Response:
            objects = [dict(o) | ({} if o["oid"] in self.large else {"actions": {"upload": {"href": f"{self.address}/large/{o['oid']}"}}})
                       for o in (await request.json())["objects"]]
            return Response(json.dumps({"transfer": "basic", "objects": objects}), media_type="application/vnd.git-lfs+json")

        @app.put("/large/{oid}")
        async def store(oid: str, request: Request) -> None:
            data = await request.body()
            if hashlib.sha256(data).hexdigest() != oid:
                raise HTTPException(400, "the content is not what was announced")
            self.large[oid] = data

        @app.post("/api/{kind}/{org}/{name}/commit/{revision}", dependencies=[Depends(owner)])
        async def commit(kind: str, org: str, name: str, request: Request) -> dict:
            repo = found(kind, org, name)
            revision = self.commit(repo, [json.loads(line) for line in (await request.body()).splitlines()])
            return {"success": True, "commitOid": revision, "commitUrl": f"{self.address}/{repo[1]}/commit/{revision}", "hookOutput": ""}

        @app.api_route("/{org}/{name}/resolve/{revision}/{path:path}", methods=["GET", "HEAD"])
        def resolve(org: str, name: str, path: str, request: Request) -> Response:
            repo = found("models", org, name)
            headers = {"X-Repo-Commit": self.revision(repo)}
            if path not in self.files[repo]:
                raise HTTPException(404, headers=headers | {"X-Error-Code": "EntryNotFound"})
            data = self.files[repo][path]
            if request.method == "GET":
                self.downloads.append(path)
            headers |= {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "Content-Length": str(len(data))}
            return Response(b"" if request.method == "HEAD" else data, headers=headers)

        return app


@contextmanager
def serve(token: str) -> Iterator[Hub]:
    """A running Hub at `hub.address`, which is what HF_ENDPOINT wants."""
    hub = Hub(token)
    server = uvicorn.Server(uvicorn.Config(hub.app(), host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise RuntimeError("the Hub of the tests did not start")
        time.sleep(0.01)
    hub.address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield hub
    finally:
        server.should_exit = True
        thread.join(10)
