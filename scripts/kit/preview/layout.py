"""Composes the preview's layout model: PicoDet's ONNX in the form that PaddleX loads as PP-DocLayoutV2.

    python -m kit.preview.layout layout_cdla.onnx OUT_DIR --pipeline-config pipeline_config_vllm.yaml

PaddleX 3.7 (paddlex/inference/models/layout_analysis) loads a folder with
inference.yml and inference.onnx and insists on the name PP-DocLayoutV2. It
matches the inputs by sorted name: im_shape [1,2] and scale_factor [1,2], both
(height, width), and image [1,3,H,W], resized and normalised as inference.yml
says. It wants boxes [N,7] = class, score, x1, y1, x2, y2, order, in pixels of
the page, and boxes_num [1] int32.

Everything that PP-DocLayoutV2 does inside its network is added to PicoDet as
graph nodes: decoding, suppression, class ids, and the reading order.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto

from kit.preview import layout_ink
from kit.preview.layout_graph import FAR, Graph
from kit.preview.layout_ink import HEIGHT, WIDTH

MODEL_NAME = "PP-DocLayoutV2"  # what PaddleX requires the folder to call itself
STRIDES = (8, 16, 32, 64)  # one pair of output heads for each
BINS = 8  # PicoDet predicts each side's distance as a distribution over 0..7 strides
MAX_BOXES = 120
NMS_IOU = 0.5
CONTAINED = 0.7  # PaddleX's filter_overlap_boxes drops the smaller of two boxes above this share

LABELS = (
    *("abstract", "algorithm", "aside_text", "chart", "content", "display_formula", "doc_title", "figure_title"),
    *("footer", "footer_image", "footnote", "formula_number", "header", "header_image", "image", "inline_formula"),
    *("number", "paragraph_title", "reference", "reference_content", "seal", "table", "text", "vertical_text"),
    "vision_footnote",
)
TEXT, TITLE, FIGURE, HEADER = 0, 1, 2, 6  # places in CDLA_LABELS
# PicoDet's classes in its own order, each as the PP-DocLayoutV2 label of its kind.
CDLA_LABELS = (
    *("text", "paragraph_title", "image", "figure_title", "table", "figure_title", "header", "footer"),
    *("reference_content", "display_formula"),
)
DEFAULT_THRESHOLD = 0.5  # PaddleX's, for a class that the config does not name

# PaddleX drops an image larger than this share of a landscape page (0.93 of a
# portrait one) when anything else was found; such a box must not hide the text.
WHOLE_PAGE_IMAGE = 0.82
# Padding of each box as a share of the page (left, top, right, bottom). Without
# it first letters, descenders and last full stops are cut off.
PADDING = (-0.004, -0.002, 0.004, 0.002)
TALL = 0.019  # height of a document title, as a share of the page; a running header is lower


@dataclass(frozen=True)
class Blocks:
    """Names of tensors about the same N blocks: boxes [N,4], scores [N], CDLA classes [N] int64."""

    boxes: str
    scores: str
    classes: str


def compose(source: onnx.ModelProto, thresholds: Sequence[float]) -> onnx.ModelProto:
    """The whole layout model, from PicoDet's. thresholds: least score of each of LABELS."""
    graph = Graph(source.graph.node, source.graph.initializer)
    heads = [output.name for output in source.graph.output]
    boxes, scores = _decode(graph, heads[: len(STRIDES)], heads[len(STRIDES) :])
    found = _select(graph, boxes, scores, thresholds)
    blocks = _with_all_ink(graph, found, thresholds)
    scale, page = page_size(graph)
    boxes = _pad(graph, graph.op("Div", blocks.boxes, scale), page)
    labels = _labels(graph, boxes, blocks, page, thresholds)
    order = reading_order(graph, boxes, page)
    columns = [labels, blocks.scores, *graph.sides(boxes), order]
    rows = graph.op("Concat", *(graph.as_column(column) for column in columns), axis=1)
    rows = graph.op("Concat", rows, _fallback_row(graph, labels, page), axis=0)
    graph.output("boxes", "Identity", rows)
    count = graph.op("Gather", graph.op("Shape", rows), graph.ints([0]), axis=0)
    graph.output("boxes_num", "Cast", count, to=TensorProto.INT32)
    return as_model(graph, "layout_preview")


def as_model(graph: Graph, name: str) -> onnx.ModelProto:
    """A graph that has the inputs and outputs which PaddleX expects of PP-DocLayoutV2."""
    return graph.model(
        name,
        [
            ("im_shape", TensorProto.FLOAT, [1, 2]),
            ("image", TensorProto.FLOAT, [1, 3, HEIGHT, WIDTH]),
            ("scale_factor", TensorProto.FLOAT, [1, 2]),
        ],
        [("boxes", TensorProto.FLOAT, ["blocks", 7]), ("boxes_num", TensorProto.INT32, [1])],
    )


