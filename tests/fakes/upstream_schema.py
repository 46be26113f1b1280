"""PaddleX's own request classes: a JSON object {"path", "body"} a line on stdin, what they say of it on stdout.

An empty line where it is accepted, the reason where it is refused. With "fields" as body: their names, as JSON.
"""

from __future__ import annotations

import json
import sys

from paddlex.inference.serving.schemas import paddleocr_vl as upstream

CLASSES = {"/layout-parsing": upstream.InferRequest, "/restructure-pages": upstream.RestructurePagesRequest}

for line in sys.stdin:
    asked = json.loads(line)
    model = CLASSES[asked["path"]]
    if asked["body"] == "fields":
        fields = {name: [field.is_required(), str(field.annotation)] for name, field in model.model_fields.items()}
        print(json.dumps(fields), flush=True)
        continue
    try:
        model.model_validate(asked["body"])
        print(flush=True)
    except Exception as error:  # most are pydantic.ValidationError; what a validator stumbles over is no acceptance either
        print(json.dumps(f"{type(error).__name__}: {error}"[:300]), flush=True)
