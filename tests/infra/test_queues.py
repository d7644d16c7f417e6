"""What an operator sees of a real queue, and what becomes of an event that is replayed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from infra.local import queues
from runtime.errors import Unavailable
from runtime.shardmap import Endpoint
from tests.runtime.servers import PASSWORD, Valkey

pytestmark = pytest.mark.process
DEAD = "events.dead"
EVENT = {
    "id": "7",
    "kind": "OrderCreated",
    "payload": '{"order_id": 7}',
    "traceparent": "00-a-b-01",
}
WHY = {"group": "payments", "reason": "delivered too often", "entry": "5-0"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    server = Valkey(Path(tmp_path_factory.mktemp("queue")), "queue")
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def client(server: Valkey) -> AsyncIterator[Redis]:
    async with Redis(port=server.port, password=PASSWORD, decode_responses=True) as client:
        await client.flushall()
        yield client


def at(server: Valkey) -> Endpoint:
    return Endpoint("queue.us-east-1a", "us-east-1", "a", "127.0.0.1", server.port)


async def test_a_replayed_event_goes_back_as_it_was_to_its_group_alone(
    server: Valkey, client: Redis
) -> None:
    await client.xadd(DEAD, {**EVENT, **WHY})  # type: ignore[dict-item]
    [letter] = await queues.dead_letters(at(server), PASSWORD)
    assert letter["payload"] == {"order_id": 7}
    assert (letter["event"], letter["entry"], letter["reason"]) == ("7", "5-0", WHY["reason"])
    assert await queues.replay_dead(at(server), PASSWORD, [letter["id"], "99-0"]) == 1
    assert [fields for _, fields in await client.xrange("events")] == [EVENT | {"only": "payments"}]
    assert await client.xlen(DEAD) == 0


async def test_an_event_that_cannot_be_read_is_shown_as_it_is(
    server: Valkey, client: Redis
) -> None:
    await client.xadd(DEAD, {"payload": "{", "group": "orders", "reason": "odd"})
    [letter] = await queues.dead_letters(at(server), PASSWORD)
    assert (letter["payload"], letter["kind"]) == ("{", "")


async def test_the_lag_of_a_group_is_what_it_has_not_read_and_not_finished(
    server: Valkey, client: Redis
) -> None:
    assert await queues.lag(at(server), PASSWORD) == {}
    for group in ("orders", "payments"):
        await client.xgroup_create("events", group, id="0", mkstream=True)
    for _ in range(3):
        await client.xadd("events", EVENT)  # type: ignore[arg-type]
    await client.xreadgroup("orders", "reader", {"events": ">"}, count=2)
    assert await queues.lag(at(server), PASSWORD) == {
        "orders": {"lag": 1, "pending": 2},
        "payments": {"lag": 3, "pending": 0},
    }


async def test_a_queue_that_does_not_answer_is_unavailable() -> None:
    with pytest.raises(Unavailable, match=r"queue\.us-east-1a"):
        await queues.lag(Endpoint("queue.us-east-1a", "us-east-1", "a", "127.0.0.1", 9), PASSWORD)
