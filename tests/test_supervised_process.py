"""A worker of `typed-amp serve`, from its start on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.leftovers import children, is_running
from tests.peers import settled, until
from typed_amp.serve_settings import ServeSettings
from typed_amp.shared_counts import SharedCounts
from typed_amp.supervised_process import NotReadyError, SupervisedProcess

SETTINGS = ServeSettings("no_such_thing:router", 1, 1, 60)


@pytest.fixture
def table() -> Iterator[SharedCounts]:
    table = SharedCounts(1)
    yield table
    table.close()


@pytest.mark.usefixtures("nothing_left")
async def test_a_start_that_is_cancelled_leaves_nothing(table: SharedCounts) -> None:
    before = children()
    turns = 0
    while True:
        starting = asyncio.create_task(SupervisedProcess.start(SETTINGS, 1, [], table))
        await settled(turns)
        if starting.done():
            process = await starting
            process.kill()
            await asyncio.wait([process.ended])
            break
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert children() == before
        assert table.take() == 0, "its place was given back"
        table.give_back(0)
        turns += 1
    assert turns > 3


@pytest.mark.usefixtures("nothing_left")
async def test_one_that_is_cancelled_twice_is_killed_too(table: SharedCounts) -> None:
    before = children()
    starting = asyncio.create_task(SupervisedProcess.start(SETTINGS, 1, [], table))
    await settled(2)
    starting.cancel()
    await settled(1)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    # It isn't waited for, but it is killed: by itself it would go on until it has loaded.
    await until(lambda: children() == before)


@pytest.mark.usefixtures("nothing_left")
async def test_where_there_is_no_room_nothing_is_left(
    table: SharedCounts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "no_such_program"))
    with pytest.raises(FileNotFoundError):
        await SupervisedProcess.start(SETTINGS, 1, [], table)
    assert table.take() == 0


@pytest.mark.usefixtures("nothing_left")
async def test_one_that_can_not_load_says_why_and_ends(table: SharedCounts) -> None:
    process = await SupervisedProcess.start(SETTINGS, 1, [], table)
    with pytest.raises(NotReadyError, match="can't import 'no_such_thing': ModuleNotFoundError"):
        await process.wait_ready()
    assert process.ended.result() == 2
    assert not is_running(process.process_id)
