"""Runs side by side: kept in one database, compared where they may be, their changes counted."""
