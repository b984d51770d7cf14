"""Checks deploy/proxies/gateway.yaml against the schemas of Kubernetes' Gateway API, which come in its Go module: unknown
fields, types, patterns, limits. The rules in CEL are not run, and no gateway is.

    tests/proxies/gateway.py [FILE]
"""

import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = ROOT / "build" / "proxies" / "gateway"
MODULE = "sigs.k8s.io/gateway-api@v1.6.3"
PINNED = ("PyYAML==6.0.3", "jsonschema==4.25.1")
GROUP = "gateway.networking.k8s.io"


def with_packages():
    """Runs this program again in an environment that has what it needs."""
    venv = FOLDER / "venv"
    if not (venv / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin" / "pip", "install", "--quiet", *PINNED], check=True)
        (venv / "ready").touch()
    argv = [venv / "bin" / "python", __file__, "--ready", *sys.argv[1:]]
    return subprocess.run(argv, check=False).returncode


def module():
    """Folder of the Go module."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    argv = ["go", "mod", "download", "-json", MODULE]
    done = subprocess.run(argv, cwd=FOLDER, capture_output=True, text=True, check=True)
    return pathlib.Path(json.loads(done.stdout)["Dir"])


def closed(schema):
    """The schema with unknown fields refused, as the API server warns of them."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        made.setdefault("additionalProperties", False)
    return made


def schema_of(yaml, folder, kind, version):
    for path in (folder / "config" / "crd" / "standard").glob(f"{GROUP}_*.yaml"):
        for definition in yaml.safe_load_all(path.read_text()):
            if definition["spec"].get("names", {}).get("kind") != kind:
                continue
            for each in definition["spec"]["versions"]:
                if each["name"] == version:
                    schema = closed(each["schema"]["openAPIV3Schema"])
                    # Checked by the API server itself.
                    schema["properties"]["metadata"] = {"type": "object"}
                    return schema
    raise ValueError(f"{MODULE} has no {kind} {version}")


def main(arguments):
    # pylint: disable=import-outside-toplevel
    import jsonschema
    import yaml

    file = pathlib.Path(arguments[0] if arguments else ROOT / "deploy" / "proxies" / "gateway.yaml")
    folder = module()
    wrong = checked = 0
    for document in yaml.safe_load_all(file.read_text()):
        group, _, version = document["apiVersion"].rpartition("/")
        if group != GROUP:
            continue
        schema = schema_of(yaml, folder, document["kind"], version)
        checked += 1
        for error in jsonschema.Draft202012Validator(schema).iter_errors(document):
            wrong += 1
            print(f"{document['kind']}: {error.json_path}: {error.message}")
    print(f"{file.name}: {checked} documents against {MODULE}, {wrong} wrong")
    return 1 if wrong or not checked else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--ready"]:
        sys.exit(main(sys.argv[2:]))
    sys.exit(with_packages())
