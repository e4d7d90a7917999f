"""Keys and passwords are known by their form and their place, and neither refused texts nor shown ones repeat them."""

from __future__ import annotations

import pytest

from tale.errors import UserError
from tale.secrets import find_secret, redact
from tale.text import printable, printable_lines

SECRET = "Zx9secretQ7"
HARMLESS = [
    "runs/risk-free_shelf_life",
    "http://localhost:8000/v1",
    "https://x.openai.azure.com/openai/v1?api-version=2024-06-01",
    "https://me:$PASSWORD@host/v1?api-key=$MY_KEY&api-version=1",
    "https://$TOKEN@host/$PATH_KEY/v1",
    "is it https://host/v1?",
    "TALE [/PT]",
]


@pytest.mark.parametrize("text", HARMLESS)
def test_what_holds_no_secret_stays_as_it_is(text: str) -> None:
    assert find_secret(text) is None
    assert redact(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"http://me:{SECRET}@host/v1", "http://…@host/v1"),
        (f"http://{SECRET}@host/v1", "http://…@host/v1"),
        (f"http://me:a/{SECRET}@b@host/v1", "http://…@host/v1"),
        (f"http://me:$PASSWORD{SECRET}@host/v1", "http://…@host/v1"),
        (f"http://host/v1?api-key={SECRET}", "http://host/v1?api-key=…"),
        (f"http://host/v1?api-version=1&sig={SECRET}&x=$KEY", "http://host/v1?api-version=1&sig=…&x=$KEY"),
        (f"http://host/v1?{SECRET}", "http://host/v1?…"),
        (f"http://host/v1?{SECRET}==", "http://host/v1?…"),
        (f"http://host/v1#{SECRET}", "http://host/v1#…"),
        (f"see HTTPS://me:{SECRET}@host, twice http://a?b={SECRET}", "see HTTPS://…@host, twice http://a?b=…"),
        (f"key hf_{SECRET}0123", "key hf_…"),
        (f"sk-proj-{SECRET}", "sk-…"),
        *[
            (f"run_{start}{SECRET}0123", f"run_{start}…")
            for start in ("csk-", "pplx-", "r8_", "tgp_v1_", "gho_", "xoxb-")
        ],
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0", "eyJ…"),
        ("and 1another-7654321, too", "and …, too"),
        ("MY_TOKEN is 0123456789", "MY_TOKEN is …"),
    ],
)
def test_a_secret_is_refused_and_veiled_and_never_repeated(
    text: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", "0123456789")
    monkeypatch.setenv("DB_PASS_2", "1another-7654321")
    monkeypatch.setenv("OTHER_KEY", "EMPTY")
    reason = find_secret(text)
    assert reason
    assert SECRET not in reason
    assert redact(text) == shown
    assert str(UserError(f"{text} {reason}")) == f"{shown} {redact(reason)}"


def test_the_remedy_can_be_read_in_an_error() -> None:
    assert "'http://me:$PASSWORD@host/v1?key=$KEY'" in str(UserError(find_secret("http://a:b@c")))


def test_what_steers_a_terminal_is_shown_instead() -> None:
    text = "a\x1b[2J\0b\rc\nd\te\x9b31m\u202ef\ud800 \N{OLD PERSIAN SIGN A}é"
    line = r"a\x1b[2J\x00b\rc\nd" + "\t" + r"e\x9b31m\u202ef\ud800" + " \N{OLD PERSIAN SIGN A}é"
    assert printable(text) == line
    assert printable_lines(text) == line.replace(r"\n", "\n")
    assert printable("abcdef", 3) == "abc…"
    assert str(UserError(text)) == line
