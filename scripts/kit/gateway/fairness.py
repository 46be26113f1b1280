"""Who is next: each client in turn, and each of a client's documents in turn. Pure; knows nothing of replicas."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """One client with 500 pages and ten with one page: the ten wait for one page each, not for 500."""

    def __init__(self) -> None:
        self._clients: OrderedDict[Hashable, OrderedDict[Hashable, deque[Item]]] = OrderedDict()

    def put(self, client: Hashable, document: Hashable, item: Item) -> None:
        self._clients.setdefault(client, OrderedDict()).setdefault(document, deque()).append(item)

    def pop(self) -> Item:
        """The next item; its client and its document go to the end of their lines. Raises IndexError when empty."""
        if not self._clients:
            raise IndexError("nothing waits")
        client, documents = next(iter(self._clients.items()))
        document, items = next(iter(documents.items()))
        item = items.popleft()
        documents.move_to_end(document)
        self._clients.move_to_end(client)
        if not items:
            del documents[document]
            if not documents:
                del self._clients[client]
        return item

    def __len__(self) -> int:
        return sum(len(items) for documents in self._clients.values() for items in documents.values())
