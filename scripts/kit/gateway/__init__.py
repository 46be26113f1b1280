"""One door in front of several plain API processes: knows documents, speaks upstream's contract. See docs/gateway.md.

Runs inside the official API image with our code mounted read-only: Python 3.10, aiohttp, uvicorn, pypdfium2, Pillow
and the standard library. Nothing here may import what only .kit/venv has.
"""
