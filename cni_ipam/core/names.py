"""What every object has to be: its shape, name and labels, and how a broken rule is told.

The rules are those of Kubernetes (DNS-1123 subdomains, qualified names); the texts are Calico's.
"""

from __future__ import annotations

from cni_ipam.lean.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    Json = Any  # whatever a document may hold

API_VERSION = "projectcalico.org/v3"
LONGEST_NAME = 253
LONGEST_LABEL_PART = 63
LONGEST_VALUE_SHOWN = 120
ANNOTATIONS_BYTES = 256 * 1024
NAME_RULE = (
    "name must consist of lower case alphanumeric characters, '-' or '.' "
    r"(regex: [a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)"
)

_LOWER = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_ALPHANUMERIC = _LOWER | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_RESOURCE_TYPES: dict[str, type] = {
    "kind": str,
    "apiVersion": str,
    "metadata": dict,
    "spec": dict,
    "status": dict,
}
_METADATA_TYPES: dict[str, type] = {
    "name": str,
    "generateName": str,
    "namespace": str,
    "selfLink": str,
    "uid": str,
    "resourceVersion": str,
    "generation": int,
    "creationTimestamp": str,
    "deletionTimestamp": str,
    "deletionGracePeriodSeconds": int,
    "labels": dict,
    "annotations": dict,
    "ownerReferences": list,
    "finalizers": list,
    "managedFields": list,
}
_TYPE_WORDS = {
    str: "a string",
    int: "an integer",
    bool: "true or false",
    list: "a list",
    dict: "a map",
}


@record
class FieldError:
    """A field that breaks a rule; printed as Calico does."""

    name: str
    value: str | None
    reason: str

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.name} ({self.reason})"
        return f"{self.name} = '{self.value}' ({self.reason})"


def format_errors(errors: Iterable[FieldError]) -> str:
    """Calico's text for one broken rule, or for several."""
    lines = [str(error) for error in errors]
    if len(lines) == 1:
        return f"error with field {lines[0]}"
    return "error with the following fields:\n" + "".join([f"-  {line}\n" for line in lines])


def is_subdomain(text: str) -> bool:
    """Whether `text` is a DNS-1123 subdomain: what an object's name must be."""
    if len(text) > LONGEST_NAME:
        return False
    return all(_is_framed(part, _LOWER, "-") for part in text.split("."))


def find_qualified_name_error(text: str) -> str | None:
    """Why `text` cannot be the key of a label, or None if it can."""
    prefix, slash, name = text.rpartition("/")
    if slash and not is_subdomain(prefix):
        return "prefix part must be a lower case DNS subdomain of at most 253 characters"
    if not _is_framed(name, _ALPHANUMERIC, "-_.") or len(name) > LONGEST_LABEL_PART:
        return (
            "name part must consist of alphanumeric characters, '-', '_' or '.', must start and "
            "end with an alphanumeric character and have at most 63 characters"
        )
    return None


def is_label_value(text: str) -> bool:
    """Whether `text` can be the value of a label."""
    return not text or (len(text) <= LONGEST_LABEL_PART and _is_framed(text, _ALPHANUMERIC, "-_."))


def check_shape(resource: Json, kind: str, spec_types: dict[str, type]) -> list[FieldError]:
    """Unknown fields and wrong types at the top and in the spec of a resource of projectcalico.org.

    Where there is none, metadata and spec are maps.
    """
    errors = check_fields("", resource, _RESOURCE_TYPES)
    if errors:
        return errors
    for key, right in (("kind", kind), ("apiVersion", API_VERSION)):
        if (resource.get(key) or right) != right:
            errors.append(FieldError(key, resource[key], f"must be {right}"))
    for part in ("metadata", "spec"):
        if resource.get(part) is None:
            errors.append(FieldError(part, None, f"is missing: an {kind} has metadata and spec"))
    return errors or check_fields("spec", resource["spec"], spec_types)


