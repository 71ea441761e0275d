"""Immutable records without `dataclasses`, whose import (inspect, re, …) costs 25 ms of start-up.

`@record` turns a class of annotated fields into a value: slots, positional or keyword
construction, equality, hash, repr, and no assignment afterwards. It understands what the
project uses and nothing more: fields, defaults (immutable ones), methods, properties.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    from typing_extensions import dataclass_transform

    T = TypeVar("T")

    @dataclass_transform(frozen_default=True)
    def record(cls: type[T]) -> type[T]: ...

    def replace(value: T, **changes: Any) -> T: ...

else:

    def record(cls):
        """Rebuild `cls` as an immutable class with one slot for each annotated field."""
        body = dict(cls.__dict__)
        fields = tuple(body.get("__annotations__", ()))
        defaults = {name: body.pop(name) for name in fields if name in body}
        for name in ("__dict__", "__weakref__"):
            body.pop(name, None)

        def __init__(self, *args, **named):  # noqa: N807
            if named or len(args) != len(fields):
                args = _complete(cls.__name__, fields, defaults, args, named)
            for set_field, value in zip(setters, args, strict=True):
                set_field(self, value)

        body.update(__slots__=fields, __match_args__=fields, __init__=__init__)
        body["__setattr__"] = body["__delattr__"] = _refuse
        for method in (_eq, _hash, _repr, _reduce):
            body.setdefault(f"_{method.__name__}__", method)
        made = type(cls)(cls.__name__, cls.__bases__, body)
        setters = [made.__dict__[name].__set__ for name in fields]
        return made

    def _complete(name, fields, defaults, args, named):
        """The values of all fields, from positional and named arguments and defaults."""
        if len(args) > len(fields):
            message = f"{name} takes {len(fields)} fields, got {len(args)}"
            raise TypeError(message)
        values = list(args)
        for field in fields[len(args) :]:
            if field in named:
                values.append(named.pop(field))
            elif field in defaults:
                values.append(defaults[field])
            else:
                message = f"{name} lacks its field {field!r}"
                raise TypeError(message)
        if named:
            message = f"{name} has no field {next(iter(named))!r} to set"
            raise TypeError(message)
        return values

    def replace(value, **changes):
        """A copy of the record `value` with some fields changed."""
        for name in value.__slots__:
            if name not in changes:
                changes[name] = getattr(value, name)
        return type(value)(**changes)

    def _fields(value):
        return tuple([getattr(value, name) for name in value.__slots__])

    def _eq(self, other):
        return type(self) is type(other) and _fields(self) == _fields(other)

    def _hash(self):
        return hash(_fields(self))

    def _repr(self):
        inside = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"{type(self).__name__}({inside})"

    def _reduce(self):
        return type(self), _fields(self)

    def _refuse(self, *_):
        message = f"{type(self).__name__} is immutable: use replace()"
        raise AttributeError(message)
