"""Whether shards are still what `prepare` wrote: their hashes against the manifest's, looked at once."""

import json
from pathlib import Path

from lit_t6.data.manifest import Manifest, file_hash
from lit_t6.data.progress import progress_bar

VERIFIED_NAME = "verified.json"
_SHOW_FROM = 500_000_000  # bytes that take long enough for a progress bar


def verify_shards(folder: Path, manifest: Manifest) -> None:
    """Compare the hash of every shard with the manifest's.

    What was found right is noted in `verified.json` with size and time of change, so that a shard is read again only if
    its file has changed.

    Args:
        folder: of prepared data.
        manifest: its description.

    Raises:
        ValueError: a shard whose contents are not what was written.
    """
    noted = _read_notes(folder)
    shards = [shard for split in manifest.splits.values() for shard in split.shards]
    present = [shard for shard in shards if (folder / shard.file).is_file()]
    waiting = [shard for shard in present if noted.get(shard.file) != _mark(folder / shard.file, shard.sha256)]
    if not waiting:
        return
    total = sum((folder / shard.file).stat().st_size for shard in waiting)
    hidden = total < _SHOW_FROM
    with progress_bar(total=total, desc="checking shards", unit="B", unit_scale=True, hidden=hidden) as bar:
        for shard in waiting:
            path = folder / shard.file
            if file_hash(path) != shard.sha256:
                raise ValueError(
                    f"{path}: damaged: its contents are not what prepare wrote (its hash is not the manifest's). Run "
                    f"`python cli.py prepare` again, with --overwrite true."
                )
            noted[shard.file] = _mark(path, shard.sha256)
            bar.update(path.stat().st_size)
    _write_notes(folder, noted)


def _mark(path: Path, sha256: str) -> list[int | str]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, sha256]


def _read_notes(folder: Path) -> dict[str, list[int | str]]:
    try:
        notes = json.loads((folder / VERIFIED_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not there, or cut: everything is read again
        return {}
    return notes if isinstance(notes, dict) else {}


def _write_notes(folder: Path, notes: dict[str, list[int | str]]) -> None:
    partial = folder / f"{VERIFIED_NAME}.partial"
    try:
        partial.write_text(json.dumps(notes), encoding="utf-8")
        partial.replace(folder / VERIFIED_NAME)
    except OSError:  # a folder that may only be read: the next run looks again
        return
