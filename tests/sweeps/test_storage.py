import optuna
import pytest

from lit_t6.sweeps.storage import Flag, Patience, is_out_of_reach, open_storage


def test_a_journal_lies_in_the_study_folder(tmp_path):
    open_storage(None, tmp_path / "sweeps" / "rank").create_new_study([optuna.study.StudyDirection.MINIMIZE], "s")
    assert (tmp_path / "sweeps" / "rank" / "journal.log").stat().st_size > 0


def test_a_journal_has_a_path_of_its_own_if_one_is_named(tmp_path):
    open_storage(str(tmp_path / "mine.log"), tmp_path / "rank")
    assert (tmp_path / "mine.log").exists()
    assert not (tmp_path / "rank").exists()


def test_a_torn_journal_is_mended_and_told(tmp_path):
    (tmp_path / "journal.log").write_bytes(b'{"op_code":0,"wor')
    said = []
    open_storage(None, tmp_path, say=said.append)
    assert "its last line was torn; 17 bytes" in said[0]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("sqlite:///study.db", "SQLite is not for several processes"),
        ("http://host/x", "'http' is not known. Expected postgresql://"),
        ("grpc:///x", "expected grpc://HOST:PORT"),
        ("grpc://127.0.0.1:1", "cannot be reached"),
        ("/dev/null/journal.log", "the journal cannot be opened: "),
    ],
)
def test_a_storage_that_cannot_be_used_is_one_clear_error(tmp_path, address, message):
    with pytest.raises(ValueError, match=message):
        open_storage(address, tmp_path)


def test_a_database_needs_its_package(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs the package psycopg: pip install 'lit-t6\[postgresql\]'"):
        open_storage("postgresql://me:secret@127.0.0.1:1/x", tmp_path)


def test_a_server_that_is_not_there_is_told_without_the_password(tmp_path):
    pytest.importorskip("psycopg")
    with pytest.raises(ValueError, match="cannot be reached: .*Connection refused") as error:
        open_storage("postgresql://me:secret@127.0.0.1:1/x", tmp_path)
    assert "secret" not in str(error.value)
    assert "me:…@127.0.0.1" in str(error.value)


def test_what_may_pass_is_told_from_what_does_not():
    assert is_out_of_reach(OSError(28, "No space left on device"))
    assert is_out_of_reach(optuna.exceptions.StorageInternalError())
    assert not is_out_of_reach(ValueError("no"))
    assert not is_out_of_reach(KeyError("no"))


def test_patience_ends_with_what_it_waits_for_or_when_it_is_stopped():
    said, stopped = [], Flag()
    patience = Patience(said.append, stopped, 0.01, 0.01)
    answers = iter([OSError(5, "Input/output error"), OSError(5, "Input/output error"), 7])

    def action(argument):
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return argument + answer

    assert patience("reading", action, 1) == 8
    assert [line.partition(" ")[0] for line in said] == ["reading", "reading"]
    with pytest.raises(ZeroDivisionError):
        patience("reading", lambda: 1 / 0)
    stopped.set()
    answers = iter([OSError(5, "Input/output error")])
    with pytest.raises(OSError, match="Input"):
        patience("reading", action, 1)
