"""LightningCLI for LitT6: fit, validate, test and predict."""

import logging
import signal
import tempfile
import warnings
from collections.abc import Sequence
from typing import Any, Self

import torch
import yaml
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from lit_t6.command_line.options import arrange, option_value
from lit_t6.command_line.parsing import parse, parser_settings
from lit_t6.command_line.strategies import strategy_named
from lit_t6.command_line.trainers import check_that_a_model_is_named
from lit_t6.training.accelerator import choose_precision
from lit_t6.training.callbacks import DocumentLossWriter, SaveOnInterrupt, TrainingProgress
from lit_t6.training.callbacks.run_facts import advice_for_cpu
from lit_t6.training.callbacks.start_panel import is_news
from lit_t6.training.checkpoint import convert_weights, read_checkpoint
from lit_t6.training.checkpoint_io import SafeCheckpointIO
from lit_t6.training.checkpoint_option import check_that_a_file_is_named, over_those_of_checkpoint
from lit_t6.training.cli_settings import SETTINGS, add_options
from lit_t6.training.compile_cache import keep_compiled_code
from lit_t6.training.finished_run import describe_finished_run
from lit_t6.training.launcher import watch_processes
from lit_t6.training.library_warnings import in_our_words
from lit_t6.training.memory import StageOfFailure, explain_out_of_memory, is_out_of_memory
from lit_t6.training.messages import say, warn
from lit_t6.training.monitors import check_mode, check_monitors
from lit_t6.training.outcome import say_outcome
from lit_t6.training.places import folder_without_logger
from lit_t6.training.refused_run import leaving_nothing
from lit_t6.training.run_elsewhere import describe_run_elsewhere
from lit_t6.training.run_folder import RunFolder
from lit_t6.training.runs import find_unfinished, forget, tell_child_processes
from lit_t6.training.sharded import ShardedStrategy
from lit_t6.training.steps_left import check_limits, check_steps_left


