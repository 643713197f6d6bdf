"""A prediction and by how much it may be off: what a plan is made of."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Figure:
    """value  in the unit that its field has
    error  by how much it may be off, as a share of the value; None: it is a bound, and no more
    basis  how both are known
    """

    value: float
    error: float | None
    basis: str

    def shown(self, number: str) -> str:
        """The number as it is written, with its error.

        >>> Figure(value=9.0, error=0.05, basis="").shown("9 s")
        '9 s ± 5%'
        >>> Figure(value=9.0, error=None, basis="").shown("9 s")
        'at most 9 s'
        """
        if self.error is None:
            return f"at most {number}"
        return (
            f"{number} ± {self.error:.0%}" if self.error >= 0.01 else f"{number} ± {self.error:.1%}"
        )
