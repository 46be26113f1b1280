# The VLM server of the CPU preview: a stand-in that answers by classic OCR over the OpenAI protocol.
# Built by `docker compose -f compose.preview.yaml build`.
ARG BASE_IMAGE=python:3.11-slim
FROM ${BASE_IMAGE}

# For the health check. A base that has it needs no apt-get.
RUN command -v curl >/dev/null \
    || { apt-get update && apt-get install -y --no-install-recommends curl && rm -rf /var/lib/apt/lists/*; }
RUN id paddleocr >/dev/null 2>&1 || useradd --create-home --uid 1000 paddleocr

COPY scripts/kit/preview/requirements-vlm.txt /opt/kit/
RUN python -m pip install --no-cache-dir --no-compile --root-user-action=ignore --disable-pip-version-check \
        --requirement /opt/kit/requirements-vlm.txt

ENV PYTHONPATH=/opt/kit
COPY scripts/kit/__init__.py /opt/kit/kit/
COPY scripts/kit/preview/__init__.py scripts/kit/preview/weights.py /opt/kit/kit/preview/
COPY images/prepare.py /opt/kit/
RUN python /opt/kit/prepare.py vlm /opt/kit/models
# Last, because it changes most often. Compiled, because the server's user may not write here, and with it what it imports.
COPY scripts/kit/preview/vlm /opt/kit/kit/preview/vlm
RUN python -m compileall -q /opt/kit/kit && python /opt/kit/prepare.py vlm-start /opt/kit/models

LABEL paddleocr-vl-kit.image=cpu-preview \
      org.opencontainers.image.title="PaddleOCR-VL Kit: VLM server of the CPU preview, with stand-in models" \
      org.opencontainers.image.description="classic OCR (PP-OCRv6 small, SLANet) behind the OpenAI protocol; neither the official image nor PaddleOCR-VL" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PYTHONUNBUFFERED=1 \
    MALLOC_ARENA_MAX=2
USER 1000:1000
WORKDIR /home/paddleocr
EXPOSE 8118
CMD ["python", "-m", "kit.preview.vlm.server", "--host", "0.0.0.0", "--port", "8118", \
     "--model-name", "PaddleOCR-VL-0.9B", "--table-model", "/opt/kit/models/en_ppstructure_mobile_v2_SLANet.onnx"]
