"""A small builder of ONNX graphs: operations and constants by generated names, in the order of the calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 13  # that of PicoDet's file
IR_VERSION = 8  # read by every onnxruntime since 1.12
FAR = 1e9  # beyond any coordinate


class Graph:
    """Nodes and constants of one graph. Tensors are named by strings; N is the number of blocks on a page."""

    def __init__(self, nodes: Sequence[Any] = (), initializers: Sequence[Any] = ()) -> None:
        self.nodes = list(nodes)
        self.initializers = list(initializers)

    def floats(self, value: Any) -> str:
        return self._constant(np.asarray(value, np.float32))

    def ints(self, value: Any) -> str:
        return self._constant(np.asarray(value, np.int64))

    def bools(self, value: Any) -> str:
        return self._constant(np.asarray(value, np.bool_))

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add one node; returns the name of its only output."""
        name = f"kit_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def output(self, name: str, kind: str, *inputs: str, **attributes: Any) -> None:
        """Add the node that produces the model output `name`."""
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))

    def to_float(self, tensor: str) -> str:
        return self.op("Cast", tensor, to=TensorProto.FLOAT)

    def sum(self, tensor: str, axis: int) -> str:
        """Sum over one axis, which disappears."""
        return self.op("ReduceSum", tensor, self.ints([axis]), keepdims=0)

    def all_of(self, first: str, *others: str) -> str:
        for other in others:
            first = self.op("And", first, other)
        return first

    def any_of(self, first: str, *others: str) -> str:
        for other in others:
            first = self.op("Or", first, other)
        return first

    def side(self, boxes: str, index: int) -> str:
        """x1, y1, x2 or y2 of boxes [N,4] as [N]."""
        return self.op("Gather", boxes, self.ints(index), axis=1)

    def sides(self, boxes: str) -> tuple[str, str, str, str]:
        """x1, y1, x2, y2 of boxes [N,4], each [N]."""
        return (self.side(boxes, 0), self.side(boxes, 1), self.side(boxes, 2), self.side(boxes, 3))

    def sizes(self, boxes: str, axis: int = 1) -> str:
        """Width and height in place of the four coordinates along `axis`."""
        far = self.op("Slice", boxes, self.ints([2]), self.ints([4]), self.ints([axis]))
        near = self.op("Slice", boxes, self.ints([0]), self.ints([2]), self.ints([axis]))
        return self.op("Sub", far, near)

    def as_column(self, vector: str) -> str:
        """[N] as [N,1]."""
        return self.op("Unsqueeze", vector, self.ints([1]))

    def as_row(self, vector: str) -> str:
        """[N] as [1,N]."""
        return self.op("Unsqueeze", vector, self.ints([0]))

    def without_batch(self, tensor: str) -> str:
        return self.op("Squeeze", tensor, self.ints([0]))

    def overlap(self, low: str, high: str) -> str:
        """[N,N]: length that each two of the intervals [N] share; negative is the gap between them."""
        until = self.op("Min", self.as_column(high), self.as_row(high))
        return self.op("Sub", until, self.op("Max", self.as_column(low), self.as_row(low)))

    def indices(self, mask: str) -> str:
        """Places [K] at which the bool vector `mask` is true."""
        return self.without_batch(self.op("NonZero", mask))

    def first_and_last(self, mask: str, positions: str) -> tuple[str, str]:
        """Least and greatest of positions [1,L] where mask [N,L] is true, each [N]; FAR and -FAR where it never is."""
        least = self.op("Where", mask, positions, self.floats(FAR))
        greatest = self.op("Where", mask, positions, self.floats(-FAR))
        return (
            self.op("ReduceMin", least, axes=[1], keepdims=0),
            self.op("ReduceMax", greatest, axes=[1], keepdims=0),
        )

    def boxes(self, *sides: str) -> str:
        """x1, y1, x2, y2, each [N], as [N,4]."""
        return self.op("Concat", *(self.as_column(side) for side in sides), axis=1)

    def model(self, name: str, inputs: Sequence[Any], outputs: Sequence[Any]) -> onnx.ModelProto:
        """The checked model; inputs and outputs are (name, element type, shape)."""
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info(*entry) for entry in inputs],
            [helper.make_tensor_value_info(*entry) for entry in outputs],
            self.initializers,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        onnx.checker.check_model(model)
        return model

    def _constant(self, value: np.ndarray) -> str:
        name = f"kit_constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(value, name))
        return name
