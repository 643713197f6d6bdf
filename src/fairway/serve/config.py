"""What a server of ours does for whom: addresses, tokens, limits."""

import ipaddress
from dataclasses import dataclass

SHORTEST_TOKEN = 16  # characters; to guess one of 16 hexadecimal digits takes longer than anybody


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Where a model is offered, to whom, and how much each may ask.

    Attributes:
        host: address to listen at; any but loopback needs expose and a token
        port: to listen at; 0 takes a free one
        expose: listen at an address that others can reach
        allowed_hosts: names that a request may call this server by, beside its own; where it is
            exposed and none is given, any
        name: of the model, as requests name it; None takes the file's
        max_tokens: largest number of tokens that one completion may have
        max_choices: largest number of completions of one request, all prompts together
        max_body_bytes: largest request
        active: requests that are answered side by side, token by token
        waiting: further requests that may wait; who comes after them is sent away
        seconds: that one request may take, waiting included
    """

    host: str = "127.0.0.1"
    port: int = 8000
    expose: bool = False
    allowed_hosts: tuple[str, ...] = ()
    name: str | None = None
    max_tokens: int = 4096
    max_choices: int = 64
    max_body_bytes: int = 1 << 20
    active: int = 4
    waiting: int = 16
    seconds: float = 120.0

    def __post_init__(self) -> None:
        if not 0 <= self.port < 1 << 16:
            raise ValueError(f"port={self.port}: ports go from 0, which takes a free one, to 65535")
        for name in ("max_tokens", "max_choices", "max_body_bytes", "active", "seconds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")
        if self.waiting < 0:
            raise ValueError(f"waiting={self.waiting} must not be negative")
        if not self.is_loopback and not self.expose:
            raise ValueError(
                f"host={self.host} can be reached by others; if that is wanted, say --expose and "
                "give a token"
            )

    @property
    def is_loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def hosts(self) -> frozenset[str] | None:
        """Names that a Host header may have; None: any.

        A page elsewhere whose name is made to point here (DNS rebinding) calls us by that name.
        """
        if self.expose and not self.allowed_hosts:
            return None  # who has the token may call us anything
        own = {"localhost", "127.0.0.1", "::1", self.host}
        return frozenset(name.lower() for name in own | set(self.allowed_hosts))


def require_token(config: ServeConfig, token: str | None) -> None:
    """ValueError where a token is missing, or none to rely on."""
    if token is None:
        if config.expose:
            raise ValueError(
                "--expose needs a token, which every request has to show: --token-file FILE, or "
                "the environment variable FAIRWAY_TOKEN"
            )
        return
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable():
        raise ValueError(
            f"a token of {len(token)} characters; give {SHORTEST_TOKEN} or more of printable "
            "ASCII, as `python -c 'import secrets; print(secrets.token_hex())'` makes them"
        )
