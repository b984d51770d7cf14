"""Programs that call a mesh without generated code, by its reflection: grpcurl, ghz and buf curl."""

import base64
import json
import re
import subprocess
import tempfile

import columns
from columns import NotApplicable, column, expect, run
from golden import big_rows

SECONDS = "120"
BIG_LIMIT = "100000000"
HEARTBEATS = {"heartbeatMs": 200}
TENSORS = 3


def json_request(model, data, rows, number=0, **more):
    tensor = {
        "dtype": "DTYPE_F32",
        "shape": [rows, model["dModel"]],
        "data": base64.b64encode(data).decode(),
    }
    layer = model["layers"][0]["layer"]
    return {"requestId": number, "layer": layer, "hiddenStates": tensor, **more}


def messages(text):
    """The JSON values in a text, one after another; names as JSON has them, also where a tool shows the contract's
    own because reflection told it no others."""

    def named(pairs):
        return {re.sub(r"_(.)", lambda match: match[1].upper(), key): value for key, value in pairs}

    decoder, found, at = json.JSONDecoder(object_pairs_hook=named), [], 0
    while match := re.compile(r"\S").search(text, at):
        value, at = decoder.raw_decode(text, match.start())
        found.append(value)
    return found


def output(answer):
    return base64.b64decode(answer["output"]["data"])


class Tool:
    """A program that takes JSON and prints JSON. Subclasses say how it is called."""

    # Bytes of the largest message that it takes, where no flag raises it.
    limit = ""

    def __init__(self, program, address):
        self.program = program
        self.address = address

    def command(self, method, *flags):
        raise NotImplementedError

    def listing(self):
        raise NotImplementedError

    def call(self, method, *sent):
        text = "\n".join(json.dumps(message) for message in sent)
        return messages(run(*self.command(method), text=text))

    def refusal(self, sent):
        """What it prints of an error that must come."""
        argv = [str(part) for part in self.command("expertmesh.v1.Router/Forward")]
        done = subprocess.run(
            argv, input=json.dumps(sent), capture_output=True, text=True, timeout=60, check=False
        )
        expect(done.returncode != 0, "no error came")
        return done.stdout + done.stderr

    def first_of(self, method, sent, count):
        """The beginning of a stream that does not end by itself."""
        argv = [str(part) for part in self.command(method)]
        with subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            process.stdin.write(json.dumps(sent))
            process.stdin.close()
            text = ""
            for line in process.stdout:
                text += line
                if line.startswith("}"):
                    count -= 1
                if not count:
                    break
            process.kill()
        return messages(text)


class Grpcurl(Tool):
    def command(self, method, *flags):
        limits = ["-max-time", SECONDS, "-max-msg-sz", BIG_LIMIT]
        return [self.program, "-plaintext", *limits, *flags, "-d", "@", self.address, method]

    def listing(self):
        return run(self.program, "-plaintext", self.address, "list")


class BufCurl(Tool):
    limit = "4194304"

    def command(self, method, *flags):
        argv = [self.program, "curl", "--http2-prior-knowledge", "--protocol", "grpc", *flags]
        return [*argv, "-d", "@-", f"http://{self.address}/{method}"]

    def listing(self):
        argv = [self.program, "curl", "--http2-prior-knowledge", "--protocol", "grpc"]
        return run(*argv, "--list-methods", f"http://{self.address}")


def details_in(text):
    """What the details of an error say that a tool prints as base64, as buf curl does."""
    values = re.findall(r'"value": "([\w+/]+)"', text)
    padded = [value + "=" * (-len(value) % 4) for value in values]
    return "".join(base64.b64decode(value).decode(errors="replace") for value in padded)


def check_errors(tool, model, golden, rows):
    wrong = {**json_request(model, golden.hidden_states, rows), "layer": columns.NO_LAYER}
    limited = json_request(model, golden.hidden_states, rows, maxResponseBytes=1)
    for sent, reason in ((wrong, columns.LAYER_REASON), (limited, columns.LIMIT_REASON)):
        said = tool.refusal(sent)
        expect(reason in said + details_in(said), f"{reason} is not in: {said}")


