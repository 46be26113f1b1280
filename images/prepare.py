"""Run while a preview image is built: fetches weights, composes the layout model, writes the pipeline config.

python prepare.py api MODELS OFFICIAL_CONFIG CONFIG    layout model in MODELS, preview's config in CONFIG
python prepare.py vlm MODELS                           table model in MODELS
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from kit.preview import weights

VLM_URL = "http://paddleocr-vlm-server:8118/v1"  # the Compose service


def prepare_api(models: Path, official: Path, target: Path) -> None:
    import yaml  # comes with PaddleX
    from kit.preview import layout
    from kit.preview.overlay import overlay

    folder = models / "PP-DocLayoutV2"
    config = overlay(yaml.safe_load(official.read_text()), layout_dir=folder, vlm_url=VLM_URL)
    with tempfile.TemporaryDirectory() as fetched:
        weights.fetch(Path(fetched), sys.executable)
        folder.mkdir(parents=True)
        layout.write_model_dir(Path(fetched) / weights.LAYOUT.file_name, folder, config)
    target.write_text(
        "# Made from pipeline_config_vllm.yaml when this image was built.\n" + yaml.safe_dump(config, sort_keys=False)
    )
    _link_font(target.with_name("font.ttf"))


def prepare_vlm(models: Path) -> None:
    with tempfile.TemporaryDirectory() as fetched:
        weights.fetch(Path(fetched), sys.executable)
        models.mkdir(parents=True)
        shutil.copyfile(Path(fetched) / weights.TABLE.file_name, models / weights.TABLE.file_name)


def _link_font(link: Path) -> None:
    """Block labels are drawn with a font that OpenCV brings; PaddleX would fetch one from the network on every request."""
    import cv2

    link.symlink_to(Path(cv2.__file__).parent / "qt" / "fonts" / "DejaVuSans.ttf")


if __name__ == "__main__":
    which, *paths = sys.argv[1:]
    try:
        {"api": prepare_api, "vlm": prepare_vlm}[which](*map(Path, paths))
    except weights.WeightsError as error:
        sys.exit(f"error: {error.message}\nhint: {error.hint}")
