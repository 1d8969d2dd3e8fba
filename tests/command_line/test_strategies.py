import pytest

from lit_t6.command_line.options import arrange
from lit_t6.command_line.strategies import SHARDED, strategy_named


@pytest.mark.parametrize(
    ("typed", "alone", "with_options"),
    [
        ("ddp", "ddp", "DDPStrategy"),
        ("DDP", "ddp", "DDPStrategy"),
        ("DDPStrategy", "ddp", "DDPStrategy"),
        ("fsdp", "fsdp", SHARDED),
        (SHARDED, "fsdp", SHARDED),
        ("ShardedStrategy", "fsdp", SHARDED),
        ("auto", "auto", "auto"),
        ("ddp_find_unused_parameters_true", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_true"),
        ("deepspeed", "deepspeed", "deepspeed"),
        ("mine.Strategy", "mine.Strategy", "mine.Strategy"),
    ],
)
def test_names_are_what_the_trainer_takes(typed, alone, with_options):
    assert strategy_named(typed) == alone
    assert strategy_named(typed, has_options=True) == with_options


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("fdsp", "there is no 'fdsp'; did you mean fsdp? There are auto, ddp, fsdp."),
        ("x", "there is no 'x'. There are auto, ddp, fsdp."),
        ("FSDPStrategy", "FSDPStrategy: Lightning's own sharding is not supported; use fsdp"),
        ("lightning.pytorch.strategies.FSDPStrategy", "Lightning's own sharding is not supported; use fsdp"),
        ("ddp_spawn", "ddp_spawn: its processes are started from within Python"),
        ("ddp_notebook_find_unused_parameters_true", "use ddp."),
    ],
)
def test_what_works_with_nothing_here_is_refused(typed, says):
    with pytest.raises(ValueError, match="trainer.strategy: ") as error:
        strategy_named(typed)
    assert says in str(error.value)


def test_a_strategy_stands_before_its_options():
    words = ["--trainer.strategy.bucket_cap_mb=7", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    assert arrange(words) == ["--trainer.strategy", "DDPStrategy", *words[:3]]
    assert arrange(["--trainer.strategy=fsdp"]) == ["--trainer.strategy", "fsdp"]
