"""Owner references: whose an object is, and with whom it goes. A UID decides, as a name may be another's tomorrow."""

from __future__ import annotations

from collections.abc import Iterable

from kindling_operator.world import Object


def owner_references(resource: Object) -> Object:
    """The part of metadata that lets garbage collection follow the custom resource.

    Empty for a document that is not on an API server yet, as in `kindling render`.
    """
    metadata = resource["metadata"]
    if "uid" not in metadata:
        return {}
    owner = {"apiVersion": resource["apiVersion"], "kind": resource["kind"]}
    owner |= {"name": metadata["name"], "uid": metadata["uid"], "controller": True, "blockOwnerDeletion": True}
    return {"ownerReferences": [owner]}


def owners(thing: Object) -> list[Object]:
    """What an object says of its owners."""
    found: list[Object] = thing["metadata"].get("ownerReferences") or []
    return found


def is_owned(thing: Object, owner: Object) -> bool:
    """Whether an object belongs to this very owner, and not to one of the same name before it."""
    uid = owner["metadata"].get("uid")
    return uid is not None and any(each.get("uid") == uid for each in owners(thing))


def owned(things: Iterable[Object], owner: Object) -> tuple[Object, ...]:
    """Those that belong to this very owner."""
    return tuple(thing for thing in things if is_owned(thing, owner))
