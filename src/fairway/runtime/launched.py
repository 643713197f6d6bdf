"""Which of the processes that torchrun started this is, where PyTorch is not imported yet.

What several processes would all say is said by the first. Whatever needs more asks `Ranks`.
"""

import os
from collections.abc import Mapping


def is_first_process(env: Mapping[str, str] = os.environ) -> bool:
    """
    >>> is_first_process({}), is_first_process({"RANK": "0"}), is_first_process({"RANK": "3"})
    (True, True, False)
    """
    return env.get("RANK", "0") == "0"
