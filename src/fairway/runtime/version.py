"""Which version of fairway this is; what it makes says so."""

VERSION = "0.1.0"
