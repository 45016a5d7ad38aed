"""Serves httpbin on a free loopback port and prints its address.

The document at /spec.json is httpbin's own, with one change: the two path parameters that inject
faults get a value, so that Learning can try them. It names httpbin.org as its host; Evo takes it as
served from where it was loaded, since only that origin is allowed.
"""

import json

from httpbin import app
from werkzeug.serving import make_server
from werkzeug.wrappers import Response

FAULTS = {"/status/{codes}": ("codes", 503), "/delay/{delay}": ("delay", 10)}


def document():
    spec = app.test_client().get("/spec.json").get_json()
    for path, (name, value) in FAULTS.items():
        for operation in spec["paths"][path].values():
            for parameter in operation["parameters"]:
                if parameter["name"] == name:
                    parameter["default"] = value
    return json.dumps(spec)


def serve(environ, start_response):
    if environ["PATH_INFO"] == "/spec.json":
        body = document()
        return Response(body, content_type="application/json")(environ, start_response)
    return app(environ, start_response)


server = make_server("127.0.0.1", 0, serve, threaded=True)
print(f"listening on http://127.0.0.1:{server.port}", flush=True)
server.serve_forever()
