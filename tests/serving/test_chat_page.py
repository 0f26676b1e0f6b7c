"""The chat page in a real browser: ask, watch the answer come, stop it, lose the server."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from modelwright.serving.engine import Engine
from tests.serving.parts import SlowModel, mute, random_decoder, running, wait_for

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="chromium and chromedriver are not installed"
)

SCRIPT = "The `fox` jumps. " * 2 + "\n```python\nprint(1)\n```\n<b onclick=x>plain</b> 你好。"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    profile = tmp_path_factory.mktemp("profile")
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run",
                 "disable-background-networking", "disable-component-update", "disable-sync",
                 "disable-dev-shm-usage", "use-fake-device-for-media-stream",
                 "use-fake-ui-for-media-stream", f"user-data-dir={profile}"):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(DRIVER)
    with webdriver.Chrome(options=options, service=service) as driver:
        driver.set_window_size(1200, 800)
        yield driver


@pytest.fixture(scope="module")
def scripted(codec):
    """A model that says SCRIPT whatever it is asked, as fast as the test lets it."""
    model = random_decoder(codec, context=512)
    mute(model, codec)
    tokens = [*codec.tokens(SCRIPT), codec.end]
    head = model.head

    def follow(hidden):
        logits = head(hidden)
        for row, live in zip(logits, engine._active, strict=False):
            row[tokens[len(live.tokens)]] = 99.0
        return logits

    model.head = follow
    slow = SlowModel(model)
    engine = Engine(slow, codec, max_batch=1)
    return engine, slow


def element(browser, selector: str):
    return browser.find_element("css selector", selector)


def text(browser, selector: str) -> str:
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map(e => e.innerText).join('|')",
        selector,
    )


def ask(browser, question: str) -> None:
    element(browser, "#question").send_keys(question + "\n")


def picture(browser, name: str) -> None:
    """A screenshot, for those who set MODELWRIGHT_SHOTS to a folder."""
    folder = os.environ.get("MODELWRIGHT_SHOTS")
    if folder:
        browser.save_screenshot(str(Path(folder) / f"{name}.png"))


def complaints(browser) -> list[str]:
    """What the page wrote to the console, but for failed requests, which it explains itself."""
    return [e["message"] for e in browser.get_log("browser") if e["source"] != "network"]


def opened(browser, served) -> None:
    browser.get(served.url)
    wait_for(lambda: text(browser, "#model") == "tiny")


def test_a_question_is_answered_as_the_tokens_come(browser, scripted):
    engine, model = scripted
    with running(engine) as served:
        opened(browser, served)
        picture(browser, "welcome")
        assert browser.switch_to.active_element.get_attribute("id") == "question"
        ask(browser, "Who jumps?")
        wait_for(lambda: engine.running == 1)
        model.release(12)
        wait_for(lambda: "fox" in text(browser, ".assistant .said"))
        picture(browser, "streaming")
        assert SCRIPT[-4:] not in text(browser, ".assistant .said")  # it is still coming
        assert text(browser, "#send") == "Stop"
        assert element(browser, "#log").get_attribute("aria-busy") == "true"
        model.release()
        wait_for(lambda: "token" in text(browser, ".assistant .meta"))
        picture(browser, "answered")
        assert text(browser, ".user .said") == "Who jumps?"
        assert text(browser, ".said code") == "fox|fox|print(1)"
        assert "<b onclick=x>plain</b> 你好。" in text(browser, ".assistant .said")
        assert not browser.find_elements("css selector", ".said b")
        assert "tokens/s" in text(browser, ".assistant .meta")
        assert text(browser, "#send") == "Send"
        # The conversation goes on, and a new one starts empty.
        ask(browser, "And then?")
        wait_for(lambda: text(browser, ".meta").count("tokens/s") == 2)
        element(browser, "#new").click()
        assert not browser.find_elements("css selector", ".turn")
        assert element(browser, "#welcome").is_displayed()
        assert complaints(browser) == []


def test_an_answer_is_stopped_and_a_new_chat_forgets_it(browser, scripted):
    engine, model = scripted
    model.open = False
    with running(engine) as served:
        opened(browser, served)
        for stop in (lambda: element(browser, "#send").click(),
                     lambda: element(browser, "#question").send_keys("\ue00c")):  # fmt: skip
            ask(browser, "Who jumps?")
            wait_for(lambda: engine.running == 1)
            row = engine._active[0]
            stop()
            wait_for(lambda row=row: row.cancelled)
            model.release(8)
            wait_for(lambda: engine.running == 0)
            wait_for(lambda: text(browser, "#send") == "Send")
        assert text(browser, ".meta") == "stopped|stopped"
        ask(browser, "Once more")
        wait_for(lambda: engine.running == 1)
        element(browser, "#new").click()
        model.release()
        wait_for(lambda: engine.running == 0 and text(browser, "#send") == "Send")
        assert not browser.find_elements("css selector", ".turn")
        assert complaints(browser) == []


def test_a_prompt_too_long_is_explained_and_kept(browser, scripted):
    engine, model = scripted
    model.release()
    with running(engine) as served:
        opened(browser, served)
        browser.execute_script(
            "const q = document.getElementById('question'); q.value = 'fox '.repeat(900);"
            "q.dispatchEvent(new Event('input'))"
        )
        element(browser, "#send").click()
        wait_for(lambda: "512" in text(browser, "#error"))
        assert "shorten the prompt" in text(browser, "#error")
        assert element(browser, "#question").get_attribute("value").startswith("fox fox")
        assert not browser.find_elements("css selector", ".turn")


def test_a_server_that_is_gone_is_said_in_a_line_and_the_question_kept(browser, scripted):
    engine, model = scripted
    model.release()
    with running(engine) as served:
        opened(browser, served)
        ask(browser, "Who jumps?")
        wait_for(lambda: "tokens/s" in text(browser, ".meta"))
    ask(browser, "Are you there?")
    wait_for(lambda: "does not answer" in text(browser, "#error"))
    picture(browser, "gone")
    assert element(browser, "#question").get_attribute("value") == "Are you there?"
    assert element(browser, "#dot").get_attribute("class") == "dot down"


def test_a_key_is_asked_for_and_kept_for_the_tab(browser, scripted):
    engine, model = scripted
    model.release()
    with running(engine, api_key="secret") as served:
        browser.get(served.url)
        wait_for(lambda: element(browser, "#key-form").is_displayed())
        assert "needs an API key" in text(browser, "#error")
        picture(browser, "key")
        element(browser, "#key").send_keys("wrong\n")
        wait_for(lambda: "missing or wrong" in text(browser, "#error"))
        element(browser, "#key").clear()
        element(browser, "#key").send_keys("secret\n")
        wait_for(lambda: text(browser, "#model") == "tiny")
        assert not element(browser, "#key-form").is_displayed()
        ask(browser, "Who jumps?")
        wait_for(lambda: "tokens/s" in text(browser, ".meta"))
        browser.refresh()
        wait_for(lambda: text(browser, "#model") == "tiny")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1200, 800), (390, 800)], ids=["desktop", "phone"])
def test_the_page_fits_its_screen_in_light_and_dark(browser, scripted, size, scheme):
    engine, model = scripted
    model.release()
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    screen = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 500}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    try:
        with running(engine) as served:
            opened(browser, served)
            picture(browser, f"empty-{size[0]}-{scheme}")
            for i, question in enumerate(["Who jumps?", "x" * 120, "Two\ue008\ue006\ue000lines"]):
                ask(browser, question)
                wait_for(lambda n=i + 1: text(browser, ".meta").count("tokens/s") == n)
            picture(browser, f"chat-{size[0]}-{scheme}")
            wide = browser.execute_script(
                "return [...document.querySelectorAll('body *')].filter(e =>"
                " e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML)"
            )
            assert wide == []
            assert _contrasts(browser) == []
            assert complaints(browser) == []
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def _contrasts(browser) -> list:
    """Visible texts whose contrast with their ground is below 4.5 : 1 (WCAG 2, level AA)."""
    return browser.execute_script(
        """
        const parse = (c) => c.match(/[\\d.]+/g).map(Number);
        const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
          .map((v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
          .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
        const ground = (e) => {
          for (; e; e = e.parentElement) {
            const c = parse(getComputedStyle(e).backgroundColor);
            if (c.length < 4 || c[3] > .99) return c;
          }
          return [255, 255, 255];
        };
        const texts = 'h1, p, button:enabled, label, output, .said, .meta, code';
        return [...document.querySelectorAll(texts)]
          .filter((e) => e.checkVisibility() && e.className !== 'who').map((e) => {
            const pair = [light(parse(getComputedStyle(e).color)), light(ground(e))];
            return [e.outerHTML, (Math.max(...pair) + .05) / (Math.min(...pair) + .05)];
          }).filter(([, ratio]) => ratio < 4.5);
        """
    )
