"""A layout model that finds the same blocks on every page, in the form that PaddleX loads as PP-DocLayoutV2.

    .kit/preview/api-venv/bin/python benchmarks/layout_of_set_blocks.py OUT_DIR

It looks at nothing and takes no time: it stands for a layout model on a GPU, which leaves the CPU to the rest. All else that
PaddleX does for the layout stays: rendering, resizing, normalising, what it makes of the boxes, and the crops.
"""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import yaml
from kit.preview.layout import LABELS, as_model, inference_config, page_size
from kit.preview.layout_graph import Graph
from onnx import TensorProto

# Four blocks in one column, as many as the preview's layout model finds on the pages of the long PDF (3.5 of them on average):
# label, where the block begins and where it ends, as a share of the page's height.
BLOCKS = (("doc_title", 0.04, 0.10), ("text", 0.12, 0.45), ("table", 0.48, 0.68), ("text", 0.71, 0.95))
LEFT, RIGHT = 0.08, 0.92  # as a share of its width
SCORE = 0.9


def compose() -> onnx.ModelProto:
    """Its inputs and outputs are those of kit.preview.layout: boxes [N,7] in pixels of the page, and boxes_num [1]."""
    graph = Graph()
    _, page = page_size(graph)
    rows = [[LABELS.index(label), SCORE, LEFT, top, RIGHT, bottom, n] for n, (label, top, bottom) in enumerate(BLOCKS)]
    factors = graph.op("Concat", graph.floats([1, 1]), page, graph.floats([1]), axis=0)
    graph.output("boxes", "Mul", graph.floats(rows), factors)
    graph.output("boxes_num", "Cast", graph.ints([len(BLOCKS)]), to=TensorProto.INT32)
    return as_model(graph, "layout_of_set_blocks")


def main() -> int:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(compose(), folder / "inference.onnx")
    (folder / "inference.yml").write_text(yaml.safe_dump(inference_config(), sort_keys=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