def _decode(graph: Graph, class_heads: Sequence[str], distance_heads: Sequence[str]) -> tuple[str, str]:
    """PicoDet's heads as boxes [1,A,4] in network pixels and class scores [1,A,10]."""
    centres, strides = [], []
    for stride in STRIDES:
        ys, xs = np.meshgrid(np.arange(-(-HEIGHT // stride)), np.arange(-(-WIDTH // stride)), indexing="ij")
        points = (np.stack([xs, ys], -1).reshape(-1, 2) + 0.5) * stride
        centres.append(np.concatenate([points, points], 1))
        strides.append(np.full((len(points), 1), stride))
    towards = np.concatenate(strides) * np.array([-1, -1, 1, 1])
    distances = graph.op("Concat", *distance_heads, axis=1)
    distances = graph.op("Reshape", distances, graph.ints([1, -1, 4, BINS]))
    distances = graph.op("Mul", graph.op("Softmax", distances, axis=-1), graph.floats(np.arange(BINS)))
    distances = graph.op("ReduceSum", distances, graph.ints([3]), keepdims=0)
    boxes = graph.op("Mul", distances, graph.floats(towards[None]))
    boxes = graph.op("Add", boxes, graph.floats(np.concatenate(centres)[None]))
    boxes = graph.op("Min", boxes, graph.floats([WIDTH, HEIGHT, WIDTH, HEIGHT]))
    boxes = graph.op("Max", boxes, graph.floats([0, 0, 0, 0]))
    return boxes, graph.op("Concat", *class_heads, axis=1)


def _select(graph: Graph, boxes: str, scores: str, thresholds: Sequence[float]) -> Blocks:
    """The boxes that PaddleX will keep: above their class's threshold, not suppressed, not inside another.

    What PaddleX would drop later must go here already, or it would count as
    covering text that then nobody reads.
    """
    least = [thresholds[LABELS.index(label)] for label in CDLA_LABELS]
    scores = graph.op("Where", graph.op("Greater", scores, graph.floats(least)), scores, graph.floats(0.0))
    scores = graph.op("Where", _whole_page_images(graph, boxes), graph.floats(0.0), scores)
    best = graph.op("ReduceMax", scores, axes=[2], keepdims=0)
    selected = graph.op(
        "NonMaxSuppression",
        *(boxes, graph.op("Unsqueeze", best, graph.ints([1])), graph.ints([MAX_BOXES])),
        *(graph.floats([NMS_IOU]), graph.floats([min(least) / 2])),
    )
    index = graph.op("Gather", selected, graph.ints(2), axis=1)
    found = _gather(
        graph,
        Blocks(
            graph.without_batch(boxes),
            graph.without_batch(best),
            graph.without_batch(graph.op("ArgMax", scores, axis=2, keepdims=0)),
        ),
        index,
    )
    return _gather(graph, found, _uncontained(graph, found.boxes))


def _whole_page_images(graph: Graph, boxes: str) -> str:
    """[1,A,10] bool: a figure that fills the page."""
    size = graph.sizes(boxes, axis=2)
    share = graph.op("Mul", *(graph.op("Gather", size, graph.ints([side]), axis=2) for side in range(2)))
    large = graph.op("Greater", share, graph.floats(WHOLE_PAGE_IMAGE * WIDTH * HEIGHT))
    return graph.op("And", large, graph.bools(np.arange(len(CDLA_LABELS)) == FIGURE))


def _uncontained(graph: Graph, boxes: str) -> str:
    """Indices [K] of the boxes that do not lie within a larger one."""
    x1, y1, x2, y2 = graph.sides(boxes)
    shared = graph.op(
        "Mul",
        *(graph.op("Relu", graph.overlap(low, high)) for low, high in ((x1, x2), (y1, y2))),
    )
    area = graph.op("Mul", graph.op("Sub", x2, x1), graph.op("Sub", y2, y1))
    inside = graph.op("Greater", shared, graph.op("Mul", graph.as_column(area), graph.floats(CONTAINED)))
    smaller = graph.op("Less", graph.as_column(area), graph.as_row(area))
    hit = graph.to_float(graph.op("And", inside, smaller))
    return graph.indices(graph.op("Less", graph.op("ReduceSum", hit, graph.ints([1]), keepdims=0), graph.floats(0.5)))


def _with_all_ink(graph: Graph, found: Blocks, thresholds: Sequence[float]) -> Blocks:
    """`found`, widened to whole lines, and one text block for each band of ink that is still uncovered."""
    marks = layout_ink.ink(graph, "image")
    boxes = layout_ink.grow_to_lines(graph, marks, found.boxes)
    missed = layout_ink.missed_text(graph, marks, boxes)
    count = graph.op("Slice", graph.op("Shape", missed), graph.ints([0]), graph.ints([1]), graph.ints([0]))
    # Any score that PaddleX keeps: nothing was measured.
    score = (thresholds[LABELS.index("text")] + 1) / 2
    return Blocks(
        graph.op("Concat", boxes, missed, axis=0),
        graph.op("Concat", found.scores, graph.op("Expand", graph.floats([score]), count), axis=0),
        graph.op("Concat", found.classes, graph.op("Expand", graph.ints([TEXT]), count), axis=0),
    )


# --- from the network to the page ----------------------------------------------------------------


def page_size(graph: Graph) -> tuple[str, str]:
    """Scale and page size, both [4] as (x, y, x, y); the model's inputs hold (height, width)."""

    def by_side(name: str) -> str:
        return graph.op("Gather", graph.without_batch(name), graph.ints([1, 0, 1, 0]), axis=0)

    scale = by_side("scale_factor")
    return scale, graph.op("Div", by_side("im_shape"), scale)


def _pad(graph: Graph, boxes: str, page: str) -> str:
    boxes = graph.op("Add", boxes, graph.op("Mul", page, graph.floats(PADDING)))
    return graph.op("Max", graph.op("Min", boxes, page), graph.floats([0, 0, 0, 0]))


def _labels(graph: Graph, boxes: str, blocks: Blocks, page: str, thresholds: Sequence[float]) -> str:
    """PP-DocLayoutV2 class ids [N] as float. CDLA knows no document title: the topmost tall title becomes it."""
    _, y1, _, y2 = graph.sides(boxes)
    middle = graph.op("Mul", graph.op("Add", y1, y2), graph.floats(0.5))
    height = graph.op("Sub", y2, y1)
    page_height = graph.op("Gather", page, graph.ints(1), axis=0)

    def share_of_page(share: float) -> str:
        return graph.op("Mul", page_height, graph.floats(share))

    title = graph.op("Equal", blocks.classes, graph.ints(TITLE))
    positions = graph.op("Where", title, middle, graph.floats(FAR))
    topmost = graph.op("ReduceMin", graph.op("Concat", positions, graph.floats([FAR]), axis=0), axes=[0], keepdims=0)
    document_title = graph.all_of(
        title,
        graph.op("LessOrEqual", middle, topmost),
        graph.op("Less", middle, share_of_page(0.3)),
        graph.op("Greater", height, share_of_page(TALL)),
    )
    # A running header is one small line; a "header" this tall is a title or a masthead.
    masthead = graph.all_of(
        graph.op("Equal", blocks.classes, graph.ints(HEADER)), graph.op("Greater", height, share_of_page(TALL))
    )
    kept = graph.op("Greater", blocks.scores, graph.floats(thresholds[LABELS.index("doc_title")]))
    document_title = graph.all_of(graph.any_of(document_title, masthead), kept)
    plain = graph.op("Gather", graph.ints([LABELS.index(label) for label in CDLA_LABELS]), blocks.classes)
    return graph.op("Where", document_title, graph.floats(float(LABELS.index("doc_title"))), graph.to_float(plain))


def reading_order(graph: Graph, boxes: str, page: str) -> str:
    """Place of each of `boxes` [N,4] in the reading order: the number of boxes before it, [N] float.

    A box comes before another when it is above it in the same column, or above
    it through a chain of boxes of which one spans both columns; failing both,
    when its column lies further left. A centred box that has nothing beside it
    (a short title, a page number) counts as spanning all columns.
    """
    x1, y1, x2, y2 = graph.sides(boxes)
    width, middle = graph.op("Sub", x2, x1), graph.op("Add", y1, y2)
    page_width = graph.op("Gather", page, graph.ints(0), axis=0)
    narrower = graph.op("Min", graph.as_column(width), graph.as_row(width))
    same_column = graph.op("Greater", graph.overlap(x1, x2), graph.op("Mul", narrower, graph.floats(0.2)))
    side_by_side = graph.op("Greater", graph.overlap(y1, y2), graph.floats(0.0))
    side_by_side = graph.to_float(graph.op("And", side_by_side, graph.op("Not", same_column)))
    alone = graph.op("Less", graph.op("ReduceSum", side_by_side, graph.ints([0]), keepdims=0), graph.floats(0.5))
    off_centre = graph.op("Abs", graph.op("Sub", graph.op("Add", x1, x2), page_width))
    centred = graph.op("Less", off_centre, graph.op("Mul", page_width, graph.floats(0.12)))
    spanning = graph.op("And", alone, centred)
    same_column = graph.any_of(same_column, graph.as_column(spanning), graph.as_row(spanning))
    above = graph.op("Less", graph.as_column(middle), graph.as_row(middle))
    above = graph.to_float(graph.op("And", same_column, above))
    through = graph.op("MatMul", above, above)  # over one box, then over two
    through = graph.op("Add", through, graph.op("MatMul", through, above))
    through = graph.op("Greater", through, graph.floats(0.5))
    further_left = graph.op("Less", graph.as_column(x1), graph.as_row(x1))
    not_below = graph.op("Not", graph.op("Transpose", through, perm=[1, 0]))
    elsewhere = graph.op("And", graph.op("Not", same_column), graph.any_of(through, graph.op("And", further_left, not_below)))
    before = graph.any_of(graph.op("Greater", above, graph.floats(0.5)), elsewhere)
    return graph.op("ReduceSum", graph.to_float(before), graph.ints([0]), keepdims=0)


def reading_order_model() -> onnx.ModelProto:
    """The reading order alone: boxes [N,4] and page [2] (width, height), in one unit, to order [N]."""
    graph = Graph()
    graph.output("order", "Identity", reading_order(graph, "boxes", "page"))
    return graph.model(
        "reading_order",
        [("boxes", TensorProto.FLOAT, ["blocks", 4]), ("page", TensorProto.FLOAT, [2])],
        [("order", TensorProto.FLOAT, ["blocks"])],
    )


def _fallback_row(graph: Graph, labels: str, page: str) -> str:
    """One row [1,7]: the whole page as text when nothing was found, else of score 0. PaddleX fails on no rows."""
    nothing = graph.op("Equal", graph.op("Shape", labels), graph.ints([0]))
    score = graph.op("Where", nothing, graph.floats([1.0]), graph.floats([0.0]))
    corner = graph.op("Slice", page, graph.ints([0]), graph.ints([2]), graph.ints([0]))
    text = graph.floats([float(LABELS.index("text"))])
    return graph.as_row(graph.op("Concat", text, score, graph.floats([0, 0]), corner, graph.floats([1e4]), axis=0))


def _gather(graph: Graph, blocks: Blocks, index: str) -> Blocks:
    tensors = (blocks.boxes, blocks.scores, blocks.classes)
    return Blocks(*(graph.op("Gather", tensor, index, axis=0) for tensor in tensors))


# --- the folder ----------------------------------------------------------------------------------


def read_thresholds(config: Mapping[str, Any]) -> list[float]:
    """Least score of each of LABELS, from a pipeline config's SubModules.LayoutDetection.threshold.

    It is one number, or numbers by class id; PaddleX takes 0.5 for a class that
    is not named. Raises ValueError when it is neither.
    """
    try:
        threshold = config["SubModules"]["LayoutDetection"].get("threshold", DEFAULT_THRESHOLD)
        if isinstance(threshold, Mapping):
            by_class = {int(class_id): float(score) for class_id, score in threshold.items()}
            return [by_class.get(class_id, DEFAULT_THRESHOLD) for class_id in range(len(LABELS))]
        return [float(threshold)] * len(LABELS)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError("SubModules.LayoutDetection.threshold must be a number, or numbers by class id") from error


def inference_config() -> dict[str, Any]:
    """Content of inference.yml: what PaddleX does to a page before the model sees it."""
    return {
        "mode": "paddle",
        "draw_threshold": 0.3,
        "metric": "COCO",
        "use_dynamic_shape": False,
        "arch": "GFL",
        "Global": {"model_name": MODEL_NAME},
        "Preprocess": [
            {"type": "Resize", "interp": 3, "keep_ratio": False, "target_size": [HEIGHT, WIDTH]},
            {
                "type": "NormalizeImage",
                "mean": [0.485, 0.456, 0.406],
                "std": [0.229, 0.224, 0.225],
                "norm_type": "mean_std",
                "is_scale": True,
            },
            {"type": "Permute"},
        ],
        "label_list": list(LABELS),
    }


def write_model_dir(source: Path, folder: Path, config: Mapping[str, Any]) -> None:
    """Compose the model from PicoDet's ONNX file `source` and write it, with inference.yml, into `folder`."""
    model = compose(onnx.load(source), read_thresholds(config))
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "inference.onnx")
    (folder / "inference.yml").write_text(yaml.safe_dump(inference_config(), sort_keys=False))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m kit.preview.layout", description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="PicoDet's layout_cdla.onnx")
    parser.add_argument("folder", type=Path, help="where inference.onnx and inference.yml go")
    parser.add_argument("--pipeline-config", type=Path, required=True, help="its class thresholds are built in")
    options = parser.parse_args(arguments)
    try:
        config = yaml.safe_load(options.pipeline_config.read_text())
        write_model_dir(options.source, options.folder, config)
    except (OSError, ValueError, yaml.YAMLError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
