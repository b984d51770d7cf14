#!/usr/bin/env bash
# OpenTelemetry's SDKs, each with its limits as they come: of a span with more than 128 links the SDK of Java 1.68.0 keeps
# the first 128; those of Python 1.45.2 and JavaScript 2.12.1 keep the last 128 and throw out what they had. The
# specification allows to discard links "that would increase the number" beyond the limit, which is what Java does. So the
# span of a batch, with a link to each request that it serves, shows other requests by the language of its server, and
# 44 of 300 are shown by none. All three count 172 as dropped.
#
# Seen, of 300 links numbered from 0: Python and JavaScript 172 to 299; Java 0 to 127.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

mkdir python javascript java
(
  cd python
  python3 -m venv venv
  venv/bin/python -m pip install -q --disable-pip-version-check opentelemetry-sdk==1.45.2
  cat >links.py <<'CODE'
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Link, SpanContext, TraceFlags

links = [Link(SpanContext(i + 1, i + 1, True, TraceFlags(1)), {"row": i}) for i in range(300)]
span = TracerProvider().get_tracer("finding").start_span("batch", links=links)
rows = [link.attributes["row"] for link in span.links]
print(rows[0], "to", rows[-1], "of", len(rows) + span.dropped_links)
CODE
  venv/bin/python links.py >../python.txt
)
(
  cd javascript
  npm install --silent --no-audit --no-fund --no-save @opentelemetry/sdk-trace-base@2.12.1 @opentelemetry/api@1.9.1
  cat >links.mjs <<'CODE'
import { BasicTracerProvider } from "@opentelemetry/sdk-trace-base";

const id = (i, digits) => (i + 1).toString(16).padStart(digits, "0");
const links = [...Array(300).keys()].map((row) => ({
  context: { traceId: id(row, 32), spanId: id(row, 16), traceFlags: 1 },
  attributes: { row },
}));
const span = new BasicTracerProvider().getTracer("finding").startSpan("batch", { links });
const rows = span.links.map((link) => link.attributes.row);
console.log(`${rows[0]} to ${rows.at(-1)} of ${rows.length + span.droppedLinksCount}`);
CODE
  node links.mjs >../javascript.txt
)
(
  cd java
  mvn -q -B -Dstyle.color=never -Dmaven.repo.local="$work/m2" dependency:get -Dartifact=io.opentelemetry:opentelemetry-sdk-trace:1.68.0
  cat >Links.java <<'CODE'
import io.opentelemetry.api.common.AttributeKey;
import io.opentelemetry.api.common.Attributes;
import io.opentelemetry.api.trace.SpanBuilder;
import io.opentelemetry.api.trace.SpanContext;
import io.opentelemetry.api.trace.TraceFlags;
import io.opentelemetry.api.trace.TraceState;
import io.opentelemetry.context.Context;
import io.opentelemetry.sdk.trace.ReadWriteSpan;
import io.opentelemetry.sdk.trace.ReadableSpan;
import io.opentelemetry.sdk.trace.SdkTracerProvider;
import io.opentelemetry.sdk.trace.SpanProcessor;

class Links {
  // Without a processor the SDK hands out spans that record nothing.
  static class Watching implements SpanProcessor {
    public void onStart(Context parent, ReadWriteSpan span) {}
    public boolean isStartRequired() { return true; }
    public void onEnd(ReadableSpan span) {}
    public boolean isEndRequired() { return true; }
  }

  public static void main(String[] arguments) {
    var row = AttributeKey.longKey("row");
    var provider = SdkTracerProvider.builder().addSpanProcessor(new Watching()).build();
    SpanBuilder builder = provider.get("finding").spanBuilder("batch");
    for (long i = 0; i < 300; i++) {
      var context = SpanContext.create(String.format("%032x", i + 1), String.format("%016x", i + 1),
          TraceFlags.getSampled(), TraceState.getDefault());
      builder.addLink(context, Attributes.of(row, i));
    }
    var span = ((ReadableSpan) builder.startSpan()).toSpanData();
    var links = span.getLinks();
    System.out.println(links.get(0).getAttributes().get(row) + " to "
        + links.get(links.size() - 1).getAttributes().get(row) + " of " + span.getTotalRecordedLinks());
  }
}
CODE
  java -cp "$(find "$work/m2/io/opentelemetry" -name '*.jar' | paste -sd :)" Links.java >../java.txt
)

seen=$(for language in python javascript java; do echo "$language $(cat $language.txt)"; done)
echo "$seen"
diff <(echo "$seen") - <<'EXPECTED'
python 172 to 299 of 300
javascript 172 to 299 of 300
java 0 to 127 of 300
EXPECTED
echo "still so in these versions"
