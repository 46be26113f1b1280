"""Documents through POST /layout-parsing, from Python: docs/client.md.

from kit.client import Client

with Client("http://127.0.0.1:8080") as client:
    document = client.parse("paper.pdf")
"""

from kit.client.client import AsyncClient, Client
from kit.client.failures import (
    BadReply,
    BrokenOff,
    Busy,
    KeyRefused,
    NoService,
    ParseError,
    Refused,
    ServerFault,
    TimedOut,
    TooLarge,
    Unavailable,
    Unreachable,
    Unread,
    Unusable,
    WrongPages,
)
from kit.client.results import Block, Document, FailedPage, Page, PagesFailed, Picture
from kit.client.retry import Backoff
from kit.errors import KitError

__all__ = [
    "AsyncClient",
    "Backoff",
    "BadReply",
    "Block",
    "BrokenOff",
    "Busy",
    "Client",
    "Document",
    "FailedPage",
    "KeyRefused",
    "KitError",
    "NoService",
    "Page",
    "PagesFailed",
    "ParseError",
    "Picture",
    "Refused",
    "ServerFault",
    "TimedOut",
    "TooLarge",
    "Unavailable",
    "Unreachable",
    "Unread",
    "Unusable",
    "WrongPages",
]
