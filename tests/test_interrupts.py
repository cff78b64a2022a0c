"""Ctrl-C waits for the end of a step, and no longer."""

import os
import signal
import threading

import pytest

from fmmt_deploy.interrupts import SIGNALS, Interrupts


def interrupt(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


def test_an_interrupt_waits_until_the_block_is_over() -> None:
    interrupts, done = Interrupts(), list[str]()

    def step() -> None:
        with interrupts.held():
            interrupt()
            interrupt()  # torchrun sends it again
            done.append("rest")

    with interrupts.taken():
        with pytest.raises(KeyboardInterrupt):
            step()
        with interrupts.held():
            done.append("next")
    assert done == ["rest", "next"]


def test_an_interrupt_between_blocks_comes_at_once() -> None:
    with Interrupts().taken(), pytest.raises(KeyboardInterrupt):
        interrupt()


@pytest.mark.parametrize("number", SIGNALS)
def test_who_is_alone_takes_being_asked_to_end_too(number: signal.Signals) -> None:
    before = signal.signal(number, lambda *_: None)  # or the tests would end where it is not taken
    try:
        own = signal.getsignal(number)
        with Interrupts().taken():
            assert (signal.getsignal(number) == own) == (number != signal.SIGINT)
        with Interrupts(alone=True).taken(), pytest.raises(KeyboardInterrupt):
            interrupt(number)
        signal.signal(number, signal.SIG_IGN)
        with Interrupts(alone=True).taken():
            interrupt(number)
    finally:
        signal.signal(number, before)


def test_an_error_in_a_block_is_not_hidden() -> None:
    interrupts = Interrupts()

    def step() -> None:
        with interrupts.held():
            interrupt()
            raise ValueError("own")

    with interrupts.taken(), pytest.raises(ValueError, match="own"):
        step()


def test_a_second_one_does_not_disturb_what_the_first_one_ends_with() -> None:
    interrupts, done = Interrupts(), list[str]()

    def save() -> None:
        interrupt()
        with interrupts.held():
            interrupt()
            done.append("saved")

    with interrupts.taken():
        with pytest.raises(KeyboardInterrupt):
            interrupt()
        save()
    with interrupts.taken(), pytest.raises(KeyboardInterrupt):
        interrupt()
    assert done == ["saved"]


def test_the_handler_before_is_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interrupts().taken():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


def test_elsewhere_nothing_is_taken() -> None:
    found = []

    def elsewhere() -> None:
        with Interrupts().taken():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGINT)]


def test_blocks_in_one_another_end_with_the_outermost() -> None:
    interrupts, done = Interrupts(), list[str]()

    def phase() -> None:
        with interrupts.held():
            with interrupts.held():
                interrupt()
            done.append("told to the others")
            assert interrupts.came

    with interrupts.taken(), pytest.raises(KeyboardInterrupt):
        phase()
    assert done == ["told to the others"]
    assert not interrupts.came
