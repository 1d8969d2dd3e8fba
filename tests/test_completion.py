import subprocess

import pytest

from lit_t6.cli import COMMANDS, main


def test_completion_knows_commands_options_and_mechanisms(capsys, tmp_path):
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "complete.sh"
    script.write_text(capsys.readouterr().out)
    assert "bash_completion" not in script.read_text()  # one place to put it, in the help
    known = subprocess.run(
        ["bash", "-c", f"source {script}; complete -p lit-t6 cli.py"], capture_output=True, text=True
    )
    assert [line.split()[-1] for line in known.stdout.splitlines()] == ["lit-t6", "cli.py"]

    def complete(*typed):
        words = " ".join(f"'{word}'" for word in ("lit-t6", *typed))
        previous = typed[-2] if len(typed) > 1 else "lit-t6"
        ask = f"source {script}; COMP_WORDS=({words}); COMP_CWORD={len(typed)}; "
        ask += f"_shtab_lit_t6 lit-t6 '{typed[-1]}' '{previous}'; echo \"${{COMPREPLY[@]}}\""
        return subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True).stdout.split()

    assert set(complete("")) == set(COMMANDS)
    assert complete("fit", "--model.d_") == ["--model.d_model"]
    names = ["GQA", "MFA", "MHA", "MLA", "MQA", "TPA", "TPA-KVonly", "TPA-Qonly"]
    assert complete("fit", "--model.attention", "") == names
    assert complete("generate", "--prompts") == ["--prompts_file"]
    assert "--max_new_tokens" in complete("generate", "--max")
    assert complete("budget", "--cache_") == ["--cache_dtype"]
    assert complete("budget", "--model.d_") == ["--model.d_model"]


def test_completion_in_zsh_is_for_the_same_programs(capsys):
    assert main(["completion", "zsh"]) == 0
    script = capsys.readouterr().out
    assert script.startswith("#compdef lit-t6 cli.py\n")
    assert "compdef _shtab_lit_t6 -N lit-t6 cli.py\n" in script
    with pytest.raises(SystemExit):
        main(["completion", "--help"])
    shown = capsys.readouterr().out
    assert "completes `./cli.py` too; not `python cli.py`" in shown
    assert "~/.local/share/bash-completion/completions/lit-t6" in shown
