"""Takes secrets out of text that someone will send away. Pure.

Two ways at once, since each misses what the other finds: by value (whatever a
secret-sounding name holds anywhere is a secret everywhere), and by shape (names with
their values, addresses with a password, tokens of known form, long payloads). What
only looks like a secret is taken out too: a diagnosis can do without it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote

MASK = "<removed>"
SHORTEST = 4  # characters of a value that is looked for everywhere; shorter ones would hit half of all words
PAYLOAD = 120  # characters of base64 in one go; a SHA-256 in hex has 64

# `token` alone or before a separator, so that tokenizer and max-num-batched-tokens stay.
_NAME = (
    r"(?:api[_-]?keys?|access[_-]?keys?|secret[_-]?keys?|private[_-]?keys?|\bkeys?|_keys?|\bsk|\bak|_sk|_ak"
    r"|tokens?(?![a-z])|secrets?|passw(?:or)?ds?|passphrases?|pwd|credentials?|auth|authorization|cookies?|signature|\bsig)"
)
SECRET_NAME = re.compile(rf"(?i){_NAME}(?:$|[_-](?!file\b|path\b|dir\b))")
# Names of settings that count tokens: their numbers are no secrets.
_COUNT = re.compile(r"(?i)tokens\b")
_FOLDERS = ("PWD", "OLDPWD")  # of the shell: where it stands
_HARMLESS = re.compile(r"(?i)^(?:|null|none|true|false|~|\*+|<removed>|\$\{?\w+.*)$")

# A bare value goes on to the next space or quote: rather too much than the first half of a password.
_PAIR = re.compile(
    rf"""(?ix) (?P<name> ["']? [\w.-]{{0,40}} {_NAME} [\w.-]{{0,40}} ["']? ) (?P<sep> [ \t]*[:=][ \t]* )
    (?P<value> "(?:[^"\\]|\\.)*" | '[^']*' | \[[^\[\]]+\] | (?![\[{{])[^\s"']+ )"""
)
_HEADER = re.compile(
    r"(?i)((?:proxy-)?authorization|cookie|x-api-key)([\"']?\s*[:=,]\s*[\"']?)(?:(bearer|basic|token|digest)\s+)?[^\s\"',}\]]+"
)
_BEARER = re.compile(r"(?i)\b(bearer)\s+[\w.~+/=-]{4,}")
_USERINFO = re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^/\s\"'<>]+@")
_PROXY_USERINFO = re.compile(r"(?i)(proxy[\"']?\s*[:=]\s*[\"']?)(?![a-z][a-z0-9+.-]*://)[^\s\"'/<>@]+@")
_KNOWN_FORM = re.compile(r"\b(?:sk-|hf_|gh[pousr]_|github_pat_|glpat-|xox[abps]-|AKIA|ASIA)[\w-]{8,}|\beyJ[\w-]+\.[\w-]+\.[\w-]*")
_KEY_BLOCK = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_DATA_URI = re.compile(r"(data:[\w/+.-]*;base64,)[A-Za-z0-9+/=_-]+")
_BASE64 = re.compile(rf"[A-Za-z0-9+/_-]{{{PAYLOAD},}}={{0,2}}")


def is_secret_name(name: str) -> bool:
    """True for names such as API_KEY, hf-token, db.password; not for max_tokens or tokenizer."""
    return bool(SECRET_NAME.search(name)) and not _COUNT.search(name) and name not in _FOLDERS


def secret_values(values: Mapping[str, str]) -> set[str]:
    """What is secret among variables: values under secret names, passwords inside addresses; each as it is and decoded."""
    found: set[str] = set()
    for name, value in values.items():
        if is_secret_name(name):
            found.add(value)
        for userinfo in re.findall(r"(?:://|^)([^/\s@]+)@", value) if "@" in value else ():
            user, _, password = userinfo.partition(":")
            found |= {password, unquote(password)} if password else {user}
    return {value for value in found if len(value) >= SHORTEST and not _HARMLESS.match(value)}


def secrets_in_tree(tree: Any, inside: bool = False) -> set[str]:
    """The same for parsed YAML or JSON: every text and number at or below a secret name."""
    if isinstance(tree, Mapping):
        parts = [secrets_in_tree(value, inside or is_secret_name(str(key))) for key, value in tree.items()]
        texts = {str(key): value for key, value in tree.items() if isinstance(value, str)}
        return set().union(*parts, secret_values(texts))
    if isinstance(tree, (list, tuple)):
        pairs = dict(text.split("=", 1) for text in tree if isinstance(text, str) and "=" in text)
        return set().union(secret_values(pairs), *(secrets_in_tree(value, inside) for value in tree))
    if inside and tree is not None and not isinstance(tree, bool):
        return {str(tree)} if len(str(tree)) >= SHORTEST and not _HARMLESS.match(str(tree)) else set()
    return set()


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` without secrets: the given ones wherever they stand, and all that has the shape of one."""
    for secret in sorted(secrets, key=len, reverse=True):  # the longer first: it may hold the shorter
        text = text.replace(secret, MASK)
    text = _KEY_BLOCK.sub(MASK, text)
    text = _DATA_URI.sub(rf"\1{MASK}", text)
    text = _BASE64.sub(lambda match: match[0] if _is_path(match[0]) else f"<{len(match[0])} characters of base64 removed>", text)
    text = _USERINFO.sub(rf"\1{MASK}@", text)
    text = _PROXY_USERINFO.sub(rf"\1{MASK}@", text)
    text = _HEADER.sub(rf"\1\2{MASK}", text)
    text = _BEARER.sub(rf"\1 {MASK}", text)
    text = _KNOWN_FORM.sub(MASK, text)
    return _PAIR.sub(_without_value, text)


def _without_value(match: re.Match[str]) -> str:
    name, value = match["name"].strip("\"'"), match["value"]
    bare = value.strip("\"'")
    if not is_secret_name(name) or _HARMLESS.match(bare):
        return match[0]
    quote = value[0] if value[0] in "\"'" else ""
    return f"{match['name']}{match['sep']}{quote}{MASK}{quote}"


def _is_path(text: str) -> bool:
    """Long paths are made of base64's characters too; theirs are words between slashes."""
    parts = text.split("/")
    return len(parts) > 4 and max(map(len, parts)) < 40 and not any(re.search(r"\d[A-Z].*\d[a-z]", part) for part in parts)
