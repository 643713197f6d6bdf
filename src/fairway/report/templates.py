"""The templates of the pages (`*.html.j2`), all text in which is escaped."""

import re

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from fairway.runtime.version import VERSION


def template(name: str) -> Template:
    """A page's, by the name of its file; `version` need not be given."""
    environment = Environment(
        loader=PackageLoader("fairway.report", "."), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["breakable"] = breakable
    environment.globals["version"] = VERSION
    return environment.get_template(name)


def breakable(setting: str) -> Markup:
    """A dotted name that a line may break after each dot and underscore, and no number.

    >>> breakable("train.grad_clip 0.3")
    Markup('train.<wbr>grad_<wbr>clip 0.3')
    """
    return Markup(re.sub(r"[._](?=[A-Za-z])", r"\g<0><wbr>", str(escape(setting))))
