"""KIT4xx: the pipeline config, by itself."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from kit.catalog import models
from kit.lint import mend
from kit.lint.findings import Edit, Hit, Place, Rules, Severity
from kit.lint.project import Config, Project
from kit.lint.rules_files import has_parts
from kit.lint.rules_images import version
from kit.lint.tree import Mapping, Node, Scalar, find, scalar

rules = Rules()
ERROR, WARNING, INFO = Severity.ERROR, Severity.WARNING, Severity.INFO

# Every key that PaddleX reads (paddlex 3.7.2 source: configs/pipelines/PaddleOCR-VL*.yaml, pipelines/paddleocr_vl/pipeline.py,
# models/common/genai.py, serving/infra/config.py), by section; None: whatever is below is not looked at.
_MODEL = {"module_name", "model_name", "model_dir", "batch_size", "engine", "engine_config"}
SECTIONS: dict[tuple[str, ...], frozenset[str]] = {
    (): frozenset(
        """
        pipeline_name batch_size use_queues use_doc_preprocessor use_layout_detection use_chart_recognition use_seal_recognition
        use_ocr_for_image_block format_block_content merge_layout_blocks markdown_ignore_labels layout_prep_cpu_workers
        SubModules SubPipelines Serving engine engine_config
        """.split()
    ),
    ("SubModules",): frozenset({"LayoutDetection", "VLRecognition"}),
    ("SubModules", "LayoutDetection"): frozenset(
        _MODEL | {"threshold", "layout_nms", "layout_unclip_ratio", "layout_merge_bboxes_mode", "img_size"}
    ),
    ("SubModules", "VLRecognition"): frozenset(_MODEL | {"genai_config"}),
    ("SubModules", "VLRecognition", "genai_config"): frozenset({"backend", "server_url", "max_concurrency", "client_kwargs"}),
    ("SubPipelines",): frozenset({"DocPreprocessor"}),
    ("Serving",): frozenset({"visualize", "extra", "return_urls"}),
    ("Serving", "extra"): frozenset(
        {"max_num_input_imgs", "max_output_img_size", "file_storage", "return_img_urls", "url_expires_in"}
    ),
}  # fmt: skip
LARGE = 200  # PaddleX's default for max_concurrency (paddlex 3.7.2 source, models/common/genai.py)


def _read(project: Project) -> Iterator[tuple[Config, Mapping]]:
    for config in project.pipelines:
        if isinstance(config.tree, Mapping) and has_parts(config.tree):
            yield config, config.tree


@rules(
    "KIT401",
    ERROR,
    "layout model, VLM and pipeline of different generations",
    why="PaddleOCR-VL-0.9B belongs to PP-DocLayoutV2, 1.5 and 1.6 to PP-DocLayoutV3 with thresholds of their own "
    "(paddlex 3.3.12 to 3.7.2 source, configs/pipelines; OCR#17849)",
    mend="./kit configure --model NAME writes a config of one generation",
)
def mixed(project: Project) -> Iterator[Hit]:
    for _, tree in _read(project):
        name = scalar(tree, "SubModules", "VLRecognition", "model_name")
        model = models.find(name.text) if name else None
        layout, pipeline = scalar(tree, "SubModules", "LayoutDetection", "model_name"), scalar(tree, "pipeline_name")
        off = scalar(tree, "use_layout_detection")
        if model and layout and layout.text != model.layout and not (off and off.value is False) and not project.preview:
            yield Hit(layout.place, f"{layout.text} beside {model.vlm}, which needs {model.layout}")
        if model and pipeline and models.find(pipeline.text) not in (model, None):
            edits = mend.put(pipeline, model.pipeline_name) if layout and layout.text == model.layout else ()
            yield Hit(pipeline.place, f"pipeline {pipeline.text} beside {model.vlm}: {model.pipeline_name} is its name", edits)


@rules(
    "KIT402",
    ERROR,
    "a pipeline or model that PaddleX does not have",
    why="`… is not registered on BasePipeline` (OCR#18075); `model_name must be PP-DocLayoutV2 or PP-DocLayoutV3` (paddlex 3.7.2 "
    "source, pipelines/paddleocr_vl/pipeline.py)",
    mend="one of " + ", ".join(model.pipeline_name for model in models.MODELS),
)
def unknown_names(project: Project) -> Iterator[Hit]:
    pipelines, layouts = [m.pipeline_name for m in models.MODELS], sorted({m.layout for m in models.MODELS})
    for config, tree in _read(project):
        pipeline, layout = scalar(tree, "pipeline_name"), scalar(tree, "SubModules", "LayoutDetection", "model_name")
        if pipeline is None:
            yield Hit(Place(config.file, 1), "no pipeline_name", mend=f"one of {', '.join(pipelines)}")
        elif pipeline.text not in pipelines:
            yield Hit(pipeline.place, f"no pipeline is called {pipeline.text}", mend=f"one of {', '.join(pipelines)}")
        if layout and layout.text not in layouts:
            yield Hit(
                layout.place, f"no layout model of PaddleOCR-VL is called {layout.text}", mend=f"one of {', '.join(layouts)}"
            )


@rules(
    "KIT403",
    WARNING,
    "max_num_input_imgs is absent",
    why="without the key PaddleX returns the first 10 pages of a PDF, and says nothing (OCR#16972, OCR#16871, PDX#4991)",
    mend="Serving: extra: max_num_input_imgs: null",
)
def ten_pages(project: Project) -> Iterator[Hit]:
    for config, tree in _read(project):
        serving, extra = find(tree, "Serving"), find(tree, "Serving", "extra")
        if isinstance(extra, Mapping) and "max_num_input_imgs" in extra.items:
            continue
        key = "max_num_input_imgs: null"
        edits: tuple[Edit, ...] = ()
        if isinstance(extra, Mapping):
            edits = mend.add(config.text, extra, key)
        elif extra is None and isinstance(serving, Mapping):
            edits = mend.add(config.text, serving, f"extra: {{{key}}}" if serving.flow else f"extra:\n  {key}")
        elif serving is None and "Serving" not in tree.items and not tree.flow:
            edits = mend.append(config.file, config.text, f"\nServing:\n  extra:\n    {key}")
        place = tree.keys["Serving"] if "Serving" in tree.keys else Place(config.file, 1)
        yield Hit(place, "only the first 10 pages of a PDF are returned", edits)


@rules(
    "KIT404",
    WARNING,
    "visualize is not switched off",
    why="by default every reply carries pictures of every page with its boxes, about 2 MB a page instead of 50 kB (PDX#3956, "
    "PDX#5135)",
    mend='Serving: visualize: False; a request may still ask for them with "visualize": true',
)
def pictures(project: Project) -> Iterator[Hit]:
    for config, tree in _read(project):
        value = scalar(tree, "Serving", "visualize")
        if value is None or value.value is True:
            place = value.place if value else tree.keys.get("Serving", Place(config.file, 1))
            yield Hit(place, "visualize is on" if value else "visualize is not set, and on by default")


@rules(
    "KIT405",
    ERROR,
    "a value of the pipeline config is of another kind, or out of range",
    why="PaddleX ends at the start with a ValidationError, or takes no block at all (paddlex 3.7.2 source)",
    mend="write a value in the range",
)
def out_of_range(project: Project) -> Iterator[Hit]:
    for _, tree in _read(project):
        for key in ("use_queues", "use_doc_preprocessor", "use_layout_detection", "use_chart_recognition", "merge_layout_blocks"):
            value = scalar(tree, key)
            if value and not isinstance(value.value, bool):
                right = {"true": "True", "false": "False"}.get(value.text.lower())
                edits = mend.put(value, right) if right else ()
                yield Hit(
                    value.place,
                    f"{key}: {value.source or value.text} is a text, and counts as true",
                    edits,
                    "write True or False",
                )
        threshold = find(tree, "SubModules", "LayoutDetection", "threshold")
        for value in threshold.items.values() if isinstance(threshold, Mapping) else [threshold]:
            if isinstance(value, Scalar) and value.value is not None and not _between(value.value, 0, 1):
                yield Hit(value.place, f"threshold {value.text}", mend="a number from 0 to 1")
        for path, least in (
            (("batch_size",), 1), (("SubModules", "LayoutDetection", "batch_size"), 1),
            (("SubModules", "VLRecognition", "genai_config", "max_concurrency"), 1), (("layout_prep_cpu_workers",), 0),
        ):  # fmt: skip
            value = scalar(tree, *path)
            if value and not (isinstance(value.value, int) and _between(value.value, least, 10**6)):
                yield Hit(value.place, f"{path[-1]}: {value.text}", mend=f"a whole number from {least}")


def _between(value: object, least: float, greatest: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value <= greatest


@rules(
    "KIT406",
    WARNING,
    "a key that PaddleX does not read",
    why="it is passed over in silence, and the default stays in force (paddlex 3.7.2 source)",
    mend="correct its name, or move it to its section",
)
def unknown_keys(project: Project) -> Iterator[Hit]:
    owners = {name: path for path, names in SECTIONS.items() for name in names}
    for config, tree in _read_any(project):
        for path, names in SECTIONS.items():
            section = find(tree, *path)
            for key in section.items if isinstance(section, Mapping) else ():
                if key in names:
                    continue
                place = section.keys[key]
                near = difflib.get_close_matches(key, names - set(section.items), n=2, cutoff=0.8)
                if len(near) == 1:
                    yield Hit(
                        place,
                        f"{key} is not read; {near[0]} is",
                        (Edit(config.file, place.start, place.end, near[0]),),
                        f"write {near[0]}",
                    )
                elif key in owners:
                    home = ".".join(owners[key]) or "the top level"
                    yield Hit(place, f"{key} is not read here; it belongs to {home}", mend=f"move it to {home}")
                else:
                    yield Hit(place, f"{key} is not read", severity=INFO, mend="remove it, or correct its name")


def _read_any(project: Project) -> Iterator[tuple[Config, Node]]:
    for config in project.pipelines:
        if isinstance(config.tree, Mapping):
            yield config, config.tree


@rules(
    "KIT407",
    ERROR,
    "addresses of pictures without a store that can give them",
    why='only BOS can: TypeError "`FileSystemStorage` does not support getting URLs." (paddlex 3.7.2 source, '
    "_pipeline_apps/_common/ocr.py)",
    mend="remove return_urls, or set Serving.extra.file_storage.type: bos",
)
def no_store(project: Project) -> Iterator[Hit]:
    for _, tree in _read(project):
        for path in (("Serving", "return_urls"), ("Serving", "extra", "return_img_urls")):
            wanted, store = scalar(tree, *path), scalar(tree, "Serving", "extra", "file_storage", "type")
            if wanted and wanted.value is True and not (store and store.text == "bos"):
                yield Hit(wanted.place, f"{path[-1]} with file_storage {store.text if store else 'memory'}")


@rules(
    "KIT408",
    INFO,
    "more requests at once than the VLM server takes well",
    why="each API keeps up to max_concurrency requests open (200 by default): several of them, or a proxy between, fail on "
    "large PDFs "
    "(OCR#16823, OCR#17017)",
    mend="max_concurrency: 4 to 16 for each API",
)
def many_at_once(project: Project) -> Iterator[Hit]:
    for config, tree in _read(project):
        value = scalar(tree, "SubModules", "VLRecognition", "genai_config", "max_concurrency")
        each = value.value if value and isinstance(value.value, int) else LARGE
        apis = [api for api in project.apis if api.config and api.config.file == config.file]
        count = sum(api.service.replicas if api.service else 1 for api in apis)
        if each * count > LARGE and apis[0].wiring:
            yield Hit(value.place if value else apis[0].wiring.place, f"{count} × {each} requests at once")


@rules(
    "KIT409",
    ERROR,
    "client_kwargs.model_name in an image of paddleocr 3.3",
    why="that version passes the name itself too: `got multiple values for keyword argument 'model_name'` (paddlex 3.3.12 "
    "source)",
    mend="take an image of paddleocr 3.4 or newer, or VLRecognition.model_name",
)
def name_twice(project: Project) -> Iterator[Hit]:
    for api in project.apis:
        image = api.service.image if api.service else None
        name = (
            scalar(api.config.tree, "SubModules", "VLRecognition", "genai_config", "client_kwargs", "model_name")
            if api.config
            else None
        )
        inside = version(image.tag or "latest") if image and image.official and not image.digest else None
        if name and inside and inside < (3, 4):
            yield Hit(name.place, f"{image.tag if image else ''} has paddleocr {'.'.join(map(str, inside))}")
