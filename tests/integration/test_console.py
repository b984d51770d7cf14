"""The console in a browser: what it draws is what the router says, and leads from a slow request to its cause."""

import re
import threading
import urllib.request

import grpc
import pytest
from bad_node import BadNode
from browser import PATIENCE_MS, PHONE, Browser
from expertmesh import ForwardOptions
from expertmesh.v1 import control_pb2, control_pb2_grpc, trace_pb2
from mesh import HOST, PATIENCE, Mesh, hidden_states, shards, wait_until

# Seconds that each answer of the slow node is late; others take a few milliseconds, on a busy machine some ten.
DELAY = 0.5
SLOW = "node1"
MARKUP = "<img src=x onerror=alert(1)>"
PAGES = {f"#/{name.lower()}": name for name in ("Overview", "Nodes", "Experts", "Balance", "Latency", "Traces")}


@pytest.fixture(scope="module")
def browser():
    with Browser() as made:
        yield made


@pytest.fixture(scope="module")
def serving(tmp_path_factory, checkpoint):
    """Three nodes, of which the second is slow; every request is traced."""
    with Mesh(tmp_path_factory.mktemp("mesh")) as mesh:
        mesh.start_nodes(checkpoint.path, shards(3))
        with BadNode(mesh.nodes[1]) as slow:
            slow.delay = DELAY
            nodes = [mesh.nodes[0].address, slow.address, mesh.nodes[2].address]
            # No node is left out for being slow: that is for people to see here.
            flags = ("--trace-ratio=1", "--attempt-timeout=inf", "--max-queue-delay-us=20000")
            mesh.start_router(checkpoint.path, *flags, nodes=nodes)
            mesh.wait_ready()
            yield mesh


@pytest.fixture(scope="module")
def quiet(tmp_path_factory, checkpoint):
    """A mesh that keeps no trace, with a node whose name is markup, and long."""
    with Mesh(tmp_path_factory.mktemp("quiet")) as mesh:
        mesh.start(checkpoint.path, [["--node-id", f"{MARKUP}-{'long' * 40}"]], "--trace-ratio=0", "--trace-slow=inf")
        yield mesh


def control(mesh):
    return control_pb2_grpc.ControlStub(mesh.client.channel)


def forward(mesh, checkpoint, tokens=16, **options):
    mesh.client.forward(0, hidden_states(tokens, checkpoint.d_model), ForwardOptions(**options))


def traces(mesh, name="", spans=0):
    request = trace_pb2.ListTracesRequest(limit=1000)
    listed = control(mesh).ListTraces(request, timeout=PATIENCE).traces
    return [each for each in listed if each.name.endswith(name) and each.spans >= spans]


def trace_of_one(mesh, checkpoint):
    """The id of a trace that has its calls."""
    forward(mesh, checkpoint)
    return wait_until(lambda: traces(mesh, "Router/Forward", spans=5), "a trace")[0].trace_id


def batch_of_several(mesh, checkpoint):
    """The id of the trace of a batch of several requests. That they leave together is likely, not certain."""
    states = hidden_states(4, checkpoint.d_model)

    def found():
        for answer in mesh.client.forward_many([(0, states, ForwardOptions())] * 4):
            assert answer.error is None
        return traces(mesh, "expertmesh.batch")

    return wait_until(found, "a batch of several requests")[0].trace_id


class Load:
    """Requests, one after the other, while the context lasts."""

    def __init__(self, mesh, checkpoint):
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._send, args=(mesh, checkpoint))

    def _send(self, mesh, checkpoint):
        while not self._ended.is_set():
            forward(mesh, checkpoint)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._ended.set()
        self._thread.join()


