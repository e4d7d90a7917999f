"""Detecting keys and passwords, so that none is saved or shown. A run gets them from the environment."""

from __future__ import annotations

import os
import re

# Keys of Hugging Face, OpenAI and others, and JSON Web Tokens; all have digits.
TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(hf_|c?sk-|gsk_|xai-|nvapi-|pplx-|r8_|tgp_v1_|gh[opsu]_|github_pat_|glpat-|xox[abp]-|A[KS]IA|AIza|eyJ)"
    r"(?=[\w-]*\d)[\w-]{12,}(?:\.[\w-]{12,})*"
)
# The value of a variable with such a name is a secret if it is long and has a digit: a placeholder like EMPTY is not.
NAMED = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|(^|_)(PASS|PASSWD|PW))(_?\d+)?$", re.IGNORECASE)
LONG = re.compile(r"(?=.*\d)\S{8,}")
VARIABLE = r"\$[A-Z_][A-Z0-9_]*"
URL = re.compile(r"\b([a-z][a-z0-9+.-]*://)(\S*@)?([^\s?#]*)([?#]\S*)?", re.IGNORECASE)
USER = re.compile(rf"(?:{VARIABLE}|[\w.%+-]+(?=:))(?::{VARIABLE})?@")
QUERY = re.compile(
    rf"(?:[\w.-]+={VARIABLE}|api-version=[\w.-]+)?[\"'.,:)}}\]]*"
)  # with punctuation that may follow in a sentence


def find_secret(text: str) -> str | None:
    """Why a text must not be saved, without repeating the secret, and the remedy; None if there is none."""
    if TOKEN.search(text):
        return "looks like a key; give keys only by the environment"
    for name, value in _kept_by_the_environment():
        if value in text:
            return f"contains the value of the environment variable {name}; leave it out"
    if any(_hidden(url) != url.group() for url in URL.finditer(text)):
        return (
            "give a password in a URL, and all values after its ?, by the environment: write "
            "'http://me:$PASSWORD@host/v1?key=$KEY' with names of variables (only api-version may be literal)"
        )
    return None


def redact(text: str) -> str:
    """The text with every secret replaced by `…`."""
    for _, value in _kept_by_the_environment():
        text = text.replace(value, "…")
    return URL.sub(_hidden, TOKEN.sub(r"\1…", text))


def _kept_by_the_environment() -> list[tuple[str, str]]:
    return [(name, value) for name, value in os.environ.items() if NAMED.search(name) and LONG.fullmatch(value)]


def _hidden(url: re.Match[str]) -> str:
    scheme, user, place, query = (part or "" for part in url.groups())
    parts = re.split(r"([?#&;])", query)  # separators at the odd places
    parts[::2] = [part if QUERY.fullmatch(part) else _named(part) for part in parts[::2]]
    return f"{scheme}{user if not user or USER.fullmatch(user) else '…@'}{place}{''.join(parts)}"


def _named(part: str) -> str:
    name, _, value = part.partition("=")
    return f"{name}=…" if value.strip("=") else "…"
