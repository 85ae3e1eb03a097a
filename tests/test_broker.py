"""The example project's embedded broker: nothing torn, nothing lost, nothing piled up."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection, Exchange, Queue
from kombu.transport import filesystem
from kombu.utils.json import dumps

from example_project import broker

QUEUE = Queue("celery", Exchange("celery"), routing_key="celery")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    broker.Transport.global_state.clear()  # a process knows one folder; the one of the test before is gone
    return tmp_path / "not" / "yet" / "made"


def connect(folder: Path) -> Connection:
    broker.register()
    return Connection(broker.URL, transport_options=broker.options(folder) | {"polling_interval": 0.0001})


@pytest.fixture
def connection(folder: Path) -> Iterator[Connection]:
    with connect(folder) as connection:
        yield connection


def publish(connection: Connection, numbers: range) -> None:
    with connection.channel() as channel:
        producer = connection.Producer(channel)
        for number in numbers:
            producer.publish(number, exchange=QUEUE.exchange, routing_key="celery", declare=[QUEUE])


def messages(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.msg"))


def test_broker__reader_beside_writers_gets_every_message_whole(
    folder: Path, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow_dumps(payload: object) -> str:
        time.sleep(0.005)  # kombu does this between making a file and filling it
        return dumps(payload)

    monkeypatch.setattr(filesystem, "dumps", slow_dumps)
    got: list[int] = []

    def write(numbers: range) -> None:
        with connect(folder) as own:
            publish(own, numbers)

    def receive(body: int, message: Any) -> None:
        got.append(body)
        message.ack()

    writers = [threading.Thread(target=write, args=(range(start, start + 20),)) for start in (0, 20)]
    deadline = time.monotonic() + 20
    with connection.Consumer(QUEUE, callbacks=[receive]):
        for writer in writers:
            writer.start()
        while len(got) < 40 and time.monotonic() < deadline:
            connection.drain_events(timeout=5)
    for writer in writers:
        writer.join()

    assert sorted(got) == list(range(40))
    assert messages(folder) == []


def test_broker__queue_nobody_reads_keeps_its_newest(
    folder: Path, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "MOST_WAITING", 3)
    publish(connection, range(2))
    before = messages(folder)
    time.sleep(0.01)  # messages are in order by the millisecond
    publish(connection, range(3))

    assert len(before) == 2
    assert len(messages(folder)) == 3
    assert before[0] not in messages(folder)


def test_broker__folder_is_for_its_owner_only(folder: Path, connection: Connection) -> None:
    publish(connection, range(1))
    assert folder.stat().st_mode & 0o077 == 0
