"""What a reply of /layout-parsing is worth: whether anything was read. Standard library only; client and gateway use it.

The contract is PaddleX's own (paddlex/inference/serving/schemas/paddleocr_vl.py, 3.7.2).
"""

from __future__ import annotations

import re
from typing import Any

# Blocks that are pictures: they have no text of their own (paddlex 3.7.2, pipelines/paddleocr_vl).
PICTURES = {"image", "header_image", "footer_image", "chart", "seal"}
# What PaddleX writes around a block even where the VLM answered nothing: tags of tables, signs of formulas.
_AROUND_NOTHING = re.compile(r"<[^<>]*>|\$")


def contents(page: dict[str, Any]) -> list[str]:
    """What was read in each block of a page that is to be read; a blank page has none.

    Raises KeyError, TypeError or AttributeError when the page is of another shape.
    """
    blocks = page["prunedResult"]["parsing_res_list"]
    texts = [block["block_content"] for block in blocks if block["block_label"] not in PICTURES]
    return [_AROUND_NOTHING.sub("", text).strip() for text in texts]


def was_left_unread(pages: Any) -> bool:
    """True where there are blocks to read and not one has content: PaddleX calls that a success.

    False also for what is of another shape; whoever reads the pages says so.
    """
    try:
        texts = [text for page in pages for text in contents(page)]
    except (KeyError, TypeError, AttributeError):
        return False
    return bool(texts) and not any(texts)
