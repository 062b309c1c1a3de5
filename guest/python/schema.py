"""The driver's fourth part: whether a value is what a JSON schema describes, said in words.

Of the schema's words it knows those below, and takes no notice of others, `format` among them. A schema that makes no
sense asks for nothing: whoever answers the call looks at it anyway. So this is a help for the author of the code, and
guards nobody.
"""

import json
import re
import sys

sys.modules["_belljar_schema"] = sys.modules[__name__]

STEPS_MAX = 100_000
"""Looks at parts of a value; beyond, the rest is taken for good."""
DEPTH_MAX = 200
SHOWN_CHARS_MAX = 60

_search = re.search
_shown_json = json.JSONEncoder(ensure_ascii=False, default=repr).encode

KINDS = {
    "object": "an object (dict)", "array": "an array (list)", "string": "a string", "integer": "an integer",
    "number": "a number", "boolean": "a boolean", "null": "null (None)",
}


def complaint(value, schema):
    """What is wrong with the value; None if nothing is."""
    return _Check(schema).of(value, schema, "")


class _Check:
    """One check of a whole value."""

    def __init__(self, root):
        self._root, self._steps, self._depth = root, 0, 0

    def of(self, value, schema, path):
        """The first complaint about a part of the value."""
        self._steps += 1
        if schema is False:
            return f"{_place(path)} is not allowed"
        if not isinstance(schema, dict) or self._steps > STEPS_MAX or self._depth > DEPTH_MAX:
            return None
        self._depth += 1
        try:
            for word, check in _WORDS.items():
                if word in schema:
                    found = self._asked(check, value, schema[word], schema, path)
                    if found is not None:
                        return found
        finally:
            self._depth -= 1
        return None

    def _asked(self, check, value, operand, schema, path):
        try:
            return check(self, value, operand, schema, path)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, re.error):
            return None

    def kind(self, value, kinds, _schema, path):
        kinds = [kinds] if isinstance(kinds, str) else kinds
        if any(_is(value, kind) for kind in kinds):
            return None
        return f"{_place(path)} must be {' or '.join(KINDS.get(kind, kind) for kind in kinds)}, not {_shown(value)}"

    def enum(self, value, allowed, _schema, path):
        if any(_same(value, one) for one in allowed):
            return None
        return f"{_place(path)} must be one of {', '.join(map(_shown, allowed))}, not {_shown(value)}"

    def const(self, value, wanted, _schema, path):
        return None if _same(value, wanted) else f"{_place(path)} must be {_shown(wanted)}, not {_shown(value)}"

    def required(self, value, keys, _schema, path):
        missing = [key for key in keys if key not in value] if isinstance(value, dict) else []
        return f"{_within(path)}{_shown(missing[0])} is required" if missing else None

    def additional(self, value, others, schema, path):
        if not isinstance(value, dict):
            return None
        known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
        for key, part in value.items():
            if key in known or any(_search(pattern, key) for pattern in patterns):
                continue
            if others is False:
                return f"{_within(path)}unknown key {_shown(key)} (known: {', '.join(known) or 'none'})"
            found = self.of(part, others, _under(path, key))
            if found is not None:
                return found
        return None

    def properties(self, value, schemas, _schema, path):
        keys = [key for key in schemas if key in value] if isinstance(value, dict) else []
        return self._first((value[key], schemas[key], _under(path, key)) for key in keys)

    def pattern_properties(self, value, schemas, _schema, path):
        pairs = value.items() if isinstance(value, dict) else ()
        return self._first(
            (part, schema, _under(path, key)) for key, part in pairs for pattern, schema in schemas.items()
            if _search(pattern, key))

    def property_names(self, value, names, _schema, path):
        return self._first((key, names, _under(path, key)) for key in (value if isinstance(value, dict) else ()))

    def items(self, value, items, schema, path):
        if not _is(value, "array") or isinstance(items, list):
            return None
        after = len(schema.get("prefixItems", ()))
        return self._first((part, items, f"{path}[{at}]") for at, part in enumerate(value) if at >= after)

    def prefix_items(self, value, schemas, _schema, path):
        parts = zip(value, schemas) if _is(value, "array") else ()
        return self._first((part, schema, f"{path}[{at}]") for at, (part, schema) in enumerate(parts))

    def _first(self, parts):
        return next((found for part in parts if (found := self.of(*part)) is not None), None)

    def all_of(self, value, schemas, _schema, path):
        return self._first((value, schema, path) for schema in schemas)

    def any_of(self, value, schemas, _schema, path):
        complaints = [self.of(value, schema, path) for schema in schemas]
        if None in complaints or not complaints:
            return None
        return f"{_place(path)} fits none of what is allowed: {'; or '.join(dict.fromkeys(complaints))}"

    def one_of(self, value, schemas, _schema, path):
        fitting = sum(self.of(value, schema, path) is None for schema in schemas)
        if fitting > 1:
            return f"{_place(path)} fits {fitting} of what is allowed, and must fit one"
        return self.any_of(value, schemas, _schema, path)

    def none_of(self, value, schema, _schema, path):
        return f"{_place(path)} must not be {_shown(value)}" if self.of(value, schema, path) is None else None

    def reference(self, value, reference, _schema, path):
        schema = self._root
        for step in reference.removeprefix("#").split("/")[1:] if reference.startswith("#") else (None,):
            step = step.replace("~1", "/").replace("~0", "~")
            schema = schema[int(step)] if isinstance(schema, list) else schema[step]
        return self.of(value, schema, path)

    def range(self, fits, text):
        """A check of numbers."""
        def check(_self, value, bound, _schema, path):
            good = not _is(value, "number") or fits(value, bound)
            return None if good else f"{_place(path)} must be {text} {bound}, not {_shown(value)}"
        return check

    def size(self, kind, fits, text):
        """A check of how much there is in something."""
        def check(_self, value, bound, _schema, path):
            good = not _is(value, kind) or fits(len(value), bound)
            return None if good else f"{_place(path)} must have {text.format(bound)}, not {len(value)}"
        return check

    def pattern(self, value, pattern, _schema, path):
        if not isinstance(value, str) or _search(pattern, value):
            return None
        return f"{_place(path)} must match the pattern {pattern}, not {_shown(value)}"

    def unique(self, value, wanted, _schema, path):
        if wanted is not True or not _is(value, "array"):
            return None
        for at, part in enumerate(value):
            self._steps += at
            if self._steps > STEPS_MAX:
                return None
            if any(_same(part, other) for other in value[:at]):
                return f"{path}[{at}] must not be there twice: {_shown(part)}"
        return None