# What each cell of the canvas is coloured, and what it should be by these assignments.
COLOURS = """async (layers) => {
  const scale = await import(new URL("console/heat_scale.js", document.baseURI));
  const { GUTTER, cellSize } = await import(new URL("console/heat_canvas.js", document.baseURI));
  const canvas = document.querySelector("canvas.heat");
  const columns = layers[0].length;
  const width = (canvas.clientWidth - GUTTER) / columns, height = canvas.clientHeight / layers.length;
  const ratio = canvas.width / canvas.clientWidth;
  const all = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return layers.flatMap((assignments, row) => assignments.map((value, column) => {
    const x = (GUTTER + (column + 0.5) * width) * ratio, y = (row + 0.5) * height * ratio;
    const at = 4 * (Math.floor(y) * canvas.width + Math.floor(x));
    const wanted = scale.colour(scale.ratioToBalanced(value, scale.layerScale(assignments)), "light");
    return { drawn: all.slice(at, at + 3).join(), wanted: wanted.join() };
  }));
}"""


def table_of(console):
    """What the table says of the chosen layer: assignments by expert."""
    rows = console.page.locator("#layer-table ~ *, .panel:has(#layer-table) tbody tr").all_inner_texts()
    return [int(row.split("\t")[1].replace(",", "")) for row in rows if "\t" in row]


def test_cells_are_the_counters(browser, serving, checkpoint):
    for tokens in (7, 16, 33):
        forward(serving, checkpoint, tokens)
        serving.client.forward(1, hidden_states(tokens, checkpoint.d_model, seed=tokens))
    load = control(serving).GetLoad(control_pb2.GetLoadRequest(), timeout=PATIENCE)
    counters = {layer.layer: list(layer.assignments) for layer in load.layers}
    assert len(set(counters[0])) > 3, "the load is too even to tell cells apart"
    with browser.open(serving.router, "#/experts?window=0&scope=router", color_scheme="light") as console:
        console.see("canvas.heat")
        cells = console.page.evaluate(COLOURS, [[str(each) for each in row] for row in counters.values()])
        assert [cell["drawn"] for cell in cells] == [cell["wanted"] for cell in cells]
        assert len({cell["drawn"] for cell in cells}) > 3
        for layer, expected in counters.items():
            console.go(f"#/experts?window=0&scope=router&layer={layer}")
            console.see("h2", f"Layer {layer}")
            assert table_of(console) == expected
        # The cursor starts at layer 0 and goes by keys.
        console.go("#/experts?window=0&scope=router")
        console.see("canvas.heat").focus()
        for layer, expert, key in ((0, 1, "ArrowRight"), (1, 1, "ArrowDown"), (1, len(counters[1]) - 1, "End")):
            console.page.keyboard.press(key)
            count = f"{counters[layer][expert]:,}"
            console.see("#read-out", f"Layer {layer}, expert {expert}: {count} assignments")


def test_from_the_start_page_a_slow_request_leads_to_the_slow_node(browser, serving, checkpoint):
    with Load(serving, checkpoint), browser.open(serving.router) as console:
        console.see(".finding-bad", f"{SLOW} is slow")
        console.see(".strip-row.is-slow", SLOW)
        console.see("a.trace-line", "Router/Forward").click()
        console.see(".cause-main", f"{SLOW} was what it waited for")
        cause = console.see("button.row.is-cause", f"call of {SLOW}")
        share = float(cause.locator(".row-share").inner_text().replace("%", ""))
        assert share > 50, share
        assert console.find("button.row.is-cause").count() == 1
        # Its call is chosen already, and its name leads to the node.
        assert console.see(".detail .attributes").inner_text().count(SLOW) == 1
        console.find(".cause-main a", SLOW).click()
        card = console.see(".card.is-slow.is-chosen", SLOW)
        assert "computes as fast as others" in card.inner_text()
        assert console.find(".card.is-slow").count() == 1


