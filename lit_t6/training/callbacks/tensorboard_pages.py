"""What TensorBoard shows beside plain curves: configuration, model, a chart layout, HParams, loss over tokens."""

from typing import Any

import lightning as L
import torch
import yaml
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2  # type: ignore[import-untyped]
from torch.utils.tensorboard.summary import hparams as hparams_summaries
from torch.utils.tensorboard.writer import SummaryWriter

from lit_t6.attention import comparable_numbers
from lit_t6.data import TokenDataModule
from lit_t6.model import T6Config
from lit_t6.training.callbacks.run_facts import run_facts
from lit_t6.training.callbacks.text_page import add_text, as_code
from lit_t6.training.callbacks.throughput import Record, Throughput, cache_bytes_per_token
from lit_t6.training.curves import OVER_TOKENS
from lit_t6.training.optimizer import OptimizerConfig
from lit_t6.training.places import home_of

LAYOUT = {  # TensorBoard takes the tags as regular expressions
    "Loss": {
        "train and validation": ["Multiline", ["^train/loss$", "^val/loss$"]],
        "over tokens": ["Multiline", [f"^train/loss{OVER_TOKENS}$", f"^val/loss{OVER_TOKENS}$"]],
        "bits per byte": ["Multiline", ["^val/bits_per_byte$"]],
    },
    "Speed and memory": {
        "tokens per second": ["Multiline", ["^perf/tokens_per_sec$"]],
        "milliseconds a step": ["Multiline", ["^perf/step_ms$"]],
        "peak memory (GiB)": ["Multiline", ["^memory/peak_gib$"]],
    },
}
RESULTS = ("val/loss", "val/bits_per_byte", "perf/tokens_per_sec")
"""What HParams shows beside the settings: the last value of each."""
SHOWN_FIRST = ("mechanism", "parameters", "num_heads", "rank_q", "lr")
"""HParams shows five settings until more are ticked: those that are said to differ."""


def hyperparameters(
    config: T6Config, optimizer: OptimizerConfig, data: TokenDataModule | None, trainer: L.Trainer
) -> dict[str, Any]:
    """The columns of TensorBoard's HParams: numbers but for the first two, and the same in every run."""
    tokens = data.sequences_per_step * (data.seq_len or config.max_seq_len) if data is not None else 0
    numbers = {
        "parameters": config.num_parameters(),
        "cache_bytes_per_token": cache_bytes_per_token(config, str(trainer.precision)),
        "d_model": config.d_model,
        "num_layers": config.num_layers,
        **comparable_numbers(config.attention),
        "vocab_size": config.vocab_size,
        "max_seq_len": config.max_seq_len,
        "ffn_width": config.ffn_width,
        "init_variance": config.init_variance or 0,
        "lr": optimizer.lr,
        "min_lr": optimizer.min_lr,
        "warmup_steps": optimizer.warmup_steps,
        "weight_decay": optimizer.weight_decay,
        "tokens_per_step": tokens,
        "data_seed": data.seed if data is not None else 0,
    }
    return {"mechanism": config.attention.label, "init": config.init, **{k: float(v) for k, v in numbers.items()}}


def weights_table(module: torch.nn.Module) -> str:
    """Every weight with its shape and size, as Markdown."""
    rows = [
        f"| {name} | {' × '.join(map(str, weight.shape))} | {weight.numel():,} |"
        for name, weight in module.named_parameters()
    ]
    return "\n".join(["| weight | shape | numbers |", "|---|---|---:|", *rows])


def hparams_columns(settings: dict[str, Any]) -> Summary:
    """What TensorBoard's HParams needs to know of its columns; it reads this in one run only, so all have the same.

    Args:
        settings: names and values; strings and numbers.
    """
    strings, numbers = api_pb2.DATA_TYPE_STRING, api_pb2.DATA_TYPE_FLOAT64
    experiment = api_pb2.Experiment(
        hparam_infos=[
            api_pb2.HParamInfo(
                name=name, type=strings if isinstance(value, str) else numbers, differs=name in SHOWN_FIRST
            )
            for name, value in settings.items()
        ],
        metric_infos=[api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag)) for tag in RESULTS],
    )
    content = plugin_data_pb2.HParamsPluginData(experiment=experiment)
    mark = metadata.create_summary_metadata(content)
    return Summary(value=[Summary.Value(tag=metadata.EXPERIMENT_TAG, metadata=mark)])


class TensorBoardPages(Callback):
    """Fills the pages of TensorBoard: Text, Custom Scalars, HParams, and losses with tokens on the horizontal axis.

    Args:
        config: of the model, its head count known.
        optimizer: of the training.
        throughput: counts the tokens.
    """

    def __init__(self, config: T6Config, optimizer: OptimizerConfig, throughput: Throughput) -> None:
        self.config, self.optimizer, self.throughput = config, optimizer, throughput
        self._open: list[SummaryWriter] = []
        throughput.listeners.append(self._add_over_tokens)

    @staticmethod
    def _writers(trainer: L.Trainer) -> list[SummaryWriter]:
        if not trainer.is_global_zero:
            return []
        return [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._open = self._writers(trainer)
        facts = run_facts(trainer, self.config)  # log_dir is broadcast: every rank has to ask
        saved = home_of(trainer) / "config.yaml"
        if saved.is_file():
            configuration = saved.read_text(encoding="utf-8")
        else:
            data = getattr(trainer, "datamodule", None)
            plain = {"model": dict(pl_module.hparams), **({"data": dict(data.hparams)} if data is not None else {})}
            configuration = yaml.safe_dump(plain, sort_keys=False)
        table = "\n".join(["| | |", "|---|---|", *(f"| **{name}** | {value} |" for name, value in facts.items())])
        for writer in self._open:
            writer.add_custom_scalars(LAYOUT)
            add_text(writer, "run/configuration", as_code(configuration))
            add_text(writer, "run/model", f"{table}\n\n{weights_table(pl_module)}")
            self._add_hyperparameters(writer, trainer)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._open = []  # another training with the same Throughput brings its own pages

    def _add_over_tokens(self, record: Record, values: dict[str, float]) -> None:
        for writer in self._open:
            writer.add_scalar(f"train/loss{OVER_TOKENS}", values["train/loss"], record.total_tokens)

    def _add_hyperparameters(self, writer: SummaryWriter, trainer: L.Trainer) -> None:
        data = getattr(trainer, "datamodule", None)
        known = data if isinstance(data, TokenDataModule) else None
        settings = hyperparameters(self.config, self.optimizer, known, trainer)
        # SummaryWriter.add_hparams would open a run of its own and log made-up results.
        file = writer._get_file_writer()
        file.add_summary(hparams_columns(settings))
        _, session_start, _ = hparams_summaries(settings, {})
        file.add_summary(session_start)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        value = trainer.callback_metrics.get("val/loss")
        if value is not None and not trainer.sanity_checking and trainer.state.fn == "fit":
            for writer in self._open:
                writer.add_scalar(f"val/loss{OVER_TOKENS}", value, self.throughput.total_tokens)
