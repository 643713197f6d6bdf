"""Reading the source tree for `house.py`."""
