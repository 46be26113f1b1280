"""A VLM server for machines without a GPU: vLLM's OpenAI protocol in front of classic OCR models."""
