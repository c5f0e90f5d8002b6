"""Recorded drives in; tracked 3D objects out, judged by the official metrics, in files that a planner reads.

`import perception` is light: rooms load when they are used (`perception.open_run`, `perception.tracking`, ...).
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Pipeline", "__version__", "build_tracker", "open_drives", "open_run", "run_drives"]

if TYPE_CHECKING:
    from perception.drives import open_drives
    from perception.export import open_run
    from perception.pipeline import Pipeline, run_drives
    from perception.tracking import build_tracker

_ROOM = {
    "Pipeline": "perception.pipeline",
    "build_tracker": "perception.tracking",
    "open_drives": "perception.drives",
    "open_run": "perception.export",
    "run_drives": "perception.pipeline",
}


def __getattr__(name: str) -> Any:
    """Load the entry points on first use, so that `import perception` stays under 0.3 s."""
    if name in _ROOM:
        from importlib import import_module

        return getattr(import_module(_ROOM[name]), name)
    raise AttributeError(f"module 'perception' has no attribute {name!r}")
