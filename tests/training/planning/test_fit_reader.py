from lit_t6.training.planning.fit_reader import FitReader


def test_settings_of_a_training():
    reader = FitReader()
    words = ["--config=configs/paper/small-tpa.yaml", "--trainer.devices=2"]
    settings = reader.read(words)
    assert (settings.precision, settings.on_cpu, settings.seq_len) == ("bf16-mixed", False, 1024)
    assert (settings.sequences_per_step, settings.batches_per_step) == (480, 12)
    quick = reader.read(["--config=configs/quickstart.yaml", "--trainer.accumulate_grad_batches=3"])
    assert (quick.precision, quick.on_cpu, quick.seq_len, quick.sequences_per_step) == ("32-true", True, 128, 48)
