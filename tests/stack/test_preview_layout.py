"""The preview's layout model: its reading order alone, and the composed model on drawn pages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import yaml
from kit.preview import layout
from kit.preview.layout import HEIGHT, LABELS, WIDTH

ROOT = Path(__file__).resolve().parents[2]
PAGE = (1000.0, 1400.0)


@pytest.fixture(scope="module")
def order_session():
    return onnxruntime.InferenceSession(layout.reading_order_model().SerializeToString())


def read_in_order(session, boxes: dict[str, tuple[float, float, float, float]]) -> str:
    """The boxes' names in the order in which the model reads them."""
    corners = np.array(list(boxes.values()), np.float32).reshape(-1, 4)
    (order,) = session.run(None, {"boxes": corners, "page": np.array(PAGE, np.float32)})
    return "".join(np.array(list(boxes))[np.argsort(order, kind="stable")])


def test_one_column_is_read_downwards(order_session):
    boxes = {"c": (100, 900, 900, 1200), "a": (100, 100, 900, 160), "b": (100, 200, 700, 800)}
    assert read_in_order(order_session, boxes) == "abc"


def test_two_columns_are_read_one_after_the_other_below_their_title(order_session):
    boxes = {
        "t": (200, 50, 800, 100),
        "a": (80, 150, 480, 600), "b": (80, 620, 480, 1200),
        "c": (520, 150, 920, 300), "d": (520, 320, 920, 1200),
        "n": (490, 1350, 510, 1370),
    }  # fmt: skip
    assert read_in_order(order_session, dict(reversed(boxes.items()))) == "tabcdn"


def test_a_spanning_table_parts_the_columns_above_from_those_below(order_session):
    boxes = {
        "a": (80, 100, 480, 400), "b": (520, 100, 920, 400),
        "t": (80, 450, 920, 700),
        "c": (80, 750, 480, 1200), "d": (520, 750, 920, 1200),
    }  # fmt: skip
    assert read_in_order(order_session, boxes) == "abtcd"


def test_three_columns(order_session):
    boxes = {
        "e": (700, 200, 960, 600), "f": (700, 620, 960, 1200),
        "c": (370, 200, 630, 700), "d": (370, 720, 630, 1200),
        "a": (40, 200, 300, 500), "b": (40, 520, 300, 1200),
    }  # fmt: skip
    assert read_in_order(order_session, boxes) == "abcdef"


def test_no_boxes_have_an_empty_order(order_session):
    assert read_in_order(order_session, {}) == ""


def thresholds(value) -> list[float]:
    return layout.read_thresholds({"SubModules": {"LayoutDetection": {"threshold": value}}})


def test_thresholds_come_from_the_pipeline_config_by_class():
    config = yaml.safe_load((ROOT / "pipeline_config_vllm.yaml").read_text())
    read = layout.read_thresholds(config)
    assert len(read) == len(LABELS) == 25
    assert (read[LABELS.index("table")], read[LABELS.index("text")], read[LABELS.index("seal")]) == (0.5, 0.4, 0.45)


def test_one_threshold_counts_for_all_classes_and_a_missing_class_has_paddlexs_default():
    assert thresholds(0.3) == [0.3] * 25
    assert thresholds({22: 0.2})[LABELS.index("text")] == 0.2
    assert thresholds({22: 0.2})[LABELS.index("table")] == 0.5


@pytest.mark.parametrize("value", ["high", [0.5], {"text": 0.5}])
def test_a_threshold_of_another_kind_is_an_error(value):
    with pytest.raises(ValueError, match="threshold must be"):
        thresholds(value)


@pytest.fixture(scope="module")
def source(preview_install) -> onnx.ModelProto:
    return onnx.load(Path(preview_install.models_dir) / "weights" / "layout_cdla.onnx")


@pytest.fixture(scope="module")
def model(source) -> onnx.ModelProto:
    return layout.compose(source, [0.4] * len(LABELS))


