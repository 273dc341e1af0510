"""Which functions a document may name: those of the modules that an installation allows."""

from __future__ import annotations

from collections.abc import Sequence

from kindling_api.errors import SpecError, explain


def is_within(module: str, allowed: Sequence[str]) -> bool:
    """Whether `module` is one of the allowed ones or lies within one, by whole names.

    >>> is_within("rewards.maths", ["rewards"]), is_within("rewards_of_others", ["rewards"])
    (True, False)
    """
    return any(f"{module}.".startswith(f"{one}.") for one in allowed)


def check_function(field: str, import_path: str, allowed: Sequence[str]) -> None:
    """Refuse `module:function` where the module is not allowed.

    Nothing is imported for this; that the function is defined there, and not merely to be found there, is seen only
    when it is.

    Raises:
        SpecError: it is not allowed, or has a name that belongs to Python itself, as `__main__` does.
    """
    module, _, function = import_path.partition(":")
    ours = any(part.startswith("__") for part in (*module.split("."), function))
    if ours or not is_within(module, allowed):
        raise SpecError(
            explain(
                field,
                found=import_path,
                allowed=modules_allowed(allowed),
                remedy="use another reward, or ask for its module to be added to rewards.allowedModules of the chart",
            )
        )


def modules_allowed(allowed: Sequence[str]) -> str:
    """What is allowed, for a message."""
    if not allowed:
        return "none: the installation allows no module"
    return f"a function that is defined in {' or '.join(allowed)}"
