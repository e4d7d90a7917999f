"""An endpoint's URL, which in a recipe has names of environment variables in place of secrets."""

from __future__ import annotations

import os
import re
from urllib.parse import quote

from tale.config.sections import EndpointConfig
from tale.errors import UserError
from tale.secrets import VARIABLE


def resolve_url(url: str) -> str:
    """The URL with each `$NAME` replaced by the environment variable's value, percent-encoded.

    Raises:
        UserError: there is no such variable.
    """
    return re.sub(VARIABLE, lambda name: quote(_value(name.group()), safe=""), url)


def secret_values(config: EndpointConfig) -> list[str]:
    """The environment's values in key and URL, plain and percent-encoded, which must not be shown."""
    names = [f"${config.api_key_env}", *re.findall(VARIABLE, config.base_url or "")]
    values = [os.environ.get(name[1:], "").strip() for name in names]
    return [text for value in values for text in (value, quote(value), quote(value, safe="")) if text]


def check_environment(config: EndpointConfig) -> None:
    """Refuse an endpoint whose secrets are not set, before anything of the run is written.

    Raises:
        UserError: its URL or `api_key_env` names a variable that is not set; the default of `api_key_env` may be unset.
    """
    resolve_url(config.base_url or "")
    if config.api_key_env != EndpointConfig.api_key_env and not os.environ.get(config.api_key_env):
        raise UserError(
            f"engine.endpoint.api_key_env: the environment variable {config.api_key_env} is not set; set it, or leave "
            "this key out"
        )


def _value(name: str) -> str:
    try:
        return os.environ[name[1:]]
    except KeyError:
        raise UserError(f"engine.endpoint.base_url: the environment variable {name[1:]} is not set") from None
