"""Runs inside the API's environment: what real PaddleX makes of pipeline configs, without official weights.

python probe_pipeline.py JOBS.json PAGE      stdout: a JSON list, one entry a job

A job is {"config": a file as ./kit configure writes it, "preview": the same with the preview's overlay, or null}.
Its entry: what the pipeline's own constructor asks to be loaded from `config`, and the Markdown of PAGE by `preview`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from paddlex.inference.models.common.genai import GenAIConfig
from paddlex.inference.models.doc_vlm.constants import PADDLEOCR_VL_MODELS
from paddlex.inference.pipelines import create_pipeline, load_pipeline_config
from paddlex.inference.pipelines.base import BasePipeline


def loaded(path: str) -> dict[str, Any]:
    """The models that the pipeline's constructor creates, with what it hands to each. None is created."""
    asked = []

    def record(_: BasePipeline, config: dict[str, Any], **options: Any) -> mock.Mock:
        GenAIConfig.model_validate(config.get("genai_config") or {})
        asked.append({"model": config["model_name"], "genai": config.get("genai_config"), **options})
        return mock.Mock()

    with mock.patch.object(BasePipeline, "create_model", record):
        pipeline = create_pipeline(config=load_pipeline_config(path))
    return {"pipeline": type(pipeline).__name__, "known": asked[1]["model"] in PADDLEOCR_VL_MODELS, "models": asked}


def read(path: str, page: str) -> str:
    pipeline = create_pipeline(config=load_pipeline_config(path), device="cpu")
    (result,) = pipeline.predict(page)
    return result.markdown["markdown_texts"]


def main(jobs: str, page: str) -> None:
    results = [
        {**loaded(job["config"]), "markdown": read(job["preview"], page) if job["preview"] else None}
        for job in json.loads(Path(jobs).read_text())
    ]
    print(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
