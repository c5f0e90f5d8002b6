"""Recorded drives in; tracked 3D objects out, judged by the official metrics, in files that a planner reads.

`import perception` is light: rooms load when they are used (`perception.open_run`, `perception.tracking`, ...).
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "build_tracker", "open_drives", "open_run"]

if TYPE_CHECKING:
    from perception.drives import open_drives
    from perception.export import open_run
    from perception.tracking import build_tracker


def __getattr__(name: str) -> Any:
    """Load the three entry points on first use, so that `import perception` stays under 0.3 s."""
    if name == "open_run":
        from perception.export import open_run

        return open_run
    if name == "open_drives":
        from perception.drives import open_drives

        return open_drives
    if name == "build_tracker":
        from perception.tracking import build_tracker

        return build_tracker
    raise AttributeError(f"module 'perception' has no attribute {name!r}")