def rows(model: onnx.ModelProto, page: np.ndarray) -> np.ndarray:
    """What the model finds on a grey page [h,w], 0 to 255, above a score of 0.01, in reading order."""
    height, width = page.shape
    rows_at = np.arange(HEIGHT) * height // HEIGHT
    columns_at = np.arange(WIDTH) * width // WIDTH
    image = page[rows_at][:, columns_at][None].repeat(3, axis=0).astype(np.float32) / 255
    mean, deviation = (np.array(v, np.float32)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    boxes, count = session.run(None, {
        "image": ((image - mean) / deviation)[None],
        "im_shape": np.array([[HEIGHT, WIDTH]], np.float32),
        "scale_factor": np.array([[HEIGHT / height, WIDTH / width]], np.float32),
    })  # fmt: skip
    assert boxes.shape == (count[0], 7)
    kept = boxes[boxes[:, 1] > 0.01]
    return kept[np.argsort(kept[:, 6])]


def blank(height: int = 1754, width: int = 1240) -> np.ndarray:
    return np.full((height, width), 255, np.uint8)


def with_words(page: np.ndarray, left: int, top: int, right: int) -> np.ndarray:
    """`page` with strokes 20 pixels high, which look like a line of writing."""
    for x in range(left, right, 12):
        page[top : top + 20, x : x + 5] = 0
    return page


def test_the_model_is_valid_and_named_as_paddlex_feeds_it(model):
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    assert sorted(entry.name for entry in session.get_inputs()) == ["im_shape", "image", "scale_factor"]
    assert [entry.name for entry in session.get_outputs()] == ["boxes", "boxes_num"]
    assert [entry.type for entry in session.get_outputs()] == ["tensor(float)", "tensor(int32)"]


def test_a_blank_page_is_one_text_block_of_the_whole_page(model):
    (row,) = rows(model, blank())
    assert LABELS[int(row[0])] == "text"
    assert row[2:6].tolist() == [0, 0, 1240, 1754]


def test_words_that_the_detector_misses_become_text_blocks(source):
    deaf = layout.compose(source, [0.999] * len(LABELS))
    page = with_words(with_words(blank(), 200, 300, 900), 200, 900, 500)
    first, second = rows(deaf, page)
    assert {LABELS[int(first[0])], LABELS[int(second[0])]} == {"text"}
    for row, (left, top, right) in ((first, (200, 300, 900)), (second, (200, 900, 500))):
        x1, y1, x2, y2 = row[2:6]
        assert left - 30 < x1 < left and top - 20 < y1 < top
        assert right - 15 < x2 < right + 30 and top + 18 < y2 < top + 40


def test_ruled_lines_alone_are_not_text(source):
    page = blank()
    page[600:603, 100:1100] = 0
    page[200:1200, 700:703] = 0
    (row,) = rows(layout.compose(source, [0.999] * len(LABELS)), page)
    assert row[2:6].tolist() == [0, 0, 1240, 1754]


def sample_page() -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(ROOT / "samples" / "invoice.png").convert("L"))


def test_whatever_is_found_is_above_its_class_threshold(source):
    high = [0.95] * len(LABELS)
    high[LABELS.index("table")] = 0.5
    found = rows(layout.compose(source, high), sample_page())
    assert "table" in {LABELS[int(row[0])] for row in found}
    assert all(row[1] > high[int(row[0])] for row in found)


def test_raising_a_threshold_loses_no_ink(source):
    """The table is then read as text, rather than covered by a box that PaddleX drops."""
    high = [0.4] * len(LABELS)
    high[LABELS.index("table")] = 0.999
    found = rows(layout.compose(source, high), sample_page())
    assert "table" not in {LABELS[int(row[0])] for row in found}
    covered = np.zeros(sample_page().shape, bool)
    for x1, y1, x2, y2 in found[:, 2:6].astype(int):
        covered[y1 : y2 + 1, x1 : x2 + 1] = True
    ink = sample_page() < 128
    ink[:, ink.mean(axis=0) > 0.14] = False
    ink[ink.mean(axis=1) > 0.4] = False  # rules
    assert (ink & covered).sum() > 0.99 * ink.sum()


def test_the_same_input_makes_the_same_file(source, tmp_path):
    config = {"SubModules": {"LayoutDetection": {"threshold": 0.4}}}
    onnx.save(source, tmp_path / "source.onnx")
    for name in ("one", "two"):
        layout.write_model_dir(tmp_path / "source.onnx", tmp_path / name, config)
    for file in ("inference.onnx", "inference.yml"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    written = yaml.safe_load((tmp_path / "one" / "inference.yml").read_text())
    assert written["Global"]["model_name"] == "PP-DocLayoutV2"
    assert written["label_list"] == list(LABELS)
