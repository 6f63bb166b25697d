"""Reads of one DynamoDB table: by keys and by partition, whole answers however DynamoDB cuts them up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from functions.runtime.store import dynamodb_layout as layout
from functions.runtime.store.dynamodb_client import Database
from functions.runtime.store.dynamodb_layout import Item
from observability.failpoints import failpoint

_GET = 100  # keys that BatchGetItem takes
_WRITE = 25  # and BatchWriteItem


class NotAll(Exception):
    """DynamoDB left a part of a batch undone, as it does when throttled."""


class Table:
    """One table of a database. Every read but that of `expiring` sees what was committed before it."""

    def __init__(self, name: str, database: Database) -> None:
        self.name = name
        self._database = database
        self._epoch: int | None = None
        self.transact = database.transact
        self.pause = database.pause
        self.begin = database.begin
        self.require_transactions = database.require_transactions
        self.close = database.close

    async def epoch(self, deadline: float) -> int:
        """Which life of the data this is, as read when first asked for."""
        if self._epoch is None:
            self._epoch = layout.epoch_of(await self.get(layout.epoch_key(), deadline))
        return self._epoch

    async def get(self, key: Item, deadline: float) -> Item | None:
        """One item, or None."""
        answer = await self._database.call(
            "get_item", deadline, TableName=self.name, Key=key, ConsistentRead=True
        )
        item: Item | None = answer.get("Item")
        return item

    async def read(self, keys: Sequence[Item], deadline: float) -> dict[str, Item]:
        """Those of the items that exist, by `pk`, in no particular order; a key may be named twice."""
        unique = list({key["pk"]["S"]: key for key in keys}.values())
        if len(unique) == 1:
            item = await self.get(unique[0], deadline)
            return {item["pk"]["S"]: item} if item else {}
        chunks = [unique[start : start + _GET] for start in range(0, len(unique), _GET)]
        found: dict[str, Item] = {}
        for items in await asyncio.gather(*(self._batch(chunk, deadline) for chunk in chunks)):
            found.update((item["pk"]["S"], item) for item in items)
        return found

    async def forget(self, keys: Sequence[Item], deadline: float) -> None:
        """Remove these items, whether or not they exist."""
        chunks = [keys[start : start + _WRITE] for start in range(0, len(keys), _WRITE)]
        await asyncio.gather(*(self._forget(chunk, deadline) for chunk in chunks))

    async def query(self, deadline: float, **parameters: Any) -> tuple[list[Item], Item | None]:
        """One page of a Query: its items, and where the next begins (None at the end)."""
        answer = await self._database.call("query", deadline, TableName=self.name, **parameters)
        return answer["Items"], answer.get("LastEvaluatedKey")

    async def partition(
        self, pk: str, deadline: float, *, pages: int | None = None, **parameters: Any
    ) -> AsyncIterator[list[Item]]:
        """A partition in order of `sk`, page by page; `parameters` as of a Query, its values by `values`."""
        values = {":pk": {"S": pk}, **parameters.pop("values", {})}
        condition = "pk = :pk" + parameters.pop("condition", "")
        start: Item | None = None
        while pages is None or pages > 0:
            items, start = await self.query(
                deadline,
                KeyConditionExpression=condition,
                ExpressionAttributeValues=values,
                ConsistentRead=True,
                **parameters,
                **({"ExclusiveStartKey": start} if start else {}),
            )
            yield items
            if start is None:
                return
            pages = pages - 1 if pages else None

    async def expiring(self, shard: int, due: int, limit: int, deadline: float) -> list[Item]:
        """Keys of what has ended by `due` (microseconds); may lag behind by a moment, so each is to be checked."""
        found: list[Item] = []
        start: Item | None = None
        while len(found) < limit:
            items, start = await self.query(
                deadline,
                IndexName=layout.EXPIRY,
                KeyConditionExpression="xs = :xs AND ex <= :due",
                ExpressionAttributeValues={
                    ":xs": {"S": layout.expiry_partition(shard)},
                    ":due": {"N": str(due)},
                },
                Limit=limit - len(found),
                **({"ExclusiveStartKey": start} if start else {}),
            )
            found += [{"pk": item["pk"], "sk": item["sk"]} for item in items]
            if start is None:
                break
        return found

    async def _batch(self, keys: Sequence[Item], deadline: float) -> list[Item]:
        found: list[Item] = []
        left: dict[str, Any] = {self.name: {"Keys": keys, "ConsistentRead": True}} if keys else {}
        attempt = 0
        while left:
            answer = await self._database.call("batch_get_item", deadline, RequestItems=left)
            found += answer["Responses"].get(self.name, [])
            left = answer.get("UnprocessedKeys") or {}
            if left:
                await self.pause(attempt, deadline, NotAll("unprocessed keys"))
                attempt += 1
        return found

    async def _forget(self, keys: Sequence[Item], deadline: float) -> None:
        left: dict[str, Any] = {self.name: [{"DeleteRequest": {"Key": key}} for key in keys]}
        attempt = 0
        while left:
            failpoint("dynamodb.forget.before")
            answer = await self._database.call("batch_write_item", deadline, RequestItems=left)
            failpoint("dynamodb.forget.after")
            left = answer.get("UnprocessedItems") or {}
            if left:
                await self.pause(attempt, deadline, NotAll("unprocessed items"))
                attempt += 1