def check_fields(path: str, fields: Json, types: dict[str, type]) -> list[FieldError]:
    """Fields of the map at `path` that are unknown or not of the type that they should be.

    A null is the same as no field at all.
    """
    if not isinstance(fields, dict):
        return [_wrong_type(path or "resource", fields, dict)]
    errors = []
    for key, value in fields.items():
        name = f"{path}.{key}" if path else str(key)
        if key not in types:
            reason = f"field in document is not recognized or is in the wrong location: {key}"
            errors.append(FieldError(name, _show(value), reason))
        elif value is not None and not _has_type(value, types[key]):
            errors.append(_wrong_type(name, value, types[key]))
    return errors


def check_texts(path: str, values: list[Json] | None) -> list[FieldError]:
    """Entries of the list at `path` that are not texts."""
    return [
        _wrong_type(f"{path}[{index}]", value, str)
        for index, value in enumerate(values or [])
        if not isinstance(value, str)
    ]


def check_metadata(metadata: Json) -> list[FieldError]:
    """Broken rules of an object's name, labels and annotations."""
    errors = check_fields("metadata", metadata, _METADATA_TYPES)
    if errors:
        return errors
    errors = check_name(metadata.get("name") or "")
    for key, value in (metadata.get("labels") or {}).items():
        errors += _check_label(key, value)
    total = 0
    for key, value in (metadata.get("annotations") or {}).items():
        errors += _check_annotation(key, value)
        total += len(f"{key}{value}".encode("utf-8", "replace"))
    if total > ANNOTATIONS_BYTES:
        reason = f"total size of annotations is too large by {total - ANNOTATIONS_BYTES} bytes"
        errors.append(FieldError("Metadata.Annotations", None, reason))
    return errors


def check_name(name: str) -> list[FieldError]:
    """Why `name` cannot be an object's name."""
    if not name:
        return [FieldError("Metadata.Name", None, "field must be set for a Create request")]
    if len(name) > LONGEST_NAME:
        reason = f"name is too long by {len(name) - LONGEST_NAME} bytes"
        return [FieldError("Metadata.Name", name, reason)]
    if not is_subdomain(name):
        return [FieldError("Metadata.Name", name, NAME_RULE)]
    return []


def _check_label(key: Json, value: Json) -> list[FieldError]:
    if not isinstance(key, str) or not isinstance(value, str):
        return [_wrong_type(f"metadata.labels.{key}", value, str)]
    errors = []
    reason = find_qualified_name_error(key)
    if reason:
        errors.append(FieldError("Metadata.Labels", key, reason))
    if not is_label_value(value):
        reason = (
            f"the value of label {key} must be empty or consist of at most 63 alphanumeric "
            "characters, '-', '_' or '.', and must start and end with an alphanumeric character"
        )
        errors.append(FieldError("Metadata.Labels", value, reason))
    return errors


def _check_annotation(key: Json, value: Json) -> list[FieldError]:
    if not isinstance(key, str) or not isinstance(value, str):
        return [_wrong_type(f"metadata.annotations.{key}", value, str)]
    reason = find_qualified_name_error(key.lower())
    return [FieldError("Metadata.Annotations", key, reason)] if reason else []


def _is_framed(text: str, ends: frozenset[str], between: str) -> bool:
    """Whether `text` begins and ends with one of `ends` and else has only these and `between`."""
    if not text or text[0] not in ends or text[-1] not in ends:
        return False
    return all(character in ends or character in between for character in text)


def _has_type(value: Json, wanted: type) -> bool:
    if isinstance(value, bool):
        return wanted in (bool, object)
    return isinstance(value, wanted)


def _wrong_type(name: str, value: Json, wanted: type) -> FieldError:
    return FieldError(name, _show(value), f"must be {_TYPE_WORDS[wanted]}")


def _show(value: Json) -> str:
    """A value of the document as it is spelled there, in one short piece."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return "{…}"
    if isinstance(value, list):
        return "[…]"
    text = str(value)
    return text if len(text) <= LONGEST_VALUE_SHOWN else f"{text[:LONGEST_VALUE_SHOWN]}…"
