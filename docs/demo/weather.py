"""A small weather service for the demo in docs/repair.md: python3 weather.py [PORT]

It describes itself at /openapi.json. Another release of it is deployed with POST /deploy/NUMBER:

  1  as its document says
  2  /weather has moved to /v1/weather, beside everything else; nobody has changed the document
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

CITIES = {"oslo": 7, "paris": 18, "cairo": 31, "lima": 22, "tokyo": 16}
COUNTRIES = ["Norway", "France", "Egypt", "Peru", "Japan"]
WEATHER = {1: "/weather", 2: "/v1/weather"}
release = 1


def document(server):
    text = {"type": "string"}

    def get(name, summary, schema, parameters=()):
        return {"get": {
            "operationId": name,
            "summary": summary,
            "parameters": list(parameters),
            "responses": {"200": {
                "description": "OK",
                "content": {"application/json": {"schema": schema}},
            }},
        }}

    city = {
        "name": "city", "in": "query", "required": True, "schema": text,
        "examples": {name: {"value": name} for name in CITIES},
    }
    weather = {
        "type": "object", "required": ["city", "celsius"],
        "properties": {"city": text, "celsius": {"type": "number"}},
    }
    names = {"type": "array", "items": text}
    return {
        "openapi": "3.0.3",
        "info": {"title": "Weather", "version": "1"},
        "servers": [{"url": server}],
        "paths": {
            "/weather": get("getWeather", "Temperature in a city.", weather, [city]),
            "/v1/cities": get("listCities", "Names of all cities.", names),
            "/v1/countries": get("listCountries", "Names of all countries.", names),
        },
    }


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        url = urlsplit(self.path)
        city = parse_qs(url.query).get("city", [""])[0]
        if url.path == "/openapi.json":
            self.answer(200, document(f"http://{self.headers['Host']}"))
        elif url.path == "/v1/cities":
            self.answer(200, list(CITIES))
        elif url.path == "/v1/countries":
            self.answer(200, COUNTRIES)
        elif url.path != WEATHER[release]:
            self.answer(404, {"error": f"there is no {url.path}"})
        elif city not in CITIES:
            self.answer(400, {"error": "no such city"})
        else:
            self.answer(200, {"city": city, "celsius": CITIES[city]})

    def do_POST(self):
        global release
        number = self.path.removeprefix("/deploy/")
        if number not in ("1", "2"):
            return self.answer(404, {"error": "there are releases 1 and 2"})
        release = int(number)
        self.answer(200, {"release": release})

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode() + b"\n")

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