def check(tool, golden):
    """Grpcurl and BufCurl."""
    columns.say("generate", "n/a", "it asks the server's reflection")
    columns.say("compile", "n/a", "it asks the server's reflection")
    (model,) = tool.call("expertmesh.v1.Router/DescribeModel", {})
    rows = len(golden.hidden_states) // 4 // model["dModel"]
    request = json_request(model, golden.hidden_states, rows)
    with column("unary"):
        (answer,) = tool.call("expertmesh.v1.Router/Forward", request)
    with column("bits"):
        golden.check(output(answer))
    with column("stream"):
        sent = [json_request(model, golden.hidden_states, rows, n) for n in range(1, TENSORS + 1)]
        sent.append({"requestId": TENSORS + 1, "heartbeat": True})
        answers = {a["requestId"]: a for a in tool.call("expertmesh.v1.Router/ForwardStream", *sent)}
        expect(len(answers) == len(sent), f"{len(answers)} of {len(sent)} answers")
        expect(answers[str(TENSORS + 1)].get("heartbeat"), "the heartbeat was not answered as one")
    with column("watch"):
        seen = tool.first_of("expertmesh.v1.Control/WatchTopology", HEARTBEATS, 3)
        expect(len(seen) == 3 and all(s["topology"]["ready"] for s in seen), f"{len(seen)} messages")
    with column("health"):
        (said,) = tool.call("grpc.health.v1.Health/Check", {"service": "ready"})
        expect(said["status"] == "SERVING", said)
    with column("reflection"):
        listed = tool.listing()
        expect(all(name in listed for name in columns.SERVICES), f"lists {listed}")
    with column("errors"):
        check_errors(tool, model, golden, rows)
    with column("big"):
        much, many = big_rows(model["dModel"], columns.BIG_BYTES)
        try:
            (answer,) = tool.call("expertmesh.v1.Router/Forward", json_request(model, much, many))
        except ValueError as error:
            if tool.limit and tool.limit in str(error):
                raise NotApplicable(f"its own limit is {tool.limit} bytes") from None
            raise
        expect(len(output(answer)) == len(much), f"{len(output(answer))} bytes")


class Ghz:
    """A load generator: it counts codes and shows no answers."""

    def __init__(self, program, address):
        self.program = program
        self.address = address
        self.average_seconds = 0.0

    def call(self, method, sent, *flags, count=20):
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(sent, file)
            file.flush()
            argv = [self.program, "--insecure", "--call", method, "-D", file.name, "-O", "json"]
            argv += ["-n", count, "-c", 1, "--timeout", f"{SECONDS}s", *flags]
            report = json.loads(run(*argv, self.address))
        self.average_seconds = report["average"] / 1e9
        return report["statusCodeDistribution"], report.get("errorDistribution", {})

    def all_well(self, method, sent, *flags, count=20):
        codes, errors = self.call(method, sent, *flags, count=count)
        expect(codes == {"OK": count}, f"{codes} {errors}")


def check_ghz(ghz, model, golden):
    """`model` is what another tool was told: ghz shows no answers."""
    columns.say("generate", "n/a", "it asks the server's reflection")
    columns.say("compile", "n/a", "it asks the server's reflection")
    columns.say("bits", "n/a", "it shows no answers")
    rows = len(golden.hidden_states) // 4 // model["dModel"]
    request = json_request(model, golden.hidden_states, rows)
    with column("unary"):
        ghz.all_well("expertmesh.v1.Router/Forward", request)
    with column("stream"):
        ghz.all_well("expertmesh.v1.Router/ForwardStream", [request] * TENSORS)
    with column("watch"):
        flags = ["--stream-call-count", 3]
        codes, errors = ghz.call("expertmesh.v1.Control/WatchTopology", HEARTBEATS, *flags, count=2)
        # It cancels each call after so many messages, the later ones being heartbeats, and counts that.
        expect(codes == {"Canceled": 2} and ghz.average_seconds > 0.3, f"{codes} {errors}")
    with column("health"):
        ghz.all_well("grpc.health.v1.Health/Check", {"service": "ready"})
    with column("reflection"):
        # It has no other way to know the methods.
        ghz.all_well("expertmesh.v1.Router/DescribeModel", {})
    with column("errors"):
        codes, errors = ghz.call("expertmesh.v1.Router/Forward", {**request, "layer": columns.NO_LAYER})
        expect("InvalidArgument" in codes and "layer is" in str(errors), f"{codes} {errors}")
        raise NotApplicable("it shows codes and texts, no details")
    with column("big"):
        much, many = big_rows(model["dModel"], columns.BIG_BYTES)
        flags = ["--max-recv-message-size", BIG_LIMIT, "--max-send-message-size", BIG_LIMIT]
        ghz.all_well(
            "expertmesh.v1.Router/Forward", json_request(model, much, many), *flags, count=2
        )


def model_of(grpcurl):
    return grpcurl.call("expertmesh.v1.Router/DescribeModel", {})[0]