def _least(value, bound):
    return value >= bound


def _most(value, bound):
    return value <= bound


def _multiple(value, step):
    return abs(value / step - round(value / step)) < 1e-9


_range, _size = _Check(None).range, _Check(None).size
_WORDS = {
    "$ref": _Check.reference,
    "type": _Check.kind, "enum": _Check.enum, "const": _Check.const,
    "required": _Check.required, "properties": _Check.properties, "patternProperties": _Check.pattern_properties,
    "additionalProperties": _Check.additional, "propertyNames": _Check.property_names,
    "prefixItems": _Check.prefix_items, "items": _Check.items, "uniqueItems": _Check.unique,
    "minimum": _range(_least, "at least"), "maximum": _range(_most, "at most"),
    "exclusiveMinimum": _range(lambda value, bound: value > bound, "more than"),
    "exclusiveMaximum": _range(lambda value, bound: value < bound, "less than"),
    "multipleOf": _range(_multiple, "a multiple of"), "pattern": _Check.pattern,
    "minLength": _size("string", _least, "at least {} characters"),
    "maxLength": _size("string", _most, "at most {} characters"),
    "minItems": _size("array", _least, "at least {} items"), "maxItems": _size("array", _most, "at most {} items"),
    "minProperties": _size("object", _least, "at least {} keys"),
    "maxProperties": _size("object", _most, "at most {} keys"),
    "allOf": _Check.all_of, "anyOf": _Check.any_of, "oneOf": _Check.one_of, "not": _Check.none_of,
}
"""Every word that is known, in the order in which their complaints help most."""


def _is(value, kind):
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer":
        return isinstance(value, int) or isinstance(value, float) and value.is_integer()
    kinds = {"object": dict, "array": (list, tuple), "string": str, "number": (int, float), "null": type(None)}
    return kind in kinds and isinstance(value, kinds[kind])


def _same(one, other):
    """As JSON has it: true is not 1, and 1 is 1.0."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return one == other


def _under(path, key):
    return f"{path}.{key}" if path else str(key)


def _place(path):
    return path or "the argument"


def _within(path):
    return f"{path}: " if path else ""


def _shown(value):
    text = _shown_json(value)
    return text if len(text) <= SHOWN_CHARS_MAX else f"{text[:SHOWN_CHARS_MAX]}..."
