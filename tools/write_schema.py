"""Writes docs/schema.md from the Arrow schemas: `python tools/write_schema.py`. A test keeps the two equal."""

import argparse
from pathlib import Path

from perception.export.schema import SCHEMA_VERSION, SCHEMAS, describe

ROOT = Path(__file__).resolve().parents[1]
HEAD = f"""# Files of a run (schema version {SCHEMA_VERSION})

`OUT/run.json` comes last: without it the run did not finish. It lists the drives, the resolved configuration and its hash, hashes of the
inputs, counts and seconds. `OUT/<kind>/<drive>.parquet` are zstd-compressed Parquet, one file a drive; in a file name what is not a letter,
digit or one of `_.-~` is written as %XX. `OUT/nuscenes/tracks.json` is the official submission (seen boxes only; no coasted ones).

Global frame: fixed to the world, as the recording gives it. Ego frame: x forward, y left, z up, origin on the ground under the rear axle,
at the time of the row's frame. Rows are in the order of frames; a frame without objects has no rows in `detections` and `tracks`, and
always one in `frames`. Made by `python tools/write_schema.py`.
"""


def document() -> str:
    """The text of docs/schema.md."""
    return HEAD + "".join(f"\n## {kind}/<drive>.parquet\n\n{describe(schema)}\n" for kind, schema in SCHEMAS.items())


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()  # --help writes nothing
    (ROOT / "docs" / "schema.md").write_text(document())
