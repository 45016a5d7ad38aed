"""OpenTelemetry's own exporter sends traces to king, which lists them whole.

Usage: otel_exporter.py KING OPERATOR_TOKEN RUNNER_TOKEN VIEWER_TOKEN
"""

import sys

from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

from client import Http, done, equal

king, operator_token, runner_token, viewer_token = sys.argv[1:]
http = Http(king, operator_token)
CHILDREN = 40


def exporter(token, compression):
    head = {"authorization": f"Bearer {token}"}
    return OTLPSpanExporter(endpoint=f"{king}/v1/traces", headers=head, compression=compression, timeout=10)


def provider(service, compression):
    made = TracerProvider(resource=Resource.create({"service.name": service}))
    # Batches that are smaller than the trace.
    made.add_span_processor(BatchSpanProcessor(exporter(runner_token, compression), max_export_batch_size=16))
    return made


def send(compression):
    """A trace over two programs: a root, and work below it, one piece of which fails."""
    name = f"journey {compression.name}"
    programs = [provider(service, compression) for service in ["shop", "cashier"]]
    shop, cashier = [program.get_tracer("walk") for program in programs]
    root = shop.start_span(name, kind=SpanKind.SERVER, attributes={"text": "池塘", "number": 7, "ratio": 0.5, "yes": True, "list": ["a", "b"]})
    inside, ids = set_span_in_context(root), {}
    for place in range(CHILDREN):
        child = cashier.start_span(f"step {place}", context=inside, kind=SpanKind.CLIENT, attributes={"place": place})
        if place == 3:
            child.add_event("looked", {"twice": True})
            child.record_exception(ValueError("no change"))
            child.set_status(Status(StatusCode.ERROR, "no change"))
        child.end()
        ids[child.get_span_context().span_id] = place
    root.set_status(Status(StatusCode.OK))
    root.end()
    for program in programs:
        assert program.force_flush(), "king did not take the spans"
        program.shutdown()
    return name, root, ids


def check(name, root, ids):
    """The trace is there as it was sent."""
    told = root.get_span_context()
    trace_id = f"{told.trace_id:032x}"
    page = http.get("/traces?service=cashier&limit=50")["traces"]
    entry = next(trace for trace in page if trace["trace_id"] == trace_id)
    equal("the root", entry["root_span_name"], name)
    equal("its spans", entry["span_count"], CHILDREN + 1)
    spans = http.get(f"/traces/{trace_id}")["spans"]
    equal("spans", len(spans), CHILDREN + 1)
    by_id = {span["span_id"]: span for span in spans}
    top = by_id.pop(f"{told.span_id:016x}")
    found = (top["name"], top["service"], top["kind"], top["status"], top["parent_span_id"])
    equal("the root span", found, (name, "shop", "server", "ok", None))
    wanted = {"text": "池塘", "number": 7, "ratio": 0.5, "yes": True, "list": ["a", "b"]}
    equal("its attributes", {key: top["attributes"].get(key) for key in wanted}, wanted)
    for span_id, place in ids.items():
        span = by_id.pop(f"{span_id:016x}")
        found = (span["name"], span["service"], span["kind"], span["parent_span_id"], span["attributes"]["place"])
        equal("a span", found, (f"step {place}", "cashier", "client", top["span_id"], place))
        equal("how it went", span["status"], "error" if place == 3 else "unset")
        if place == 3:
            equal("why", span["status_message"], "no change")
            equal("what happened", [event["name"] for event in span["events"]], ["looked", "exception"])
            equal("the exception", span["events"][1]["attributes"]["exception.type"], "ValueError")
    equal("other spans", by_id, {})


for compression in [Compression.NoCompression, Compression.Gzip]:
    check(*send(compression))

# Without a token that may, nothing is taken.
stranger = TracerProvider()
unsent = stranger.get_tracer("walk").start_span("unwanted")
unsent.end()
for token in ["", viewer_token]:
    equal("spans of a stranger", exporter(token, Compression.Gzip).export([unsent]), SpanExportResult.FAILURE)
equal("traces", len(http.get("/traces?limit=50")["traces"]), 2)
done()
