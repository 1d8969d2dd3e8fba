import fcntl
import os
import threading
from pathlib import Path

import pytest

from lit_t6.sweeps.presence import Presence, is_dead


@pytest.mark.parametrize("removes", [False, True])
def test_who_is_looked_for_at_the_beginning_lives_all_the_same(tmp_path, monkeypatch, removes):
    """Another coordinator looks between the making of the file and its lock, and may take it for a dead one's."""
    own, looked = os.open, []

    def opened(path, *of):
        number = own(path, *of)
        if str(path).endswith(".lock") and not looked:
            looked.append(own(path, os.O_RDONLY))
            fcntl.flock(looked[0], fcntl.LOCK_SH | fcntl.LOCK_NB)
            if removes:
                Path(path).unlink()
            threading.Timer(0.1, os.close, looked).start()
        return number

    monkeypatch.setattr(os, "open", opened)
    presence = Presence(tmp_path)
    assert looked
    assert presence.path.exists()
    assert not is_dead(presence.identity)
    presence.close()
    assert list(tmp_path.iterdir()) == []
