# The API of the CPU preview: the real `paddlex --serve`, with a small stand-in for the layout model.
# Built by `docker compose -f compose.preview.yaml build`; needs no PaddlePaddle and no GPU.
ARG BASE_IMAGE=python:3.11-slim
FROM ${BASE_IMAGE}

# OpenCV links to libGL and GLib; curl is for the health check. A base that has them needs no apt-get.
RUN python -c "import ctypes; ctypes.CDLL('libGL.so.1'); ctypes.CDLL('libgthread-2.0.so.0')" 2>/dev/null \
    && command -v curl >/dev/null \
    || { apt-get update \
         && apt-get install -y --no-install-recommends curl libgl1 libglib2.0-0 \
         && rm -rf /var/lib/apt/lists/*; }
RUN id paddleocr >/dev/null 2>&1 || useradd --create-home --uid 1000 paddleocr

COPY scripts/kit/preview/requirements-api.txt /opt/kit/
# prepare.py compiles what a start imports, half of it all; the rest is never used.
RUN python -m pip install --no-cache-dir --no-compile --root-user-action=ignore --disable-pip-version-check \
        --requirement /opt/kit/requirements-api.txt \
    # 80 MB of the packages' own tests.
    && cd "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
    && rm -r onnx/backend/test && find pandas scipy sklearn -type d -name tests -prune -exec rm -r {} +

ENV PYTHONPATH=/opt/kit
COPY scripts/kit/__init__.py /opt/kit/kit/
COPY scripts/kit/preview/__init__.py scripts/kit/preview/weights.py scripts/kit/preview/overlay.py \
     scripts/kit/preview/layout*.py /opt/kit/kit/preview/
COPY images/prepare.py pipeline_config_vllm.yaml /opt/kit/
RUN python /opt/kit/prepare.py api /opt/kit/models /opt/kit/pipeline_config_vllm.yaml /opt/kit/pipeline_config.yaml

LABEL paddleocr-vl-kit.image=cpu-preview \
      org.opencontainers.image.title="PaddleOCR-VL Kit: API of the CPU preview, with stand-in models" \
      org.opencontainers.image.description="paddlex --serve with a composed PicoDet layout model; neither the official image nor PaddleOCR-VL" \
      org.opencontainers.image.licenses="Apache-2.0"
# Two malloc arenas: 0.6 GB in use instead of 0.9 (measured on 63 pages).
ENV PYTHONUNBUFFERED=1 \
    MALLOC_ARENA_MAX=2 \
    PADDLE_PDX_LOCAL_FONT_FILE_PATH=/opt/kit/font.ttf
USER 1000:1000
WORKDIR /home/paddleocr
EXPOSE 8080
CMD ["paddlex", "--serve", "--pipeline", "/opt/kit/pipeline_config.yaml", "--host", "0.0.0.0", "--port", "8080", "--device", "cpu"]
