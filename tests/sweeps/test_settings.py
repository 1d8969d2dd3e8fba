import pytest

from lit_t6.sweeps.reading import Place
from lit_t6.sweeps.settings import Settings, flat_options, read_settings

from .studies import write


def options(value):
    return flat_options(Place(value, "options", "f.yaml"))


def test_options_are_dotted_or_nested():
    assert options({"trainer.max_steps": 5, "--data.path": "x"}) == {"trainer.max_steps": 5, "data.path": "x"}
    assert options({"model": {"attention": {"rank_q": 2}, "d_model": 64}}) == {
        "model.attention.rank_q": 2,
        "model.d_model": 64,
    }
    assert options(None) == {}


def test_an_option_has_one_spelling():
    twice = options({"model.attention.rank_q": 2, "model.attention.init_args.rank_q": 3})
    assert twice == {"model.attention.rank_q": 3}
    whole = options({"model.attention": {"class_path": "TPA", "init_args": {"rank_q": 4}}})
    assert whole == {"model.attention": "TPA", "model.attention.rank_q": 4}


def test_values_that_are_mappings_stay_whole():
    callbacks = [{"class_path": "LearningRateMonitor"}]
    profiler = {"class_path": "SimpleProfiler", "init_args": {"filename": "x"}}
    assert options({"trainer": {"callbacks": callbacks, "profiler": profiler}}) == {
        "trainer.callbacks": callbacks,
        "trainer.profiler": profiler,
    }


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("seed_everything", "seeds says which"),
        ("trainer.logger.init_args.name", "each trial is logged into its own folder"),
        ("trainer.devices", "gpus_per_trial says how many"),
        ("auto_resume", "interrupted trials go on by themselves"),
        ("config", "name files under configs"),
        ("print_config", "a trial is trained"),
        ("model.attention.help", "a trial is trained"),
        ("trainer.fast_dev_run", "a trial is trained"),
    ],
)
def test_options_of_the_sweep_itself(key, why):
    with pytest.raises(ValueError, match=f"f.yaml: options: {key} is the sweep's own business: {why}.*Leave it out"):
        options({key: 1})


def test_what_is_no_option():
    with pytest.raises(ValueError, match=r"options: expected options of fit, such as trainer.max_steps: 500, got"):
        options([1])
    with pytest.raises(ValueError, match="f.yaml: options: 3 is not an option, such as trainer.max_steps"):
        options({3: 1})


def test_settings_are_options_or_both(tmp_path):
    file = write(tmp_path, "a: 1", "a.yaml")
    source = str(write(tmp_path, "", "study.yaml"))
    assert read_settings(Place({"a.b": 1}, "cells.x", source)) == Settings((), {"a.b": 1})
    both = Place({"configs": "a.yaml", "options": {"a.b": 1}}, "cells.x", source)
    assert read_settings(both) == Settings((file,), {"a.b": 1})
    assert read_settings(Place(None, "cells.x", source)) == Settings()


def test_files_of_settings_are_looked_for(tmp_path):
    write(tmp_path, "a: 1", "mha.yaml")
    source = str(write(tmp_path, "", "study.yaml"))
    with pytest.raises(
        ValueError, match=r"study.yaml: cells.x.configs: .*mh.yaml: no such configuration file; did you"
    ):
        read_settings(Place({"configs": "mh.yaml"}, "cells.x", source))
    with pytest.raises(ValueError, match="cells.x.configs: expected configuration files, got"):
        read_settings(Place({"configs": [1]}, "cells.x", source))


def test_later_settings_come_last():
    below = Settings((), {"a": 1, "b": 2})
    assert list(Settings((), {"a": 3}).over(below).options.items()) == [("b", 2), ("a", 3)]
