# What a type checker knows of an endpoint's methods; see binding_cases.py.
from __future__ import annotations

from typing import reveal_type

from lahja_capn import (
    AsyncioEndpoint,
    BaseEvent,
    BaseRequestResponseEvent,
    Subscription,
    TrioEndpoint,
    bind,
    load,
)

schema = load("shop.capnp")


@bind(schema.News)
class News(BaseEvent):
    text: str


@bind(schema.Answer)
class Answer(BaseEvent):
    text: str


@bind(schema.Ask)
class Ask(BaseRequestResponseEvent[Answer]):
    question: str


def on_news(event: News) -> None: ...


async def on_news_async(event: News) -> None: ...


def on_answer(event: Answer) -> None: ...


async def use(endpoint: AsyncioEndpoint, other: TrioEndpoint) -> None:
    reveal_type(await endpoint.request(Ask(question="?")))  # > endpoint_cases.Answer
    reveal_type(await other.request(Ask(question="?"), timeout=2.0))  # > endpoint_cases.Answer
    reveal_type(await endpoint.wait_for(News))  # > endpoint_cases.News
    async for event in endpoint.stream(News):
        reveal_type(event)  # > endpoint_cases.News
    async for other_event in other.stream(News, num_events=3):
        reveal_type(other_event)  # > endpoint_cases.News
    reveal_type(endpoint.subscribe(News, on_news))  # > lahja_capn.{any}.Subscription
    endpoint.subscribe(News, on_news_async)
    subscription: Subscription = other.subscribe(News, on_news)
    subscription.unsubscribe()
    await endpoint.broadcast(News(text="x"))
    await endpoint.broadcast(Answer(text="x"), Ask(question="?").broadcast_config())

    endpoint.subscribe(News, on_answer)  # ! arg-type
    await endpoint.request(News(text="x"))  # ! type-var | arg-type
    await endpoint.broadcast("text")  # ! arg-type
