"""Finds modules that bring one more of something: a meter source, an engine, a ranking, a kind of surgery.

Ours are the modules of one package; those of others are entry points of one group, named like what they bring. Nothing
is imported before it is asked for. Not here: what such a module must hold (said where each registry is made).
"""

import pkgutil
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import Any, Generic, TypeVar

from shared.kernel.errors import BugError, ConfigurationError

T = TypeVar("T")


class Registry(Generic[T]):
    """All there are of one sort, by name.

    Attributes:
        what: the sort, for messages ("meter source").
        group: the entry-point group by which other distributions bring theirs.
    """

    def __init__(
        self,
        what: str,
        *,
        package: str,
        attribute: str,
        group: str,
        fits: Callable[[Any], bool],
        name_of: Callable[[T], str],
        helpers: tuple[str, ...] = (),
        alike: "Registry[Any] | None" = None,
    ) -> None:
        """Search `package`, each of whose modules except `helpers` must hold such a thing as `attribute`.

        The module is named like the thing; dots and dashes of a name are underscores there. With `alike` only those
        modules count whose names are modules of that registry's package too.
        """
        self.what = what
        self.group = group
        self._package = package
        self._attribute = attribute
        self._fits = fits
        self._name_of = name_of
        self._helpers = frozenset((*helpers, "base", "registry"))
        self._alike = alike
        self._found: dict[str, T] = {}

    def get(self, name: str) -> T:
        """Return the one of this name.

        Raises:
            ConfigurationError: there is none, a package that it needs is not installed, or its module does not hold
                what it must.
        """
        if name not in self._found:
            self._found[name] = self._load(name)
        return self._found[name]

    def all(self) -> tuple[T, ...]:
        """Return every one, in the order of their names; raises what `get` raises."""
        return tuple(self.get(name) for name in self.names())

    def loadable(self) -> Iterator[T]:
        """Yield every one that can be loaded, in the order of their names."""
        for name in self.names():
            with suppress(ConfigurationError):
                yield self.get(name)

    def origin(self, name: str) -> str | None:
        """Return the package and version that bring one; None for ours and for what is unknown."""
        for point in self._points.get(name, ()):
            return point.value if point.dist is None else f"{point.dist.name} {point.dist.version}"
        return None

    def names(self) -> tuple[str, ...]:
        """Return all names, sorted; what needs a package that is not installed here counts too."""
        return tuple(sorted({self._name_in(module) for module in self._modules} | set(self._points)))

    def _load(self, name: str) -> T:
        module, points = re.sub(r"[^a-z0-9]", "_", name), self._points.get(name, ())
        if len(points) > 1 or (points and module in self._modules and self._name_in(module) == name):
            theirs = " and ".join(_origin(point) for point in points)
            raise ConfigurationError(
                f"the {self.what} {name!r} is brought more than once: by {theirs}", hint="uninstall all but one"
            )
        for point in points:
            return self._other(point)
        if module in self._modules:
            try:
                found = self._own(module)
            except ImportError as error:
                raise self._incomplete(name, error, self._package) from error
            if self._name_of(found) == name:
                return found
        raise ConfigurationError(f"unknown {self.what} {name!r}", hint=f"known: {', '.join(self.names())}")

    def _own(self, module: str) -> T:
        found: T = getattr(import_module(f"{self._package}.{module}"), self._attribute, None)  # type: ignore[assignment]
        if not self._fits(found):
            raise BugError(f"{self._package}.{module} holds no {self.what} as {self._attribute}")
        return found

    def _other(self, point: EntryPoint) -> T:
        try:
            found: T = point.load()
        except ImportError as error:
            raise self._incomplete(point.name, error, _origin(point)) from error
        except AttributeError as error:
            raise ConfigurationError(
                f"the {self.what} {point.name!r} is not where it should be: {error}", where=_origin(point)
            ) from error
        if not self._fits(found) or self._name_of(found) != point.name:
            raise ConfigurationError(
                f"the entry point {point.name!r} of {self.group} holds no {self.what} of this name",
                where=_origin(point),
            )
        return found

    def _incomplete(self, name: str, error: ImportError, origin: str) -> ConfigurationError:
        return ConfigurationError(
            f"the {self.what} {name!r} needs a package that is not installed: {error}", where=origin
        )

    @cached_property
    def _modules(self) -> frozenset[str]:
        if self._alike is not None:
            return self._alike._modules
        spec = find_spec(self._package)
        places = None if spec is None else spec.submodule_search_locations
        found = {module.name for module in pkgutil.iter_modules(places or [])}
        return frozenset(name for name in found if not name.startswith("_")) - self._helpers

    def _name_in(self, module: str) -> str:
        try:
            return self._name_of(self._own(module))
        except ImportError:
            return module

    @cached_property
    def _points(self) -> dict[str, tuple[EntryPoint, ...]]:
        points = entry_points(group=self.group)
        return {
            name: tuple({point.value: point for point in points.select(name=name)}.values()) for name in points.names
        }


def _origin(point: EntryPoint) -> str:
    return point.value if point.dist is None else f"{point.dist.name} ({point.value})"
