"""What run.sh --json writes. `check` says what does not fit; a test calls it.

Times are in the unit that ends a name, bytes are those of messages (without what HTTP/2 and TCP add), "median" is that
of the runs.
"""

NUMBER = (int, float)
QUANTILES = {
    "p50": NUMBER,
    "p90": NUMBER,
    "p99": NUMBER,
    "p999": NUMBER,
    "mean": NUMBER,
    "max": NUMBER,
}

# What one measurement in one run records.
RUN = {
    "requests": int,  # Answered.
    "failed": int,
    "seconds": NUMBER,
    "latency_ms": QUANTILES,  # An open loop's count from the time a request was meant to be sent.
    "tokens_per_second": NUMBER,
    "cpu_seconds_per_1000_tokens": NUMBER,  # The caller and all processes of the system.
    # All hops together. two_bare_hops, raw_tcp: what they were told to move; ggml_rpc: tensors alone.
    "bytes_per_token": NUMBER,
    # Only of meshes:
    #   stages_us             where an average request spent its time: queue, route, node_queue, compute, node_wire,
    #                         combine, client_wire
    #   max_violation         of the load of experts: max / mean - 1, by the routing that the router reported
    #   batch_tokens, batch_nodes
    #   hop_bytes_per_token   [caller to router, back, router to nodes, back]
    #   destinations_per_token, uniform_destinations_per_token   nodes that a token went to, on average, and what they
    #                         would be if each assignment drew one of its expert's replicas at random
    # Only of in_process:
    #   expert_bytes_per_second, expert_flops_per_second   of weights that were hit, and of products, while computing
}

MEASUREMENT = {
    "shape": str,
    "system": str,  # "mesh<nodes>", with "_replicas<r>", "_<wire>", "_slices" if so; or a baseline of plan.py.
    "nodes": int,  # 0: no mesh.
    "replicas": int,  # Nodes that hold each expert; 0: no mesh.
    "slices": bool,  # A mesh each of whose nodes holds a slice of each expert.
    "wire": str,  # Type of rows between router and nodes, "auto": that of the experts; "": no mesh.
    # As the router reports them: type of the model's activations (which its callers send, unless "wire" is int8), of
    # hidden states on the way to nodes, of partials on the way back. []: no mesh.
    "row_dtypes": [str],
    "cell": str,  # Name of the load, made of what follows.
    "tokens": int,  # In each request.
    "callers": int,
    "routing": str,
    "loop": str,  # "closed" or "open".
    "rate": NUMBER,  # Requests per second of an open loop; 0: closed.
    **RUN,  # Medians; requests and failed are sums; latency_ms is that of all samples of all runs together.
    "p50_ms": NUMBER,  # Median of the runs' own.
    "histogram_us": str,  # All samples: HDR histogram, V2, compressed, base64, as every HdrHistogram library reads it.
    "runs": [RUN],
}

RESULT = {
    "schema": int,  # Changes with the meaning of a field.
    "commit": str,  # "-dirty": files differed from it.
    "started": str,  # UTC.
    "seconds": NUMBER,
    "quick": bool,  # One short run: figures mean little.
    "runs": int,
    "machine": {
        "cpu": str,
        "cpu_features": [str],
        "cores": int,  # That may be used.
        "memory_bytes": int,
        "virtual": bool,
        "kernel": str,
        "system": str,
        "load_average_before": NUMBER,
        "load_average_after": NUMBER,
    },
    # One for each run of a shape.
    "ceilings": [
        {
            "shape": str,
            "read_bytes_per_second": NUMBER,
            "product_flops_per_second": NUMBER,
            "dtype": str,
        }
    ],
    "measurements": [MEASUREMENT],
    "memory": [{"shape": str, "system": str, "process": str, "peak_bytes": int}],
    # `figure` and `met` are null when something was not measured.
    "targets": [{"name": str, "kind": str, "target": NUMBER}],
}


def check(value, schema=None, where="result"):
    """What does not fit, as a list of sentences."""
    schema = RESULT if schema is None else schema
    if isinstance(schema, dict):
        if not isinstance(value, dict):
            return [f"{where} is no object"]
        problems = [f"{where}.{key} is missing" for key in schema if key not in value]
        for key in schema.keys() & value.keys():
            problems += check(value[key], schema[key], f"{where}.{key}")
        return problems
    if isinstance(schema, list):
        if not isinstance(value, list):
            return [f"{where} is no list"]
        return [
            problem
            for index, each in enumerate(value)
            for problem in check(each, schema[0], f"{where}[{index}]")
        ]
    if not isinstance(value, schema) or (isinstance(value, bool) and schema is not bool):
        return [f"{where} is {value!r}"]
    return []