def test_a_linked_batch_opens_and_leads_back(browser, serving, checkpoint):
    batch = batch_of_several(serving, checkpoint)
    with browser.open(serving.router, f"#/traces/{batch}") as console:
        console.see(".detail .link-button")
        requests = console.find(".detail .link-button")
        console.see(".detail h3", f"Requests of this batch ({requests.count()})")
        assert requests.count() >= 2
        # The last request's trace has no calls: they are in that of the first.
        request = requests.last.get_attribute("data-link")
        requests.last.click()
        console.see("h1", "Router/Forward")
        assert request in console.page.url
        console.see('button.row[aria-pressed="true"]', "dispatch")
        console.see(".note", "the trace of another request")
        console.see("button.row.is-shared", f"call of {SLOW}")
        console.see(".detail .link-button", "Its batch").click()
        console.see("h1", "a batch of layer 0")
        assert batch in console.page.url
        console.page.go_back()
        console.see("h1", "Router/Forward")


def test_a_trace_is_found_by_its_id(browser, serving, checkpoint):
    known = trace_of_one(serving, checkpoint)
    with browser.open(serving.router, "#/traces") as console:
        box = console.see("#trace-id")
        box.fill("nonsense")
        box.press("Enter")
        console.see(".search-problem", "32 hexadecimal digits")
        box.fill(f"00-{known}-00f067aa0ba902b7-01")
        box.press("Enter")
        console.see("button.row", "dispatch")
        console.see(".whole-id", known)
        console.expected.append("404")
        console.go(f"#/traces/{'f' * 32}")
        assert "traceparent" in console.see(".empty").inner_text()


