"""How a command ends for bad input: one line, exit code 1."""

import pytest


def error_line(main, arguments, capsys):
    """The one line that a command says of arguments that can not be, without `error: `."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")
