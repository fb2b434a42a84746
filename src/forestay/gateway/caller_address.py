"""Where a call came from, as far as it can be known: the peer, or what a trusted proxy before us says.

The rule is `fleet/networks.client_address`; this is its shell over an ASGI scope. Only calls that need it pay for it.
Called by `auth` (networks of keys) and by the sign-in.
"""

import functools

from starlette.types import Scope

from forestay.fleet.networks import Address, Network, client_address, parse_networks

_FORWARDED = b"x-forwarded-for"


@functools.lru_cache(maxsize=8)
def trusted_networks(text: str) -> tuple[Network, ...]:
    """Read FORESTAY_TRUSTED_PROXIES; UsageError names what is no network."""
    return parse_networks("FORESTAY_TRUSTED_PROXIES", text.replace(",", " ").split())


def address_of_call(scope: Scope, trusted_proxies: str) -> Address | None:
    """Return the caller's address; None when the server or the proxies before it do not say."""
    client: tuple[str, int] | None = scope.get("client")
    if client is None:
        return None
    forwarded = [value.decode("latin-1") for name, value in scope["headers"] if name == _FORWARDED]
    return client_address(str(client[0]), forwarded, trusted_networks(trusted_proxies))
