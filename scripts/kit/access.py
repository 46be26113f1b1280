"""How the kit gets past its own gateway: the key and the certificate that the operator has given it, from .env.

Known by the address, so that whoever calls that address need not care; nobody else's address ever gets them.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from kit.catalog.settings import Settings
from kit.gateway import auth


@dataclass(frozen=True)
class Access:
    """key: empty for none. certificate: that of the gateway, which is trusted whatever its name; None for HTTP."""

    key: str = ""
    certificate: Path | None = None

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    @property
    def verify(self) -> ssl.SSLContext | bool:
        if self.certificate is None:
            return True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False  # it is called by its IP address here, and this one certificate is all that is trusted
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(self.certificate)
        return context


_known: dict[str, Access] = {}


def remember(settings: Settings) -> None:
    """For calls to the gateway of this clone. What cannot be read is left out: the gateway will say what it misses."""
    key, certificate = "", None
    if settings.given("GATEWAY_API_KEYS_FILE"):
        try:
            key = first_key(settings.path("GATEWAY_API_KEYS_FILE").read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            key = ""
    if settings.given("GATEWAY_TLS_CERTIFICATE") and settings.path("GATEWAY_TLS_CERTIFICATE").is_file():
        certificate = settings.path("GATEWAY_TLS_CERTIFICATE")
    _known[settings.gateway_url] = Access(key, certificate)


def first_key(text: str) -> str:
    """Of a file of the gateway's keys; empty where there is none."""
    return next((key for _, key in auth.entries(text)), "")


def of(url: str) -> Access:
    """What is known for an address, with or without a path."""
    return next((access for base, access in _known.items() if url == base or url.startswith(f"{base}/")), Access())