def test_an_exemplar_of_the_metrics_opens(browser, serving, checkpoint):
    trace_of_one(serving, checkpoint)
    url = f"http://{HOST}:{serving.router.metrics_port}/metrics"
    request = urllib.request.Request(url, headers={"Accept": "application/openmetrics-text"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        line = re.compile(r'router_request_duration_seconds_bucket.* # {trace_id="(\w+)"')
        found = line.findall(answer.read().decode())
    # Older traces may be gone.
    known = {each.trace_id for each in traces(serving)}
    kept = [each for each in found if each in known]
    with browser.open(serving.router, f"#/traces/{kept[0]}") as console:
        console.see(".whole-id", kept[0])
        console.see("button.row", "dispatch")


def test_a_latency_leads_to_a_trace_that_had_it(browser, serving, checkpoint):
    trace_of_one(serving, checkpoint)
    with browser.open(serving.router, "#/latency?span=300") as console:
        console.see(".stage h3 a.exemplar")
        console.see("tr", SLOW).locator("a.exemplar").click()
        console.see("button.row", f"call of {SLOW}")


def test_a_trace_of_several_requests_shows_one_at_a_time(browser, serving, checkpoint):
    trace_id = "5" * 32
    for tokens in (3, 5):
        forward(serving, checkpoint, tokens, traceparent=f"00-{trace_id}-00f067aa0ba902b7-01")
    name = "Router/Forward"
    wait_until(lambda: sum(each.trace_id == trace_id for each in traces(serving, name)) == 2, "both requests")
    with browser.open(serving.router, f"#/traces/{trace_id}") as console:
        console.see("h2", "2 requests")
        titles = []
        for place in (0, 1):
            console.find(".request-line").nth(place).click()
            console.see(f".requests li:nth-child({place + 1}) a[aria-current]")
            assert console.find("button.row", "Router/Forward").count() == 1
            titles.append(console.see("h1").inner_text().split(", ")[1])
        assert sorted(titles) == ["3 tokens", "5 tokens"]


def test_a_trace_is_downloaded(browser, serving, checkpoint):
    known = trace_of_one(serving, checkpoint)
    with browser.open(serving.router, f"#/traces/{known}") as console:
        with console.page.expect_download() as started:
            console.see("a.button", "Download OTLP/JSON").click()
        assert started.value.suggested_filename.endswith(".json")
        with open(started.value.path(), encoding="utf-8") as file:
            assert known in file.read()


def test_keys_alone_lead_to_a_span(browser, serving, checkpoint):
    trace_of_one(serving, checkpoint)
    with browser.open(serving.router) as console:
        console.see("a.trace-line")
        console.press_until("Tab", "a.skip", 1)
        console.page.keyboard.press("Enter")
        assert console.page.evaluate("document.activeElement.id") == "content"
        console.press_until("Tab", "a.trace-line", 40)
        console.page.keyboard.press("Enter")
        first = console.see('button.row[aria-pressed="true"]')
        before = first.get_attribute("data-span")
        console.press_until("Tab", "button.row", 60)
        console.page.keyboard.press("Home")
        console.see('button.row[aria-pressed="true"]', "Router/Forward")
        console.page.keyboard.press("ArrowDown")
        console.see('button.row[aria-pressed="true"]', "dispatch")
        chosen = console.page.evaluate("document.activeElement.dataset.span")
        assert chosen != before
        console.see(".detail h2", "dispatch")


def test_the_page_stays_within_a_phone(browser, serving, quiet, checkpoint):
    known = trace_of_one(serving, checkpoint)
    for mesh, pages in ((serving, {**PAGES, f"#/traces/{known}": "Router/Forward"}), (quiet, PAGES)):
        with browser.open(mesh.router, size=PHONE, has_touch=True, color_scheme="dark") as console:
            for path, title in pages.items():
                console.go(path)
                console.see("h1", title)
                console.see("h2, h3")
                console.find(".loading").first.wait_for(state="detached")
                width = console.page.evaluate("document.documentElement.scrollWidth")
                assert width <= PHONE["width"], f"{path}: {width}"


def test_without_the_router_what_was_read_stays(browser, tmp_path, checkpoint):
    with Mesh(tmp_path) as mesh:
        mesh.start(checkpoint.path, shards(1))
        with browser.open(mesh.router, "#/nodes") as console:
            console.expected.append("Failed to load resource")
            console.see(".card", "node0")
            mesh.router.kill()
            console.see(".banner", "The router does not answer")
            assert "What is shown is from" in console.see(".banner").inner_text()
            assert console.find(".card", "node0").is_visible()
            console.see("#content.is-old")
            console.see(".banner button", "Try now").click()
            # It comes back by itself.
            mesh.router.start()
            console.find(".banner").wait_for(state="detached")
            console.find("#content.is-old").wait_for(state="detached")


def test_empty_pages_say_what_to_do(browser, quiet):
    with browser.open(quiet.router, "#/traces") as console:
        console.see(".empty", "No trace is kept yet")
        console.see(".empty", "--trace-ratio")
        console.go("#/experts")
        console.see(".empty", "No token was routed within this window")
        console.go("#/")
        console.see(".empty", "No trace is kept yet")


def test_names_of_nodes_are_texts(browser, quiet):
    with browser.open(quiet.router, "#/nodes") as console:
        console.see(".card h3", MARKUP)
        assert console.page.locator("main img").count() == 0


def test_a_router_that_does_not_trace_says_so(browser, tmp_path, checkpoint):
    with Mesh(tmp_path) as mesh:
        mesh.start(checkpoint.path, shards(1), "--tracing=off")
        with browser.open(mesh.router, "#/traces") as console:
            console.expected.append("409")
            assert "--tracing" in console.see(".note", "This router does not trace").inner_text()


def test_all_of_a_large_model_is_drawn(browser, quiet):
    """61 layers of 256 experts, told in the router's place."""
    layers = [
        {"layer": layer, "tokens": "256", "assignments": [str((layer * 7 + expert) % 90) for expert in range(256)],
         "compared_tokens": "0", "changed_tokens": "0", "node_us": "0"}
        for layer in range(61)
    ]  # fmt: skip
    with browser.open(quiet.router) as console:
        answer = {"epoch": "1", "layers": layers, "window_ms": 10000}
        console.page.route("**/api/v1/load*", lambda route: route.fulfill(json=answer))
        console.go("#/experts?layer=60&expert=255")
        console.see("#read-out", f"Layer 60, expert 255: {(60 * 7 + 255) % 90} assignments")
        cells = console.page.evaluate(COLOURS, [layer["assignments"] for layer in layers])
        assert len(cells) == 61 * 256
        # The frame of the cursor, on the last, covers a part of its neighbour.
        assert [cell["drawn"] for cell in cells[:-2]] == [cell["wanted"] for cell in cells[:-2]]
