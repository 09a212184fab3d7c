"""Ctrl-C at moments in which Python loses it, or a library reports it: it is raised all the same, once and quietly."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")

PREAMBLE = """
import gc, logging, signal, sqlite3, time, weakref
import sqlalchemy
from restnet_search.cli.interrupts import Interrupted, interruptible

signal.signal(signal.SIGINT, signal.default_int_handler)  # a process started in the background ignores it
press = lambda *_: signal.raise_signal(signal.SIGINT)
"""
ENDED = """
try:
    with interruptible("Stopped.", "go on"):
        work()
except Interrupted as error:
    print("interrupted", error.exit_code, after)
else:
    print("lost", after)
"""


def interrupted_in(work: str) -> str:
    """What a process prints whose ``work`` meets Ctrl-C; nothing may stand on its standard error."""
    code = PREAMBLE + "after = []\n" + textwrap.dedent(work) + ENDED
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stderr == ""
    return done.stdout.strip()


def test_in_plain_code_it_is_raised_at_once() -> None:
    work = """
    def work():
        press()
        after.append("went on")
    """
    assert interrupted_in(work) == "interrupted 130 []"


@pytest.mark.parametrize(
    "ending",
    [
        "class Thing:\n        def __del__(self): press()\n    thing = Thing()",
        "class Thing: pass\n    thing = Thing(); weakref.finalize(thing, press)",
        "class Thing: pass\n    thing = Thing(); kept = weakref.ref(thing, press)",
    ],
    ids=["__del__", "finalize", "weak reference"],
)
def test_where_an_object_ends_python_would_swallow_it(ending: str) -> None:
    work = f"""
def work():
    {ending}
    del thing
    time.sleep(30)
    after.append("slept")
"""
    assert interrupted_in(work) == "interrupted 130 []"


def test_it_counts_though_the_work_ends_before_it_could_be_raised() -> None:
    work = """
    class Thing:
        def __del__(self): press()

    def work():
        thing = Thing()
    """
    assert interrupted_in(work) == "interrupted 130 []"


def test_a_statement_of_the_database_ends_first() -> None:
    work = """
    def work():
        def connect():
            connection = sqlite3.connect(":memory:")
            connection.create_function("press", 0, press)
            return connection

        engine = sqlalchemy.create_engine("sqlite://", creator=connect)
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("create table found (n)"))
            connection.execute(sqlalchemy.text("insert into found select 1 where press() is null"))
            after.extend(connection.execute(sqlalchemy.text("select n from found")).scalars())
        time.sleep(30)
        after.append("slept")
    """
    assert interrupted_in(work) == "interrupted 130 [1]"


def test_a_record_of_the_log_is_written_whole() -> None:
    work = """
    class Pressing(logging.Handler):
        def emit(self, record):
            press()
            after.append(record.getMessage())

    def work():
        logging.getLogger("x").addHandler(Pressing())
        logging.getLogger("x").error("said")
        time.sleep(30)
        after.append("slept")
    """
    assert interrupted_in(work) == "interrupted 130 ['said']"


def test_what_python_does_with_signals_is_as_before_afterwards() -> None:
    from restnet_search.cli.interrupts import Interrupted, interruptible

    before = signal.getsignal(signal.SIGINT), sys.unraisablehook
    with interruptible("Stopped.", "go on"):
        pass
    assert (signal.getsignal(signal.SIGINT), sys.unraisablehook) == before
    with pytest.raises(Interrupted, match="Stopped"), interruptible("Stopped.", "go on"):
        raise KeyboardInterrupt
    assert (signal.getsignal(signal.SIGINT), sys.unraisablehook) == before
