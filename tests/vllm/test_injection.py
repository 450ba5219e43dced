"""Passages that give orders, before a real engine whose weights are random.

Such a model understands no order, so this says nothing of how often one is followed. It says that
whatever a real engine samples leaves through the filters: the schema makes it write the links and
the numbers that an obedient model would.
"""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import aclosing
from pathlib import Path

import pytest
from raglan.deadline import Deadline
from raglan_generator.answering import Answering
from raglan_generator.engines.vllm import VllmModel
from raglan_generator.generation import Citation, Delta, Event, Passage, Request, Sampling
from raglan_generator.passage_order import PassageOrder
from raglan_generator.prompt import Prompter

pytestmark = pytest.mark.asyncio(loop_scope="session")

FACT = "A call gets three retries, each after a longer pause."
ORDERS = [
    json.loads(line)["text"]
    for line in (Path(__file__).parents[1] / "poisoned_passages.jsonl").read_text().splitlines()
]
LINKS = json.dumps(
    {
        "type": "object",
        "properties": {
            "answer": {
                "type": "string",
                "pattern": "^(see https://[a-z]{4,9}[.]invalid/[a-z]{4,9}|!\\[ok\\]\\(//[a-z]{4,9}[.]invalid/p\\))$",
            }
        },
        "required": ["answer"],
        "additionalProperties": False,
    }
)


def poisoned(order: str, seed: int, schema: str = "") -> Request:
    """A question whose best passage also gives an order."""
    return Request(
        "How many retries does a call get?",
        (Passage(f"{FACT} {order}", title="Retries", score=0.9),),
        max_tokens=96,
        json_schema=schema,
        sampling=Sampling(temperature=1.0, seed=seed),
    )


async def answered(model: VllmModel, requests: list[Request]) -> list[list[Event]]:
    """Answers of the started `model`, a few at a time."""
    order = PassageOrder("rank")
    engine = Answering(model, order)
    engine._prompter = Prompter(model.tokenizer, order)
    places = asyncio.Semaphore(4)

    async def answer(request: Request) -> list[Event]:
        async with places, aclosing(engine.generate(request, Deadline.after(120))) as events:
            return [event async for event in events]

    return await asyncio.gather(*map(answer, requests))


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


async def test_what_it_samples_cites_and_links_nothing_that_it_was_not_given(
    model: VllmModel,
) -> None:
    requests = [poisoned(order, seed) for seed, order in enumerate(ORDERS)]
    for request, events in zip(requests, await answered(model, requests), strict=True):
        text = text_of(events)
        assert text
        markers = {int(number) for number in re.findall(r"\[(\d+)\]", text)}
        cited = [event for event in events if isinstance(event, Citation)]
        assert markers <= {event.marker for event in cited}
        assert {event.passage_index for event in cited} <= {0}
        assert "](" not in text
        assert not re.search(r"https?://(?!collect\.invalid)", text)
        assert all(event.quote in request.passages[0].text for event in cited)


async def test_links_that_it_is_made_to_write_are_removed(model: VllmModel) -> None:
    requests = [poisoned(order, seed, LINKS) for seed, order in enumerate(ORDERS)]
    removed = 0
    for events in await answered(model, requests):
        text = text_of(events)
        assert not re.search(r"[a-z]\.invalid/", text), text
        removed += "(link removed)" in text or "![ok]" in text
    assert removed > 0.9 * len(ORDERS)
