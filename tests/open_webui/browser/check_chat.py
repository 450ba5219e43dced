"""A chat in Open WebUI, by Chromium: the models, the stream, the sources, a follow-up.

`make test-open-webui` runs this in the environment of Open WebUI.
"""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, expect, sync_playwright

BEGINNING = "The reranker runs on the second GPU"
END = "The setting is RAGLAN_RERANKER_DEVICE"
WAIT_MS = 60_000
expect.set_options(timeout=WAIT_MS)


@pytest.fixture
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ["CHROMIUM"], args=["--no-sandbox"]
        )
        opened = browser.new_page(viewport={"width": 1200, "height": 640})
        opened.set_default_timeout(WAIT_MS)
        # News of the version cover the first page of an account, some time after it has loaded.
        news = opened.get_by_role("button", name="Okay, Let's Go!")
        opened.add_locator_handler(news, lambda button: button.click())
        opened.goto(os.environ["OPEN_WEBUI_URL"])
        yield opened
        browser.close()


def ask(page: Page, question: str) -> None:
    page.locator("#chat-input").click()
    page.keyboard.type(question)
    page.keyboard.press("Enter")


def answers(page: Page) -> Locator:
    """The answers of a chat, oldest first."""
    return page.locator(".chat-assistant")


def proceed() -> None:
    """Let the model write the rest of its answer."""
    request = urllib.request.Request(f"{os.environ['MODEL_URL']}/proceed", data=b"")
    urllib.request.urlopen(request, timeout=10).close()


def test_the_gateways_models_are_offered(page: Page) -> None:
    page.get_by_label("Selected model: raglan").click()
    for model in ("raglan", "fast", "balanced", "thorough"):
        expect(page.get_by_role("option", name=model).first).to_be_visible()


def test_an_answer_is_streamed_and_shows_its_source(page: Page) -> None:
    ask(page, "How do I run the reranker on the second GPU?")
    answer = answers(page).first
    expect(answer).to_contain_text(BEGINNING)
    assert END not in answer.inner_text(), "the model has not written it"
    proceed()
    expect(answer).to_contain_text(END)
    expect(answer.get_by_label("View source: Devices").first).to_be_visible()
    answer.get_by_label("Toggle 1 source").click()
    expect(page.get_by_text("https://docs.example.org/devices")).to_be_visible()


def test_a_follow_up_is_asked_with_the_turns_before_it(page: Page) -> None:
    ask(page, "Which service runs on the second GPU?")
    expect(answers(page).first).to_contain_text(BEGINNING)
    proceed()
    expect(answers(page).first).to_contain_text("says turn 2")
    ask(page, "Which setting decides that?")
    expect(answers(page).nth(1)).to_contain_text(BEGINNING)
    proceed()
    expect(answers(page).nth(1)).to_contain_text("says turn 4")
