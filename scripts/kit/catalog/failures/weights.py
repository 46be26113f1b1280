"""Models and the versions that fit them."""

from __future__ import annotations

from kit.catalog.failures.failure import Failure

WEIGHTS: tuple[Failure, ...] = (
    Failure(
        "model-hub-unreachable",
        r"No model hoster is available|No available model hosting platforms|No model source is available",
        "the models are neither inside the image nor in its volume, and no model hub was reached",
        "use the -offline image tags with the model that they carry, or bring the models (docs/offline.md), or a network",
        "OCR#16908, OCR#17349; paddlex 3.7.2 measured without network",
    ),
    Failure(
        "unknown-model",
        r"Unknown model:|Model '[^']+' is not registered|No engine bindings registered for model",
        "PaddleX in this image does not know the model that is asked for: the image is older than the model, or the name is "
        "misspelt",
        "PaddleOCR-VL-1.5-0.9B needs images of paddleocr3.4 or newer, PaddleOCR-VL-1.6-0.9B of paddleocr3.6 or newer",
        "OCR#18171, OCR#17571; paddlex 3.7.2 measured",
    ),
    Failure(
        "unknown-pipeline",
        r"is not registered on BasePipeline",
        "PaddleX in this image does not know the pipeline_name of the pipeline config: the image is older than it",
        "PaddleOCR-VL-1.5 needs images of paddleocr3.4 or newer, 1.6 of paddleocr3.6 or newer",
        "OCR#18075; paddlex 3.7.2 measured",
    ),
    Failure(
        "layout-of-another-generation",
        r"Model name mismatch: expected",
        "a model_dir in the pipeline config holds another model than the model_name beside it",
        "PaddleOCR-VL (0.9B) goes with PP-DocLayoutV2, 1.5 and 1.6 with PP-DocLayoutV3: mend model_name or model_dir",
        "paddlex 3.7.2 measured",
    ),
    Failure(
        "model-dir-missing",
        r"No such file or directory: '[^']*inference\.(yml|json|onnx|pdiparams)'|FileNotFoundError: \S+ does not exist!",
        "a model_dir in the pipeline config names a folder without a model, or that is not mounted into the container",
        "model_dir: null takes the image's own model; a folder of yours must be mounted at that path",
        "paddlex 3.7.2 measured",
    ),
    Failure(
        "vlm-dir-missing",
        r"Repo id must use alphanumeric chars|Repo id must be in the form",
        "the VLM's --model_dir is no folder in the container, so it was taken for the name of a model on a hub",
        "mount the folder there, or leave --model_dir out",
        "vLLM 0.28 measured",
    ),
    Failure(
        "transformers-too-old",
        r"does not recognize this architecture",
        "the transformers package in this image does not know the model",
        "use a newer image, or let the kit choose tags that fit the model: ./kit configure",
        "vLLM 0.10.2 measured with transformers 4.57 and a model folder without its code",
    ),
    Failure(
        "vllm-too-new",
        r"cannot import name 'FlexibleArgumentParser'",
        "this vLLM is newer than PaddleX can drive (0.28 is the last that 3.7.2 starts)",
        "use the official image, or pin vllm to the version that paddlex asks for",
        "paddlex 3.7.2 measured with vLLM 0.32",
    ),
    Failure(
        "torchvision-mismatch",
        r"operator torchvision::nms does not exist",
        "torch and torchvision in this environment are of different builds",
        "use the official image, or install both from one index",
        "vLLM 0.28 measured with PyPI's torchvision",
    ),
    Failure(
        "fastdeploy-regression",
        r"image_features is None",
        "FastDeploy 2.4.0 cannot run this model",
        "use FastDeploy 2.3.0: the official paddleocr-genai-fastdeploy-server image",
        "FastDeploy#6179",
    ),
    Failure(
        "llama-cpp-template",
        r"number of bitmaps \(\d+\) does not match number of markers",
        "this llama.cpp and the model's chat template do not fit",
        "use a newer llama.cpp, and the mmproj file that comes with the model",
        "OCR#17729, llama.cpp#18825",
    ),
    Failure(
        "font-download",
        r"Max retries exceeded with url: \S*/fonts/",
        "PaddleX fetches a font to draw labels into page pictures, and has no network: every such request fails",
        "leave `Serving: visualize: False`, or set PADDLE_PDX_LOCAL_FONT_FILE_PATH to a font in the container",
        "PDX#3758, OCR#15607; paddlex 3.7.2 measured",
    ),
)
