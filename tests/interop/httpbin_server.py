"""Serves httpbin on a free loopback port and prints its address.

The document at /spec.json is httpbin's own, with two changes: it names the address at which it is
served instead of httpbin.org, and the two path parameters that inject faults get a value, so that
Learning can try them.
"""

import json

from httpbin import app
from werkzeug.serving import make_server
from werkzeug.wrappers import Response

FAULTS = {"/status/{codes}": ("codes", 503), "/delay/{delay}": ("delay", 10)}


def document(host):
    spec = app.test_client().get("/spec.json").get_json()
    spec["host"], spec["schemes"] = host, ["http"]
    for path, (name, value) in FAULTS.items():
        for operation in spec["paths"][path].values():
            for parameter in operation["parameters"]:
                if parameter["name"] == name:
                    parameter["default"] = value
    return json.dumps(spec)


def serve(environ, start_response):
    if environ["PATH_INFO"] == "/spec.json":
        body = document(environ["HTTP_HOST"])
        return Response(body, content_type="application/json")(environ, start_response)
    return app(environ, start_response)


server = make_server("127.0.0.1", 0, serve, threaded=True)
print(f"listening on http://127.0.0.1:{server.port}", flush=True)
server.serve_forever()
