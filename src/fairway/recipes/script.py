"""A published script: the recipe it runs when nothing is set, and its variables.

Every script of the field is configured by environment variables alone. Here each variable is one
row: its name, and the fields of a recipe that it sets. What the script does by default is a recipe,
so a variable's default is read there; the same rows read the settings of a record from its recipe.
Names are an interface, read off the scripts as merged. What a user sets is parsed and checked in
`interop`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from fairway.evaluate.config import EvaluateConfig
from fairway.model.model_config import ModelConfig
from fairway.recipes.diff import override, present, value_at
from fairway.recipes.recipe import Recipe

Value = int | float | bool | str
Convert = Callable[["Environment"], object]
RANKS = 8  # processes of a record, one for each H100


@dataclass(frozen=True, kw_only=True)
class Variable:
    """One variable of a script; made by the functions below.

    sets         path of each field that it sets, and what computes the field from all variables
    read         path of the field that tells its value
    back         from that field to the value
    default      the value where no field tells it
    part         of a switch: what stands at the path while it is on
    needs        switches without which it means nothing
    unsupported  what another value than the default asks for, of which nothing here has a
                 counterpart
    fixed        any value describes the same model, but a run of ours can only have the default
    """

    name: str
    sets: Mapping[str, Convert] = field(default_factory=dict)
    read: str = ""
    back: Callable[[Any], Value] = lambda held: held
    default: Value | None = None
    part: object = None
    needs: tuple[str, ...] = ()
    unsupported: str = ""
    fixed: bool = False


def at(
    name: str,
    *paths: str,
    to: Convert | None = None,
    also: Mapping[str, Convert] | None = None,
    read: str = "",
    **others: Any,
) -> Variable:
    """A variable that sets the fields at `paths`, to its value or to what `to` makes of it."""
    sets = dict.fromkeys(paths, to or (lambda env: env[name])) | dict(also or {})
    return Variable(name=name, sets=sets, read=read or "".join(paths[:1]), **others)


def under(part: str, **fields: str) -> tuple[Variable, ...]:
    """Variables that set one field each of a part of the recipe."""
    return tuple(at(name, f"{part}.{path}") for name, path in fields.items())


def or_none(name: str, path: str) -> Variable:
    """A number that is 0 where the field is None."""
    return at(name, path, to=lambda env: env[name] or None, back=lambda held: held or 0.0)


def switch(
    name: str, path: str, part: object, *, also: Mapping[str, Convert] | None = None
) -> Variable:
    """A variable that decides whether an optional part of the recipe is there."""
    return at(
        name,
        path,
        to=lambda env: part if env[name] else None,
        back=lambda held: held is not None,
        also=also,
        part=part,
    )


def per_rank(name: str, path: str) -> Variable:
    """A number for each of the eight processes of a record, where the field is for all together."""
    return at(name, path, to=lambda env: RANKS * env[name], back=lambda held: held // RANKS)


def inert(**defaults: Value) -> tuple[Variable, ...]:
    """Variables that set no field: other rows read them, or this project does it its own way."""
    return tuple(Variable(name=name, default=value) for name, value in defaults.items())


def fixed(**defaults: Value) -> tuple[Variable, ...]:
    """Variables that a run of ours can only have at their default."""
    return tuple(Variable(name=name, default=v, fixed=True) for name, v in defaults.items())


def only(name: str, value: Value, otherwise: str) -> Variable:
    """A variable whose other values ask for what is not supported."""
    return Variable(name=name, default=value, unsupported=otherwise)


@dataclass(frozen=True)
class Environment:
    """Variables of one script; `values` has every name it knows, `given` those a user set."""

    script: "Script"
    values: Mapping[str, Any]
    given: frozenset[str] = frozenset()

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def get(self, name: str, otherwise: Any) -> Any:
        """The variable, or `otherwise` where this script has none of that name."""
        return self.values.get(name, otherwise)

    def describe(self, name: str) -> str:
        value = self.values[name]
        unset = name not in self.given and value == self.script.defaults[name]
        origin = " (the script's default)" if unset else ""
        return f"{name}={int(value) if isinstance(value, bool) else value}{origin}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Script:
    """One published script.

    default    the recipe of a run with no variable set
    checks     what contradicts itself, in words that name the variables
    refused    prefixes of variables that no run of ours can have, and why
    loaded     the model that its checkpoints hold, where that is not what its runs train
    evaluated  the last word on the evaluation
    banked     whether checkpoints stack the matrices of all layers in banks
    marks      prefixes of tensor names by which its checkpoints are known
    always     shapes of tensors that checkpoints hold even where the model has no use for them
    widths     variables that a checkpoint tells by itself: (tensor, dimension)
    ignored    variables that published command lines set and no line of the script reads
    """

    name: str
    default: Callable[[], Recipe]
    variables: Mapping[str, Variable]
    checks: tuple[Callable[[Environment], Iterable[str]], ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    loaded: Callable[[ModelConfig, Environment], ModelConfig] = lambda model, env: model
    evaluated: Callable[[EvaluateConfig, Environment], EvaluateConfig] = lambda config, env: config
    banked: bool = False
    marks: tuple[str, ...] = ()
    always: Callable[[ModelConfig], dict[str, tuple[int, ...]]] = lambda model: {}
    widths: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()

    def child(
        self,
        name: str,
        default: Callable[[], Recipe],
        variables: Iterable[Variable],
        *,
        drop: str = "",
        **others: Any,
    ) -> "Script":
        """A script that came from this one, with variables added, replaced and dropped.

        drop    names of variables, divided by blanks
        others  fields that differ; `refused` and `widths` are not handed down
        """
        kept = {key: row for key, row in self.variables.items() if key not in drop.split()}
        fields = {"refused": {}, "widths": {}} | others
        return replace(
            self, name=name, default=default, variables=kept | by_name(variables), **fields
        )

    @cached_property
    def defaults(self) -> dict[str, Value]:
        """What each variable is when unset."""
        return self.read(self.default())

    def read(self, recipe: Recipe) -> dict[str, Value]:
        """The variables under which the script makes that run."""
        parts = {row.read: row.part for row in self.variables.values() if row.part}
        return {
            name: row.back(value_at(recipe, row.read, parts))
            if row.default is None
            else row.default
            for name, row in self.variables.items()
        }

    def apply(self, base: Recipe, env: Environment) -> Recipe:
        """`base` with every field that variables set as they are in `env`."""
        changed = override(base, self._settings(base, env))
        return replace(changed, evaluate=self.evaluated(changed.evaluate, env))

    def model(self, env: Environment) -> ModelConfig:
        """The model that a checkpoint holds: what serves training alone is left out."""
        model = override(self.default().model, self._section("model.", env))
        weight = ModelConfig.extra_heads_weight
        return self.loaded(replace(model, extra_heads=0, extra_heads_weight=weight), env)

    def evaluation(self, env: Environment) -> EvaluateConfig:
        """How the script scores; what it learns before scoring has no counterpart here."""
        config = override(self.default().evaluate, self._section("evaluate.", env))
        return self.evaluated(config, env)

    def _section(self, prefix: str, env: Environment) -> dict[str, object]:
        settings = self._settings(self.default(), env, prefix)
        return {path.removeprefix(prefix): value for path, value in settings.items()}

    def _settings(self, base: Recipe, env: Environment, prefix: str = "") -> dict[str, object]:
        """Path and value of every field that variables set, less those of absent parts."""
        found = {
            path: make(env)
            for row in self.variables.values()
            for path, make in row.sets.items()
            if path.startswith(prefix)
        }
        return present(base, found)


def by_name(variables: Iterable[Variable]) -> dict[str, Variable]:
    return {variable.name: variable for variable in variables}
