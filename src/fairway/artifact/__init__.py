"""The one file that is weighed: how it is written and read, and how it lands under its cap."""