class T6CLI(LightningCLI):
    """Lightning's command line with our model, data and defaults.

    Args:
        ends_process: see `SaveOnInterrupt`.
        **settings: of LightningCLI.
    """

    def __init__(self, ends_process: bool = False, **settings: Any) -> None:
        self.ends_process = ends_process
        super().__init__(**settings)

    @classmethod
    def run(cls, command: str, words: Sequence[str], examples: str = "", ends_process: bool = False) -> Self:
        """Run one of fit, validate, test and predict.

        Args:
            command: which.
            words: its options, as typed. Those of the checkpoint named by `--ckpt_path` hold where nothing else is
                said.
            examples: shown at the end of the command's help.
            ends_process: whether the process ends with this; see `SaveOnInterrupt`.

        Returns:
            The finished run, with its `trainer`, `model` and `datamodule`.

        Raises:
            ValueError: an error of the user's.
        """
        options = arrange(words)
        for speaker in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed"):
            logging.getLogger(speaker).addFilter(is_news)
        checkpoint = option_value(options, "--ckpt_path")
        if not options:
            check_that_a_model_is_named(command, options)
        try:
            with tempfile.TemporaryDirectory() as folder, in_our_words(formats=ends_process):
                options = over_those_of_checkpoint(options, checkpoint, command, folder)
                saves = RunFolder if command == "fit" else None
                parsers = {
                    name: parser_settings(name, examples if name == command else "") for name in cls.subcommands()
                } | parser_settings("COMMAND")
                settings = {"save_config_callback": saves, "parser_kwargs": parsers, **SETTINGS}
                return cls(ends_process, args=[command, *options], **settings)
        except MisconfigurationException as error:
            raise ValueError(" ".join(str(error).split())) from error
        finally:
            forget()

    @classmethod
    def build(cls, options: list[str]) -> Self:
        """Build `trainer`, `model` and `datamodule` from options, and run nothing."""
        settings = {**SETTINGS, "parser_kwargs": parser_settings("build")}
        return cls(args=arrange(options), run=False, save_config_callback=None, **settings)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """See `add_options`."""
        add_options(parser)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse `args` alone: the words of the process are `cli.main`'s business.

        Raises:
            ValueError: what the parser refuses, in one line, or an evaluation of nothing.
        """
        commands = getattr(self, "_subcommand_parsers", {})
        self.config = parse(parser, args, commands.get(args[0]) if args else None)
        if commands:
            check_that_a_model_is_named(args[0], args[1:])

    def _parse_ckpt_path(self) -> None:
        """Leave the options as they are: a checkpoint's are below the user's, not above them (`run`)."""

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer, with bfloat16 on GPUs that have it unless another precision was asked for.

        Raises:
            ValueError: a GPU was asked for, and there is none.
        """
        trainer_config = self._get(self.config_init, "trainer")
        kwargs["precision"] = choose_precision(trainer_config["accelerator"], trainer_config.get("precision"))
        evaluates = self.subcommand in ("validate", "test", "predict")
        if evaluates:
            kwargs["logger"] = False  # its figures are printed; the curves are those of training
        if isinstance(name := trainer_config.get("strategy"), str):  # of a file, or as `arrange` has found it
            name = strategy_named(name)
            kwargs["strategy"] = ShardedStrategy() if name == "fsdp" else name
        saves = not evaluates and trainer_config.get("enable_checkpointing") is not False
        kwargs["enable_checkpointing"] = True  # else Lightning refuses those that are there, and go out below
        asked_for_bar = "ProgressBar" in str(trainer_config.get("callbacks"))  # Lightning adds its own to the same list
        trainer = super().instantiate_trainer(**kwargs)
        watch_processes(trainer)
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # neither the user's nor the strategy's own
            trainer.strategy.checkpoint_io = SafeCheckpointIO(self._get(self.config_init, "on_save_error"))
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set outside of its class
        self.failure = StageOfFailure()
        callbacks.append(self.failure)
        if not saves:
            callbacks[:] = [callback for callback in callbacks if not isinstance(callback, Checkpoint)]
        if not evaluates:
            goes_on_from = self._get(self.config, "ckpt_path")
            callbacks.append(SaveOnInterrupt(self.same_command, self.ends_process, goes_on_from))
        if not asked_for_bar:  # Lightning's own counts batches of an epoch
            callbacks[:] = [TrainingProgress() if isinstance(c, ProgressBar) else c for c in callbacks]
        if not saves:  # Lightning would warn that the checkpoint was written by a callback that is not there
            warnings.filterwarnings("ignore", message="Be aware that when using .ckpt_path.")
        return trainer

    def before_instantiate_classes(self) -> None:
        """Settings that follow from the command: precision of products, predictions, what the run goes on with.

        Raises:
            ValueError: a checkpoint that is not named by its file, or no way to tell the best.
        """
        torch.set_float32_matmul_precision("high")
        self.converted_from: str | None = None
        self.same_command = False
        self.goes_on_from: str | None = None
        self.steps_before = 0
        self.begun_anew: dict[str, Any] | None = None  # options of a run that nothing was found to go on with
        if self.subcommand is None:
            return
        config = self.config[self.subcommand]
        check_mode(config.checkpoint.mode)
        check_that_a_file_is_named(config.ckpt_path, self.subcommand)
        config.weights_only = True if config.weights_only is None else config.weights_only  # run nothing of a file
        if self.subcommand == "predict" and config.return_predictions is None:
            config.return_predictions = False  # they go to a file, not to memory
        if config.convert:
            if config.ckpt_path is None:
                raise ValueError("--convert true needs --ckpt_path, the checkpoint to take weights from.")
            self.converted_from, config.ckpt_path = config.ckpt_path, None
        if self.subcommand == "fit":
            if config.model.compile:
                keep_compiled_code()
            self._before_fit_is_built(config)

    def _before_fit_is_built(self, config: Any) -> None:
        resumes, as_typed = config.ckpt_path is not None, config.clone()
        self.goes_on_from = config.ckpt_path
        if config.trainer.logger is False:
            self.save_config_callback = None  # it would be read to find the run again, among those of a logger
            if not config.trainer.fast_dev_run:
                config.trainer.default_root_dir = folder_without_logger(config.trainer.default_root_dir)
            return
        if config.auto_resume and not resumes and not self.converted_from:
            plain = yaml.safe_load(self._subcommand_parsers["fit"].dump(config, skip_none=False))
            found = find_unfinished(plain)
            self.begun_anew = None if found else plain
            self.same_command = str(config.trainer.logger.class_path).endswith("TensorBoardLogger")
            tell_child_processes(found)
            if found is not None:
                config.trainer.logger.init_args.version = found.version
                config.ckpt_path = found.ckpt_path
            self.save_config_kwargs = {"taken_up": found, "overwrite": found is not None, "as_typed": as_typed}
        else:
            self.save_config_kwargs = {"overwrite": resumes}

    def after_instantiate_classes(self) -> None:
        """Take over the weights of a checkpoint of another configuration, if that was asked for.

        Raises:
            ValueError: an evaluation that would run on weights drawn afresh.
        """
        if self.converted_from is None:
            return
        taken, fresh = convert_weights(self.model, read_checkpoint(self.converted_from))
        if not taken or (fresh and self.subcommand != "fit"):
            raise ValueError(
                f"{self.converted_from}: cannot be converted: {len(fresh)} of {len(taken) + len(fresh)} weights have "
                f"another name or shape, such as {fresh[0].removeprefix('model.')}."
            )
        say(f"{self.converted_from}: {len(taken)} weights taken, {len(fresh)} drawn afresh.")

    def before_fit(self) -> None:
        """Look at limits and data before a folder is made for the run, and before processes for other devices start.

        Raises:
            ValueError: there is nothing to train, or data that does not fit.
        """
        self.model.check_trainer(self.trainer)
        check_limits(self.trainer)
        check_monitors(self.trainer)
        if self.goes_on_from is not None:
            self.steps_before = check_steps_left(self.trainer, self.goes_on_from)
        self.datamodule.accumulation(self.trainer)
        self.datamodule.prepare_data()
        self.datamodule.fit_to_model(self.model.config.vocab_size, longest := self.model.config.max_seq_len)
        if self.datamodule.seq_len > longest:
            raise ValueError(
                f"data.seq_len={self.datamodule.seq_len} is longer than what the model is for, model.max_seq_len="
                f"{longest}; make it smaller, or set --model.max_seq_len too."
            )
        self.datamodule.windows("train", cover=False)  # opens every shard
        if self.trainer.limit_val_batches:
            self.datamodule.windows("validation", cover=True)
        if self.trainer.is_global_zero and (advice := advice_for_cpu(self.trainer, self.model.config)):
            warn(advice)
        if self.trainer.is_global_zero and self._get(self.config_init, "trainer").enable_checkpointing is False:
            warn("trainer.enable_checkpointing=false: the model is not kept, and the training cannot be gone on with.")
        if self.trainer.is_global_zero and self.begun_anew is not None:  # one rank alone reads checkpoints for it
            said = describe_finished_run(self.begun_anew) or describe_run_elsewhere(self.begun_anew)
            if said:
                say(said)

    def before_predict(self) -> None:
        """Look at the file to write before the data is read and processes for other devices start."""
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]  # set outside of its class
            if isinstance(callback, DocumentLossWriter):
                callback.check_path()

    def after_fit(self) -> None:
        """Say what came out and what can be done with it."""
        if self.trainer.is_global_zero:
            say_outcome(self.trainer, self.goes_on_from, self.steps_before)

    def _run_subcommand(self, subcommand: str) -> None:
        """Run it, and leave no folder behind where it is refused."""
        with leaving_nothing(self.trainer):
            self._run_explained(subcommand)

    def _run_explained(self, subcommand: str) -> None:
        """Run it; if memory ends, find the largest batch that fits, and say so.

        Raises:
            ValueError: a batch that does not fit into memory.
        """
        message = ""
        try:
            super()._run_subcommand(subcommand)
        except SystemExit as ended:
            if isinstance(ended.__context__, KeyboardInterrupt):  # before our handlers were there; Lightning says 1
                raise SystemExit(128 + signal.SIGINT) from None
            raise
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            message = str(error).splitlines()[0]
        finally:
            for callback in self.trainer.callbacks:  # type: ignore[attr-defined]  # set outside of its class
                if isinstance(callback, SaveOnInterrupt):
                    callback.hand_back()
        if message:  # the error, and with it all that its frames hold, is gone here
            raise ValueError(explain_out_of_memory(self.model, self.datamodule, self.trainer, self.failure, message))
