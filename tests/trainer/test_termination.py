"""Signals as one line and their exit code, whatever a library makes of them."""

import os
import signal

import pytest

from trainer.termination import ended_by_signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("swallowed", [False, True])
def test_a_signal_is_one_line_and_its_exit_code(number, swallowed, capsys):
    before = signal.getsignal(number)
    tidy = []
    with pytest.raises(SystemExit) as ended, ended_by_signals("predict", "nothing is left"):
        try:
            os.kill(os.getpid(), number)
        except BaseException as error:
            os.kill(os.getpid(), number)  # does not meet the tidying up
            tidy.append(True)
            if swallowed:
                raise RuntimeError("a library's own") from error
            raise
    assert ended.value.code == 128 + number
    assert tidy == [True]
    assert capsys.readouterr().out == f"[predict] ended by {number.name}: nothing is left\n"
    assert signal.getsignal(number) is before


def test_errors_of_its_own_pass():
    with pytest.raises(RuntimeError, match="ours"), ended_by_signals("predict", ""):
        raise RuntimeError("ours")
    with ended_by_signals("predict", ""):
        pass


def test_what_is_deaf_to_a_signal_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with ended_by_signals("predict", ""):
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
