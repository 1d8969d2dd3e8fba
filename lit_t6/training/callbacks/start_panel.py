"""What is about to be trained, on one screen, before the first step."""

import logging

import lightning as L
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from lit_t6.model import T6Config
from lit_t6.training.callbacks.run_facts import run_facts
from lit_t6.training.messages import say

_NO_NEWS = (
    *("💡", "GPU available", "TPU available", "`Trainer.fit` stopped"),
    *("Seed set to", "Restoring states from", "Restored all states from", "Loaded model weights from"),
)


class StartPanel(Callback):
    """Prints the facts of a run before it starts: mechanism, size, cache, device, data, tokens a step, log folder.

    Args:
        config: of the model, its head count known.
    """

    def __init__(self, config: T6Config) -> None:
        self.config = config

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        facts = run_facts(trainer, self.config)  # log_dir is broadcast: every rank has to ask
        if trainer.is_global_zero:
            table = Table.grid(padding=(0, 2))
            table.add_column()
            table.add_column(overflow="fold")  # a path is worth nothing if it is cut
            for name, value in facts.items():
                table.add_row(f"[bold]{name}", value)
            console = Console(soft_wrap=True)
            with console.capture() as panel:  # rich itself ends the process where nobody reads its output
                console.print(Panel(table, title="lit_t6", title_align="left", expand=False))
            say(panel.get().removesuffix("\n"))


def is_news(record: logging.LogRecord) -> bool:
    """Whether a message of Lightning's says something that nobody typed and that no line of ours says."""
    return not record.getMessage().startswith(_NO_NEWS)
