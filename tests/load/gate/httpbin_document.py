"""Serves httpbin with what an operator would fill into its document, and prints the address.

httpbin's own document gives no values for what stands in a path and says nothing of the answers. Here
each path gets values, and each answer that httpbin gives to them is described: its media type and, if it
is JSON, the names at its root and their types. Values are not described.
"""

import json

from httpbin import app
from werkzeug.serving import make_server
from werkzeug.wrappers import Response

VALUES = {"n": 3, "offset": 1, "numbytes": 32, "delay": 0, "codes": 200, "value": 60, "etag": "evo"}
QUERIES = {"/drip": {"duration": 0, "delay": 0, "numbytes": 5}, "/redirect-to": {"url": "/get"}}
# They answer alike to every path below them, so that no path is a wrong one.
LEFT_OUT = ["/anything", "/anything/{anything}"]
TYPES = {dict: "object", list: "array", str: "string", int: "integer", float: "number", bool: "boolean"}


def schema_of(answer):
    if not answer.mimetype.endswith("json"):
        return {"type": "string"}
    body = answer.get_json(silent=True)
    if not isinstance(body, dict):
        return {}
    named = {name: TYPES.get(type(value)) for name, value in body.items()}
    properties = {name: {"type": kind} if kind else {} for name, kind in named.items()}
    return {"type": "object", "properties": properties, "required": sorted(body)}


def describe(client, path, verb, operation):
    query, place = {}, path
    for parameter in operation.get("parameters", []):
        name = parameter["name"]
        given = QUERIES.get(path, {})
        if parameter["in"] == "path":
            parameter.setdefault("default", VALUES.get(name, name))
            place = place.replace("{" + name + "}", str(parameter["default"]))
        elif name in given:
            parameter["default"] = query[name] = given[name]
    answer = client.open(place, method=verb.upper(), query_string=query, follow_redirects=True)
    if answer.status_code == 200:
        operation["produces"] = [answer.mimetype]
        operation["responses"] = {
            "200": {"description": "What it answers.", "schema": schema_of(answer)}
        }


def document():
    client = app.test_client()
    spec = client.get("/spec.json").get_json()
    spec["paths"] = {path: item for path, item in spec["paths"].items() if path not in LEFT_OUT}
    for path, item in spec["paths"].items():
        for verb in [verb for verb in item if verb != "trace"]:
            describe(client, path, verb, item[verb])
    return json.dumps(spec)


DOCUMENT = document()


def serve(environ, start_response):
    if environ["PATH_INFO"] == "/spec.json":
        return Response(DOCUMENT, content_type="application/json")(environ, start_response)
    return app(environ, start_response)


server = make_server("127.0.0.1", 0, serve, threaded=True)
print(f"listening on http://127.0.0.1:{server.port}", flush=True)
server.serve_forever()
