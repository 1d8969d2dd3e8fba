import time

import pytest

from lit_t6.sweeps import load_study
from lit_t6.sweeps.checking import check_data, check_study
from lit_t6.training.planning.fit_reader import FitReader

from .studies import RANK, RANK_QUICK, study, write

SEARCH = "search: {m: {option: model.attention, type: categorical, choices: [TPA, MHA]}"


@pytest.fixture(scope="module")
def reader():
    return FitReader()


def test_every_cell_is_read(reader):
    read = check_study(load_study([RANK, RANK_QUICK]), reader)
    assert [cell.name for cell, _ in read] == [
        "6,2,2",
        "6,1,1",
        "6,3,3",
        "6,4,4",
        "6,6,6",
        "2,2,2",
        "4,2,2",
        "8,2,2",
        "12,2,2",
    ]
    assert [settings.model.attention.heads() for _, settings in read] == [14, 17, 12, 10, 7, 19, 17, 12, 8]


def test_many_cells_take_seconds(tmp_path, reader):
    ranks = "model.attention.rank_q: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]"
    read = study(tmp_path, f"grid: {{{ranks}, data.batch_size: [1, 2, 3, 4]}}\n")
    began = time.perf_counter()
    assert len(check_study(read, reader)) == 40
    assert time.perf_counter() - began < 20


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cells: {a: {model.d_modl: 1}}\n", "study.yaml: cell 'a': there is no option --model.d_modl; did you mean"),
        ("cells: {a: {model.d_model: big}}\n", "study.yaml: cell 'a': model.d_model: expected int, got 'big'"),
        (
            "cells: {mha: {model.attention: MHA, model.attention.rank_q: 2}}\n",
            "cell 'mha': MultiHeadConfig has no setting 'rank_q'. It has num_heads, num_kv_heads",
        ),
        ("cells: {a: {model.attention: MHAA}}\n", "cell 'a': model.attention: 'MHAA' is not a mechanism; did you mean"),
        ("cells: {a: {model.attention.rank_q: 0}}\n", "cell 'a': TPAConfig: rank_q must be at least 1, got 0"),
        ("cells: {a: {model.attention.rank_q: 99}}\n", "cell 'a': TPA .99, 2, 2.: no head count meets the budget"),
        ("cells: {a: {model.optimizer.lr: -1}}\n", "cell 'a': optimizer: expected 0 <= min_lr <= lr"),
        ("cells: {a: {data.batch_size: 0}}\n", "cell 'a': data.batch_size must be at least 1, got 0"),
        ("cells: {a: {trainer.max_steps: -1}}\n", "cell 'a': the training has no end: set trainer.max_steps"),
        ("cells: {a: {trainer.max_steps: 0}}\n", "cell 'a': trainer.max_steps=0: nothing would be trained"),
        (
            "cells: {a: {}, b: {trainer.precisoin: 1}}\n",
            "cell 'b': there is no option --trainer.precisoin; did you mean",
        ),
        ("grid: {model.attention.rank_q: [2, x]}\n", "cell 'rank_q=x': model.attention.*rank_q: expected int, got 'x'"),
        (
            "objective: val/bits_per_bite\ncells: {a: {}}\n",
            "study.yaml: objective: 'val/bits_per_bite' is not logged; did you mean val/bits_per_byte. There are val/b",
        ),
        (
            "record: [perf/token_per_sec]\ncells: {a: {}}\n",
            "record: 'perf/token_per_sec' is not logged; did you mean pe",
        ),
        (
            "cells: {a: {trainer.limit_val_batches: 0}}\n",
            "objective: val/bits_per_byte is of validations, which trainer.limit_val_batches=0 leaves out",
        ),
        (
            f"{SEARCH}, r: {{option: model.attention.rank_q, type: int, low: 1, high: 2}}}}\n",
            "study.yaml: search 'm=MHA,r=1': MultiHeadConfig has no setting 'rank_q'",
        ),
        (f"{SEARCH}}}\nsampler: {{name: tpe, startup: 3}}\n", "sampler: tpe: .*unexpected keyword argument 'startup'"),
        ("pruner: {name: median, warmup: 3}\ncells: {a: {}}\n", "pruner: median: .*unexpected keyword .*'warmup'"),
    ],
)
def test_what_fit_refuses_is_said_of_the_cell(tmp_path, reader, text, message):
    with pytest.raises(ValueError, match=message):
        check_study(study(tmp_path, text), reader)


def test_what_all_cells_have_in_common_is_said_of_the_study(tmp_path, reader):
    path = write(tmp_path, "options: {model.d_modl: 1, trainer.max_steps: 1}\ncells: {a: {}, b: {}}\n")
    with pytest.raises(ValueError, match="study.yaml: in configs or options: there is no option --model.d_modl; did"):
        check_study(load_study([path]), reader)


def test_a_wrong_option_is_not_said_as_one_of_head_counts(tmp_path, reader):
    text = "baseline: a\nmatch: parameters\ncells: {a: {}, b: {model.attention.rank: 1}}\n"
    with pytest.raises(ValueError, match="study.yaml: cell 'b': TPAConfig has no setting 'rank'"):
        check_study(study(tmp_path, text), reader)


def test_callbacks_may_log_other_figures(tmp_path, reader):
    text = "cells: {a: {trainer.callbacks: [{class_path: LearningRateMonitor}]}}\nrecord: [lr-AdamW, factors/rank]\n"
    check_study(study(tmp_path, text), reader)


def test_data_is_looked_at(tmp_path, reader, prepared):
    text = f"cells: {{a: {{}}, b: {{data.path: {prepared}, data.seq_len: 32}}, c: {{data.path: nowhere}}}}\n"
    read = study(tmp_path, text)
    with pytest.raises(ValueError, match="study.yaml: cell 'c': nowhere: no prepared data here"):
        check_data(read, check_study(read, reader)[1:])
    check_data(read, check_study(read, reader)[1:2])
    small = study(tmp_path, f"cells: {{a: {{data.path: {prepared}, model.vocab_size: 300}}}}\n")
    with pytest.raises(ValueError, match="cell 'a': model.vocab_size=300, but the tokenizer of"):
        check_data(small, check_study(small, reader))
