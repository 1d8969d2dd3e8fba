"""What the folder of a trial says of its training: settings, sizes and data, also of one that came to nothing."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from tensorboard.plugins.hparams import metadata, plugin_data_pb2  # type: ignore[import-untyped]

from lit_t6.sweeps.records import read_metrics
from lit_t6.training.event_records import frames

CONFIG = "config.yaml"
"""Where `fit` keeps its settings, all of them."""
EVENTS = "events.out.tfevents.*"
_FACTS = "run/model"
"""Before the tag of the page on which a training says what it is, before its first step."""
_SIZES = {"num_parameters": "parameters", "cache_bytes_per_token": "cache_bytes_per_token", "num_heads": "num_heads"}
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Description:
    """Of a training; what its folder does not tell is empty.

    Args:
        settings: of `fit`, dotted.
        sizes: of its model, named as in the facts of its record.
        words: facts of the run, such as its data, by name.
        tokens: that it was trained on.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)
    tokens: int | None = None


def describe(folder: Path) -> Description:
    """What a trial's folder tells.

    Args:
        folder: of the trial, which may be on another machine.
    """
    settings: dict[str, Any] = {}
    with suppress(OSError, UnicodeDecodeError, yaml.YAMLError):
        settings = dict(_flat(yaml.load((folder / CONFIG).read_text(encoding="utf-8"), _LOADER)))
    sizes, words = _logged(folder)
    return Description(settings, sizes, words, (read_metrics(folder) or {}).get("tokens"))


def _flat(plain: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in plain.items() if isinstance(plain, dict) else ():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _logged(folder: Path) -> tuple[dict[str, int], dict[str, str]]:
    """Sizes and facts that a training wrote down before its first step."""
    sizes: dict[str, int] = {}
    words: dict[str, str] = {}
    for path in sorted(folder.glob(EVENTS)):
        for _, event in frames(path.read_bytes()):
            for value in event.summary.value:
                if value.tag == metadata.SESSION_START_INFO_TAG:
                    content = value.metadata.plugin_data.content
                    given = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
                    found = {
                        name: int(given[theirs].number_value) for name, theirs in _SIZES.items() if theirs in given
                    }
                    sizes |= {name: size for name, size in found.items() if size}
                elif value.tag.startswith(_FACTS) and value.tensor.string_val:
                    words |= _rows(value.tensor.string_val[0].decode(errors="replace"))
            if sizes and words:
                return sizes, words
    return sizes, words


def _rows(text: str) -> dict[str, str]:
    """Those of a table in Markdown whose first column is bold."""
    lines = [line[4:-1].partition("** | ") for line in text.splitlines() if line.startswith("| **")]
    return {name: value.strip() for name, between, value in lines if between}
