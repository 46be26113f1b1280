"""Graph nodes that look at the page's ink: boxes grow to whole lines, and missed text becomes blocks.

PicoDet now and then stops short of the end of a line, or does not know a kind
of page (a form, a slide). Both would lose text. All lengths here are pixels of
the network's input, HEIGHT x WIDTH.
"""

from __future__ import annotations

import numpy as np

from kit.preview.layout_graph import Graph

HEIGHT, WIDTH = 800, 608  # PicoDet's input
BANDS = 60  # most bands of missed text on a page
CONTRAST = 0.7  # of the normalised image, where 1 is about 57 grey levels
MIN_BAND = (11.0, 4.0)  # width, height; smaller is dirt
SLACK = 3.0  # ink this near to a box belongs to it
# Words up to twice this far apart are one line; gutters between columns are wider.
REACH = 6
# Lines of a block may touch its neighbours' descenders: rows this near to its edge do not count.
EDGE = 0.15


def ink(graph: Graph, image: str) -> str:
    """[H,W], 1 where a pixel of image [1,3,H,W] differs from its surroundings as text does, without ruled lines."""
    grey = graph.op("ReduceMean", image, axes=[1], keepdims=1)
    around = graph.op("AveragePool", grey, kernel_shape=[31, 31], pads=[15] * 4)
    darker = graph.op("Sub", around, grey)
    light_on_dark = graph.all_of(graph.op("Less", darker, graph.floats(-CONTRAST)), graph.op("Less", around, graph.floats(0.3)))
    marks = graph.to_float(graph.any_of(graph.op("Greater", darker, graph.floats(CONTRAST)), light_on_dark))
    for kernel in ((25, 1), (1, 41)):  # vertical and horizontal rules: long runs of ink
        run = graph.op("AveragePool", marks, kernel_shape=list(kernel), pads=[side // 2 for side in kernel] * 2)
        run = graph.to_float(graph.op("Greater", run, graph.floats(0.9)))
        grown = [side + 2 for side in kernel]
        rule = graph.op("MaxPool", run, kernel_shape=grown, pads=[side // 2 for side in grown] * 2)
        marks = graph.op("Relu", graph.op("Sub", marks, rule))
    return graph.op("Squeeze", marks, graph.ints([0, 1]))


def grow_to_lines(graph: Graph, marks: str, boxes: str) -> str:
    """`boxes` [N,4], each widened over the uncovered ink that continues its own lines, up to the next box."""
    x1, y1, x2, y2 = graph.sides(boxes)
    xs, ys = _positions(graph)
    edge = graph.op("Mul", graph.op("Sub", y2, y1), graph.floats(EDGE))
    rows = _inside(graph, ys, graph.op("Add", y1, edge), graph.op("Sub", y2, edge))
    own = _inside(graph, xs, x1, x2)
    beside = graph.to_float(graph.op("Greater", graph.overlap(y1, y2), graph.floats(0.0)))
    beside = graph.op("Mul", beside, graph.op("Sub", graph.floats(1.0), graph.op("EyeLike", beside)))
    taken = graph.op("Greater", graph.op("MatMul", beside, graph.to_float(own)), graph.floats(0.5))
    inked = graph.op("MatMul", graph.to_float(rows), _uncovered(graph, marks, boxes, slack=0.0))
    inked = graph.op("Greater", inked, graph.floats(0.5))
    filled = graph.op("Unsqueeze", graph.to_float(graph.any_of(inked, own)), graph.ints([1]))
    filled = graph.op("MaxPool", filled, kernel_shape=[2 * REACH + 1], pads=[REACH, REACH])
    filled = graph.op("Greater", graph.op("Squeeze", filled, graph.ints([1])), graph.floats(0.5))
    filled = graph.any_of(own, graph.op("And", filled, graph.op("Not", taken)))
    # Columns with as many gaps before them as the box itself has are joined to it.
    gaps = graph.op("CumSum", graph.to_float(graph.op("Not", filled)), graph.ints(1))
    before_box = graph.op("Where", own, gaps, graph.floats(-1.0))
    before_box = graph.op("ReduceMax", before_box, axes=[1], keepdims=1)
    joined = graph.all_of(filled, graph.op("Equal", gaps, before_box), graph.any_of(inked, own))
    first, last = graph.first_and_last(joined, xs)
    return graph.boxes(graph.op("Min", x1, first), y1, graph.op("Max", x2, last), y2)


def missed_text(graph: Graph, marks: str, boxes: str) -> str:
    """Boxes [M,4] around the ink outside `boxes` [N,4], cut wherever empty rows lie between."""
    xs, ys = _positions(graph)
    rest = _uncovered(graph, marks, boxes, SLACK)
    has_ink = graph.to_float(graph.op("Greater", graph.sum(rest, 1), graph.floats(2.5)))
    # Rows up to 6 pixels apart belong to one band.
    band = graph.op("Unsqueeze", has_ink, graph.ints([0, 1]))
    band = graph.op("Squeeze", graph.op("MaxPool", band, kernel_shape=[7], pads=[3, 3]), graph.ints([0, 1]))
    previous = graph.op("Slice", band, graph.ints([0]), graph.ints([HEIGHT - 1]), graph.ints([0]))
    previous = graph.op("Concat", graph.floats([0.0]), previous, axis=0)
    starts = graph.op("Relu", graph.op("Sub", band, previous))
    number = graph.op("Mul", graph.op("CumSum", starts, graph.ints(0)), has_ink)  # of each row; 0 is none
    rows = graph.op("Equal", graph.as_row(number), graph.floats(np.arange(1, BANDS + 1)[:, None]))
    columns = graph.op("Greater", graph.op("MatMul", graph.to_float(rows), rest), graph.floats(0.5))
    left, right = graph.first_and_last(columns, xs)
    top, bottom = graph.first_and_last(rows, ys)
    bands = graph.boxes(left, top, right, bottom)
    fits = graph.op("Greater", graph.sizes(bands), graph.floats([MIN_BAND]))
    fits = graph.op("ReduceMin", graph.to_float(fits), axes=[1], keepdims=0)
    bands = graph.op("Gather", bands, graph.indices(graph.op("Greater", fits, graph.floats(0.5))), axis=0)
    return graph.op("Add", bands, graph.floats([[-2.0, -1.0, 3.0, 2.0]]))


def _positions(graph: Graph) -> tuple[str, str]:
    """All columns [1,W] and all rows [1,H]."""
    return graph.floats(np.arange(WIDTH)[None]), graph.floats(np.arange(HEIGHT)[None])


def _inside(graph: Graph, positions: str, low: str, high: str) -> str:
    """[N,L] bool: which of positions [1,L] lie in each of the intervals [N]."""
    from_low = graph.op("GreaterOrEqual", positions, graph.as_column(low))
    return graph.op("And", from_low, graph.op("LessOrEqual", positions, graph.as_column(high)))


def _uncovered(graph: Graph, marks: str, boxes: str, slack: float) -> str:
    """[H,W]: the ink that lies in no box, nor within `slack` pixels of one."""
    x1, y1, x2, y2 = graph.sides(boxes)
    xs, ys = _positions(graph)
    margin = graph.floats(slack)

    def near(positions: str, low: str, high: str) -> str:
        until = graph.op("Add", high, margin)
        return graph.to_float(_inside(graph, positions, graph.op("Sub", low, margin), until))

    rows = graph.op("Transpose", near(ys, y1, y2), perm=[1, 0])
    return graph.op("Relu", graph.op("Sub", marks, graph.op("MatMul", rows, near(xs, x1, x2))))
