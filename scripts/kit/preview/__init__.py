"""CPU stand-ins for both of the service's models: a composed layout model and a VLM server backed by classic OCR."""
