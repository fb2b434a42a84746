"""Where a call came from, as far as it can be known: the peer, or what a trusted proxy before us says.

The rule is `fleet/networks.client_address`; this is its shell over an ASGI scope. Only calls that need it pay for it.
A call through our own CONNECT proxy connects from this very process: the proxy notes who is behind which of its ports
(`Tunnels`), and leads to a listener that serves nothing else. Called by `auth` (networks of keys) and by the sign-in.
"""

import dataclasses
import functools

from starlette.types import Scope

from forestay.fleet.networks import Address, Network, client_address, parse_address, parse_networks
from forestay.gateway.routing import port_of

_FORWARDED = b"x-forwarded-for"


@functools.lru_cache(maxsize=8)
def trusted_networks(text: str) -> tuple[Network, ...]:
    """Read FORESTAY_TRUSTED_PROXIES; UsageError names what is no network."""
    return parse_networks("FORESTAY_TRUSTED_PROXIES", text.replace(",", " ").split())


@dataclasses.dataclass(slots=True)
class Tunnels:
    """Who is behind the CONNECT proxy's connections to us: filled by the proxy, in this process."""

    listener_port: int = 0  # where they arrive, and nothing else does; 0: there is no proxy
    origins: dict[int, str] = dataclasses.field(default_factory=dict[int, str])  # the proxy's own port -> its client


def address_of_call(scope: Scope, trusted_proxies: str, tunnels: Tunnels) -> Address | None:
    """Return the caller's address; None when the server or the proxies before it do not say."""
    client: tuple[str, int | str] | None = scope.get("client")
    if client is None:
        return None
    if tunnels.listener_port and port_of(scope) == tunnels.listener_port:
        # No proxy of the operator's can have written into what is encrypted from end to end: its header counts nothing.
        return parse_address(tunnels.origins.get(int(client[1]), ""))
    forwarded = [value.decode("latin-1") for name, value in scope["headers"] if name == _FORWARDED]
    return client_address(str(client[0]), forwarded, trusted_networks(trusted_proxies))
