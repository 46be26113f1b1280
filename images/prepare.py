"""Run while a preview image is built: fetches weights, composes the layout model, writes the pipeline config.

python prepare.py api MODELS OFFICIAL_CONFIG CONFIG    layout model in MODELS, preview's config in CONFIG, and beside it
                                                       pipeline_config_gateway.yaml for a replica behind the gateway
python prepare.py vlm MODELS                           table model in MODELS
python prepare.py vlm-start MODELS                     load the VLM server once; the first of the three does so with the API

Loading a server leaves the compiled files of all that it imports: its user may not write them, so each start would
compile all of it anew.
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
    official_config = yaml.safe_load(official.read_text())
    config = overlay(official_config, layout_dir=folder, vlm_url=VLM_URL)
    behind = overlay(official_config, layout_dir=folder, vlm_url=VLM_URL, behind_gateway=True)
    with tempfile.TemporaryDirectory() as fetched:
        weights.fetch(Path(fetched), sys.executable)
        folder.mkdir(parents=True)
        layout.write_model_dir(Path(fetched) / weights.LAYOUT.file_name, folder, config)
    for path, made in ((target, config), (target.with_name("pipeline_config_gateway.yaml"), behind)):
        header = "# Made from pipeline_config_vllm.yaml when this image was built.\n"
        path.write_text(header + yaml.safe_dump(made, sort_keys=False))
    _link_font(target.with_name("font.ttf"))
    _start_api(target)


def _start_api(config: Path) -> None:
    """As `paddlex --serve` does, up to the moment at which it would listen."""
    import uvicorn
    from paddlex import __main__, create_pipeline  # noqa: F401
    from paddlex.inference import load_pipeline_config
    from paddlex.inference.serving.basic_serving import create_pipeline_app

    loaded = load_pipeline_config(str(config))
    uvicorn.Config(create_pipeline_app(create_pipeline(config=loaded, device="cpu"), loaded)).load()


def prepare_vlm(models: Path) -> None:
    with tempfile.TemporaryDirectory() as fetched:
        weights.fetch(Path(fetched), sys.executable)
        models.mkdir(parents=True)
        shutil.copyfile(Path(fetched) / weights.TABLE.file_name, models / weights.TABLE.file_name)


def start_vlm(models: Path) -> None:
    """As the VLM server does, up to the moment at which it would listen."""
    import uvicorn
    from kit.preview.vlm import server

    workers = server.recognizers(1, models / weights.TABLE.file_name)
    uvicorn.Config(server.make_app(server.Pool(workers), "any")).load()


def _link_font(link: Path) -> None:
    """Block labels are drawn with a font that OpenCV brings; PaddleX would fetch one from the network on every request."""
    import cv2

    link.symlink_to(Path(cv2.__file__).parent / "qt" / "fonts" / "DejaVuSans.ttf")


if __name__ == "__main__":
    which, *paths = sys.argv[1:]
    try:
        {"api": prepare_api, "vlm": prepare_vlm, "vlm-start": start_vlm}[which](*map(Path, paths))
    except weights.WeightsError as error:
        sys.exit(f"error: {error.message}\nhint: {error.hint}")
