import json
import shutil

import lightning as L
import pytest
import torch

from lit_t6.data import TokenDataModule


class Recorder(L.LightningModule):
    """Keeps the batches that it is trained on."""

    def __init__(self, seq_len=16):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seq_len, self.batches = seq_len, []

    def setup(self, stage):
        self.trainer.datamodule.fit_to_model(400, self.seq_len)

    def training_step(self, batch, batch_idx):
        self.batches.append(batch["tokens"].clone())
        return self.weight * 0

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def trainer(tmp_path, **options):
    options = {"max_steps": 5, "logger": False, "enable_checkpointing": False, "limit_val_batches": 0, **options}
    return L.Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **options,
    )


def trained_on(prepared, tmp_path, module=None, ckpt_path=None, run=None, **options):
    recorder = Recorder()
    run = run or trainer(tmp_path)
    run.fit(recorder, module or TokenDataModule(str(prepared), num_workers=0, **options), ckpt_path=ckpt_path)
    return torch.cat(recorder.batches)


def test_order_is_that_of_the_seed_whatever_the_batch_and_the_workers(prepared, tmp_path):
    reference = trained_on(prepared, tmp_path, batch_size=4)
    assert reference.shape == (20, 16)
    half = trained_on(prepared, tmp_path, batch_size=2)
    assert torch.equal(half, reference[:10])
    module = TokenDataModule(str(prepared), batch_size=4, num_workers=2)
    assert torch.equal(trained_on(prepared, tmp_path, module), reference)
    assert not torch.equal(trained_on(prepared, tmp_path, batch_size=4, seed=1), reference)


def test_goes_on_over_epochs(prepared, tmp_path):
    module = TokenDataModule(str(prepared), batch_size=1000, num_workers=0, seq_len=256)
    module.setup("fit")
    windows = len(module.windows("train", cover=False))
    run = trainer(tmp_path, max_steps=3, max_epochs=-1)
    seen = trained_on(prepared, tmp_path, TokenDataModule(str(prepared), windows, seq_len=256, num_workers=0), run=run)
    assert run.current_epoch == 3
    epochs = seen.view(3, windows, -1)
    assert not torch.equal(epochs[0], epochs[1])
    assert torch.equal(epochs[0].sort(0).values, epochs[2].sort(0).values)


def test_a_resumed_run_goes_on_after_the_last_sample(prepared, tmp_path):
    straight = trained_on(prepared, tmp_path, batch_size=4, run=trainer(tmp_path, max_steps=6))
    first = trainer(tmp_path, max_steps=2)
    trained_on(prepared, tmp_path, batch_size=4, run=first)
    first.save_checkpoint(tmp_path / "a.ckpt")
    rest = trained_on(
        prepared, tmp_path, batch_size=4, run=trainer(tmp_path, max_steps=6), ckpt_path=tmp_path / "a.ckpt"
    )
    assert torch.equal(rest, straight[8:])


def test_global_batch_sets_accumulation(prepared, tmp_path):
    run = trainer(tmp_path, max_steps=2)
    assert len(trained_on(prepared, tmp_path, batch_size=4, global_batch_size=12, run=run)) == 24
    assert run.accumulate_grad_batches == 3
    with pytest.raises(ValueError, match=r"global_batch_size=10 is not a multiple of data.batch_size=4 times 1 device"):
        trained_on(prepared, tmp_path, batch_size=4, global_batch_size=10)
    run = trainer(tmp_path, accumulate_grad_batches=2)
    with pytest.raises(
        ValueError, match="accumulate_grad_batches=2 contradicts data.global_batch_size=12, which needs 3"
    ):
        trained_on(prepared, tmp_path, batch_size=4, global_batch_size=12, run=run)


def test_every_step_has_the_global_batch_also_across_epochs(prepared, tmp_path):
    module = TokenDataModule(str(prepared), seq_len=512)
    module.setup("fit")
    windows = len(module.windows("train", cover=False))
    batch = windows // 10  # an epoch holds 10 micro-batches, two whole steps of 4
    reference = trained_on(
        prepared, tmp_path, batch_size=4 * batch, seq_len=512, run=trainer(tmp_path, max_steps=5, max_epochs=-1)
    )
    run = trainer(tmp_path, max_steps=5, max_epochs=-1)
    data = {"batch_size": batch, "global_batch_size": 4 * batch, "seq_len": 512}
    assert torch.equal(trained_on(prepared, tmp_path, run=run, **data), reference)
    assert run.current_epoch >= 2


def test_with_a_global_batch_the_validation_interval_counts_steps(prepared, tmp_path):
    run = trainer(tmp_path, max_steps=4, val_check_interval=2, check_val_every_n_epoch=None)
    trained_on(prepared, tmp_path, batch_size=4, global_batch_size=12, run=run)
    assert run.val_check_batch == 6


def test_a_data_module_that_served_one_run_serves_the_next_from_the_start(prepared, tmp_path):
    module = TokenDataModule(prepared, batch_size=4, num_workers=0)
    first = trained_on(prepared, tmp_path, module)
    assert torch.equal(trained_on(prepared, tmp_path, module), first)
    other = Recorder(seq_len=8)
    trainer(tmp_path).fit(other, module)
    assert other.batches[0].shape == (4, 8)


def test_overfit_batches_are_refused(prepared, tmp_path):
    with pytest.raises(ValueError, match="overfit_batches replaces the order of the data"):
        trained_on(prepared, tmp_path, run=trainer(tmp_path, overfit_batches=2))


def test_another_tokenizer_is_refused(prepared, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(prepared, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = tokenizer["model"]["merges"][::-1]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ValueError, match="not the tokenizer that made the shards beside it"):
        TokenDataModule(str(folder)).setup("fit")


def test_a_checkpoint_of_another_tokenizer_is_refused(prepared):
    module = TokenDataModule(str(prepared))
    module.setup("fit")
    other = json.loads(module.tokenizer.to_str())
    other["model"]["merges"] = other["model"]["merges"][::-1]
    with pytest.raises(ValueError, match="the checkpoint was trained with another tokenizer"):
        module.load_state_dict({"samples_seen": 0, "tokenizer": json.dumps(other)})
    module.load_state_dict({"samples_seen": 7, "tokenizer": module.tokenizer.to_str(pretty=True)})
    assert module.samples_seen == 7


def test_what_cannot_be_served(prepared, tmp_path):
    with pytest.raises(ValueError, match=r"data.batch_size must be at least 1, got 0"):
        TokenDataModule(str(prepared), batch_size=0)
    with pytest.raises(ValueError, match="no prepared data here"):
        TokenDataModule(str(tmp_path)).setup("fit")
    module = TokenDataModule(str(prepared), seq_len=10**6)
    with pytest.raises(ValueError, match=r"the train split has .* tokens, less than one window of 1000000 \+ 1"):
        module.windows("train", cover=False)
    with pytest.raises(ValueError, match="the tokenizer of .* has 400 tokens; set --model.vocab_size 400 or more"):
        module.fit_to_model(399, 16)
    with pytest.raises(ValueError, match="seq_len is not known"):
        TokenDataModule(str(prepared)).windows("train", cover=False)
    module.manifest.splits.pop("test")
    with pytest.raises(ValueError, match="no test split, only train, validation. .* with --test_fraction above 0"):
        module.windows("test", cover=True)
