"""Strategies of several devices by the names that a person types."""

from lit_t6.command_line.complaints import nearest

NAMES = ("auto", "ddp", "fsdp")
SHARDED = "lit_t6.training.ShardedStrategy"
_MEANT = {"ddpstrategy": "ddp", "shardedstrategy": "fsdp", SHARDED.lower(): "fsdp"}
_WITH_OPTIONS = {"ddp": "DDPStrategy", "fsdp": SHARDED}
_OTHER_FSDP = ("fsdpstrategy", "fsdp_cpu_offload", "modelparallelstrategy")
_OTHER_STARTS = ("ddp_spawn", "ddp_fork", "ddp_notebook")


def strategy_named(name: str, has_options: bool = False) -> str:
    """What Lightning's trainer and its parser take for a name.

    Args:
        name: as typed, of a strategy or of its class.
        has_options: whether options of it were typed too, which need the name of a class.

    Raises:
        ValueError: there is no such strategy, or one with which nothing here works.
    """
    plain = name.lower()
    plain = _MEANT.get(plain, plain)
    if plain in _WITH_OPTIONS:
        return _WITH_OPTIONS[plain] if has_options else plain
    last = plain.rpartition(".")[2]
    if last in _OTHER_FSDP:
        raise ValueError(
            f"trainer.strategy: {name}: Lightning's own sharding is not supported; use fsdp, which runs on CPUs too "
            f"({SHARDED})."
        )
    if plain.startswith(_OTHER_STARTS):
        raise ValueError(
            f"trainer.strategy: {name}: its processes are started from within Python, where they can be neither "
            f"stopped nor gone on with; use ddp."
        )
    if "." in name or name.startswith("{") or name.endswith("Strategy") or plain in NAMES or plain in _of_lightning():
        return plain if plain in NAMES else name
    raise ValueError(f"trainer.strategy: there is no {name!r}{nearest(name, NAMES)} There are {', '.join(NAMES)}.")


def _of_lightning() -> list[str]:
    from lightning.pytorch.strategies import StrategyRegistry

    return list(StrategyRegistry.available_strategies())
