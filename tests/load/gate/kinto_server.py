"""Serves Kinto, a real store of JSON documents, on a free loopback port and prints its address.

Its document is the one that it serves itself, at /document.json, with what an operator would fill in:
the paths name a bucket, a collection, a group and a record that are there, and what is written has an
example. Everything belongs to one user; nobody else may read it. Nothing outlives the process.
"""

import base64
import json
import logging
import warnings

import kinto
from waitress import create_server
from webob import Request

USER = b"gate:benchmark"
BODY = {"data": {"note": "kept"}}
SETTINGS = {
    "kinto.storage_backend": "kinto.core.storage.memory",
    "kinto.permission_backend": "kinto.core.permission.memory",
    "kinto.cache_backend": "kinto.core.cache.memory",
    "kinto.userid_hmac_secret": "benchmark",
    "multiauth.policies": "basicauth",
    "kinto.bucket_create_principals": "system.Authenticated",
}
THERE = [
    "/buckets/demo",
    "/buckets/demo/collections/demo",
    "/buckets/demo/groups/demo",
    *(f"/buckets/demo/collections/demo/records/{name}" for name in ["demo", "second", "third"]),
]

logging.disable(logging.WARNING)
warnings.simplefilter("ignore")
app = kinto.main({}, **SETTINGS)


def call(path, method="GET", body=None):
    request = Request.blank("/v1" + path, method=method)
    request.authorization = "Basic " + base64.b64encode(USER).decode()
    if body is not None:
        request.content_type = "application/json"
        request.body = json.dumps(body).encode()
    answer = request.get_response(app)
    assert answer.status_int < 300, (path, answer.status, answer.text)
    return answer.json


def body_of(path):
    members = {"members": ["basicauth:one"]} if "/groups" in path else {}
    return {"data": {**BODY["data"], **members}}


def document():
    spec = call("/__api__")
    for path, item in spec["paths"].items():
        given = [item, *(operation for name, operation in item.items() if name != "parameters")]
        for parameter in (entry for part in given for entry in part.get("parameters", [])):
            if parameter["in"] == "path":
                parameter["default"] = "demo"
            elif parameter["in"] == "body" and path != "/batch":
                parameter["schema"]["example"] = body_of(path)
    return json.dumps(spec).encode()


for path in THERE:
    call(path, "PUT", body_of(path))
DOCUMENT = document()


def serve(environ, start_response):
    if environ["PATH_INFO"] == "/document.json":
        start_response("200 OK", [("Content-Type", "application/json")])
        return [DOCUMENT]
    return app(environ, start_response)


server = create_server(serve, host="127.0.0.1", port=0, threads=8)
print(f"listening on http://127.0.0.1:{server.effective_port}", flush=True)
server.run()
