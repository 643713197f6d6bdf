"""How long peers are waited for."""

PEER_SECONDS = 20.0  # of silence after which a rank is lost
