"""What gpu-layers measured, as HTML beside what the roofline predicts.

  report.py --shapes           the layers to time, as arguments of gpu-layers
  report.py FILE... >OUT.html  a page of what gpu-layers wrote into FILE...

Standard library only.
"""

import html
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import roofline  # noqa: E402  pylint: disable=wrong-import-position

HEAD = ("model", "T", "µs", "predicted µs", "experts hit", "GB/s", "% of peak", "TFLOP/s", "% of peak")
STYLE = """body{font:15px sans-serif;margin:2em;max-width:70em}table{border-collapse:collapse;margin:1em 0}
td,th{padding:.3em .8em;text-align:right;border-bottom:1px solid #ccc}td:first-child,th:first-child{text-align:left}
i{display:inline-block;height:.7em;background:#4a7;margin-right:.4em}"""


def arguments():
    tokens = ",".join(map(str, roofline.TOKENS))
    for shape in roofline.SHAPES:
        yield f"{shape.name}:{shape.experts}:{shape.top_k}:{shape.d_model}:{shape.intermediate}:{tokens}"


def read(path):
    """(what the device is, the lines of layers)"""
    lines = [json.loads(line) for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines()]
    if not lines or "device" not in lines[0]:
        raise SystemExit(f"{path}: gpu-layers did not write it")
    return lines[0], lines[1:]


def share(value, peak):
    """The share of the peak, as a bar and in per cent; nothing where the device does not tell its peak."""
    if not peak:
        return ""
    percent = 100 * value / peak
    return f'<i style="width:{min(percent, 100) / 20:.2f}em"></i>{percent:.1f}'


def predicted(device, line):
    shape = next((shape for shape in roofline.SHAPES if shape.name == line["shape"]), None)
    if shape is None or not (device["peak_bytes_per_second"] and device["peak_flops"]):
        return ""
    gpu = roofline.Gpu(device["device"], device["peak_bytes_per_second"], device["peak_flops"])
    return f"{roofline.predict(shape, line['tokens'], gpu).us:.0f}"


def row(device, line):
    name = html.escape(line["shape"])
    if "left_out" in line:
        return f'<tr><td>{name}</td><td colspan="{len(HEAD) - 1}">left out: {html.escape(line["left_out"])}</td></tr>'
    cells = [name, f"{line['tokens']}", f"{line['us']:.0f}", predicted(device, line), f"{line['experts_hit']:.1f}"]
    cells += [f"{line['bytes_per_second'] / 1e9:.0f}", share(line["bytes_per_second"], device["peak_bytes_per_second"])]
    cells += [f"{line['flops'] / 1e12:.2f}", share(line["flops"], device["peak_flops"])]
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def page(files):
    parts = ['<!doctype html><meta charset="utf-8"><title>MoE layers on a GPU</title>', f"<style>{STYLE}</style>"]
    parts.append("<h1>MoE layers on a GPU</h1><p>Whole batches from host memory to host memory, two in flight, bf16.</p>")
    for path in files:
        device, lines = read(path)
        parts.append(
            f"<h2>{html.escape(device['product'])} on {html.escape(device['device'])}</h2>"
            f"<p>Peak: {device['peak_bytes_per_second'] / 1e9:.0f} GB/s, {device['peak_flops'] / 1e12:.0f} TFLOP/s, "
            f"by its properties. Expertmesh {html.escape(device['version'])}.</p>"
        )
        head = "".join(f"<th>{name}</th>" for name in HEAD)
        parts.append(f"<table><tr>{head}</tr>{''.join(row(device, line) for line in lines)}</table>")
    return "\n".join(parts)


def main(words):
    if words == ["--shapes"]:
        print("\n".join(arguments()))
    elif words and not words[0].startswith("-"):
        print(page(words))
    else:
        raise SystemExit(__doc__.strip())


if __name__ == "__main__":
    main(sys.argv[1:])
