"""The labelling page: in a real browser with keys, and its server before bad requests."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvicorn

from modelwright.data.labelling.items import labelling_rows, png
from modelwright.data.labelling.label_file import LabelFile, read_decisions, standing
from modelwright.data.labelling.session import Suggestion
from modelwright.serving.hosting import listen
from modelwright.serving.labelling import build_app

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="chromium and chromedriver are not installed"
)
TEXTS = [
    "A superb film, <b onclick=x>moving</b> and well played.",
    "Dull, and a waste of time.\n\nI left after an hour.",
    "你好，这部电影真好看。" * 8,
    "word " * 900,
    "x" * 400,
]
ROWS = [{"id": f"r{i}", "group": f"r{i}", "text": text} for i, text in enumerate(TEXTS)]
JSON = {"content-type": "application/json"}


@contextmanager
def served(path: Path, rows=ROWS, labels=("pos", "neg", "unclear"), **fields):
    """The page's address, its server in a thread."""
    with LabelFile(path) as file, listen("127.0.0.1", 0) as socket:
        app = build_app(rows, list(labels), file, who="ann", **fields)
        config = uvicorn.Config(app, http="h11", ws="none", log_level="error", access_log=False,
                                timeout_graceful_shutdown=5)  # fmt: skip
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[socket])))
        thread.start()
        try:
            wait_for(lambda: server.started)
            yield f"http://127.0.0.1:{socket.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=30)


def wait_for(condition, seconds: float = 20.0) -> None:
    pause = threading.Event()
    for _ in range(int(seconds * 100)):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("what was waited for did not happen")


def held(path: Path) -> dict[tuple[str, str], str | None]:
    return {key: one.label for key, one in standing(read_decisions(path)).items()}


def test_the_server_labels_for_several_people_and_refuses_strangers(tmp_path):
    path = tmp_path / "labels.jsonl"
    with served(path) as url, httpx.Client(base_url=url, trust_env=False) as client:
        state = client.post("/api/state", json={}).json()
        assert (state["who"], state["place"], state["total"]) == ("ann", 0, 5)
        assert state["keys"] == ["p", "n", "c"]
        made = {"action": "label", "id": "r0", "label": "pos", "seconds": 1.5}
        assert client.post("/api/decide", json=made).json()["row"]["id"] == "r1"
        # Two tabs: what a person saw is what is labelled, wherever the other tab went.
        assert client.post("/api/decide", json=made | {"label": "neg"}).json()["row"]["id"] == "r1"
        other = client.post("/api/decide", json=made | {"who": "bob"}).json()
        assert other["counts"]["left"] == 4
        assert held(path) == {("ann", "r0"): "neg", ("bob", "r0"): "pos"}
        before = path.read_bytes()
        for body, status in [
            (made | {"label": "other"}, 400),
            (made | {"id": "r99"}, 400),
            (made | {"action": "delete"}, 400),
            (made | {"who": ""}, 400),
            (made | {"who": "x" * 81}, 400),
            (made | {"who": "a\nb"}, 400),
            ([1], 400),
        ]:
            answer = client.post("/api/decide", json=body)
            assert answer.status_code == status and answer.json()["error"]["message"]
        assert client.post("/api/decide", content="{", headers=JSON).status_code == 400
        assert client.post("/api/decide", data=made).status_code == 415
        assert client.get("/api/decide").status_code == 405
        assert client.get("/labels.jsonl").status_code == 404
        for header in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}):
            assert client.post("/api/decide", json=made, headers=header).status_code == 403
        assert path.read_bytes() == before
    assert not any(one.seconds is not None and one.seconds != 1.5 for one in read_decisions(path))


def test_with_a_key_nothing_is_told_without_it(tmp_path):
    with served(tmp_path / "labels.jsonl", api_key="secret") as url:
        assert httpx.post(f"{url}/api/state", json={}, trust_env=False).status_code == 401
        key = {"Authorization": "Bearer secret", "Host": "my.server.example"}
        answer = httpx.post(f"{url}/api/state", json={}, headers=key, trust_env=False)
        assert answer.json()["row"]["id"] == "r0"
        assert "superb" not in httpx.get(url, trust_env=False).text


def images(folder: Path) -> Path:
    """A folder of two images, and a text beside them."""
    generator = np.random.default_rng(0)
    (folder / "cats").mkdir(parents=True)
    for name, size in (("cats/a.png", (300, 400, 3)), ("b.png", (28, 28))):
        (folder / name).write_bytes(png(generator.integers(0, 256, size, dtype=np.uint8)))
    (folder / "notes.txt").write_text("not for the page")
    return folder


def test_images_are_served_by_id_and_no_other_file(tmp_path):
    folder = images(tmp_path / "pictures")
    rows = labelling_rows(str(folder))
    assert [(row["id"], row.get("label")) for row in rows] == [("b.png", None),
                                                               ("cats/a.png", "cats")]  # fmt: skip
    with (
        served(tmp_path / "l.jsonl", rows) as url,
        httpx.Client(base_url=url, trust_env=False) as c,
    ):
        answer = c.post("/api/picture", json={"id": "cats/a.png"})
        assert answer.headers["content-type"] == "image/png"
        assert answer.content == (folder / "cats" / "a.png").read_bytes()
        for name in ("notes.txt", "../l.jsonl", str(folder / "b.png"), None):
            assert c.post("/api/picture", json={"id": name}).status_code == 404
        (folder / "b.png").unlink()
        assert "cannot be read" in c.post("/api/picture", json={"id": "b.png"}).text


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    profile = tmp_path_factory.mktemp("profile")
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run",
                 "disable-background-networking", "disable-component-update", "disable-sync",
                 "disable-dev-shm-usage", f"user-data-dir={profile}"):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER)) as driver:
        driver.set_window_size(1200, 800)
        yield driver


def element(browser, selector: str):
    return browser.find_element("css selector", selector)


def shown(browser, selector: str) -> str:
    return browser.execute_script("return document.querySelector(arguments[0]).innerText", selector)


def keys(browser, pressed: str) -> None:
    element(browser, "body").send_keys(pressed)


def picture(browser, name: str) -> None:
    """A screenshot, for those who set MODELWRIGHT_SHOTS to a folder."""
    if folder := os.environ.get("MODELWRIGHT_SHOTS"):
        browser.save_screenshot(str(Path(folder) / f"{name}.png"))


def complaints(browser) -> list[str]:
    return [e["message"] for e in browser.get_log("browser") if e["source"] != "network"]


@needs_browser
def test_keys_label_skip_go_back_and_take_back(browser, tmp_path):
    path = tmp_path / "labels.jsonl"
    with served(path) as url:
        browser.get(url)
        wait_for(lambda: shown(browser, "#id") == "r0")
        assert "<b onclick=x>moving</b>" in shown(browser, "#text")  # text stays text
        assert not browser.find_elements("css selector", "#text b")
        keys(browser, "p")
        wait_for(lambda: shown(browser, "#id") == "r1")
        keys(browser, "s")
        wait_for(lambda: shown(browser, "#id") == "r2")
        element(browser, ".label[aria-label=neg]").click()
        wait_for(lambda: shown(browser, "#id") == "r3")
        keys(browser, "u")
        wait_for(lambda: shown(browser, "#id") == "r2")
        assert held(path) == {("ann", "r0"): "pos", ("ann", "r1"): None}
        keys(browser, "b")
        wait_for(lambda: "you said: skipped" in shown(browser, "#said"))
        keys(browser, "2")
        wait_for(lambda: shown(browser, "#id") == "r2")
        keys(browser, "pnc")  # faster than the server answers: none is lost
        wait_for(lambda: element(browser, "#done").is_displayed())
        assert shown(browser, "#progress") == "5 of 5 decided"
        labels = ["pos", "neg", "pos", "neg", "unclear"]
        assert held(path) == {("ann", f"r{i}"): label for i, label in enumerate(labels)}
        assert all(0 < one.seconds < 60 for one in read_decisions(path) if one.label)
        browser.refresh()
        wait_for(lambda: element(browser, "#done").is_displayed())
        assert complaints(browser) == []


@needs_browser
def test_another_name_labels_for_itself(browser, tmp_path):
    path = tmp_path / "labels.jsonl"
    with served(path) as url:
        browser.get(url)
        wait_for(lambda: shown(browser, "#who-shown") == "ann")
        keys(browser, "p")
        wait_for(lambda: shown(browser, "#id") == "r1")
        element(browser, "#who-shown").click()
        name = element(browser, "#who")
        name.clear()
        name.send_keys("psnub\n")  # letters in the field are no keys
        wait_for(lambda: shown(browser, "#who-shown") == "psnub")
        wait_for(lambda: shown(browser, "#id") == "r0")
        keys(browser, "n")
        wait_for(lambda: shown(browser, "#id") == "r1")
        assert held(path) == {("ann", "r0"): "pos", ("psnub", "r0"): "neg"}
        browser.execute_script("localStorage.clear()")


@needs_browser
def test_a_key_is_asked_for_and_images_come_with_it(browser, tmp_path):
    rows = labelling_rows(str(images(tmp_path / "pictures")))
    with served(tmp_path / "labels.jsonl", rows, api_key="secret") as url:
        browser.get(url)
        wait_for(lambda: element(browser, "#key-form").is_displayed())
        element(browser, "#key").send_keys("secret\n")
        wait_for(lambda: shown(browser, "#id") == "b.png")
        width = "return document.querySelector('#picture').naturalWidth"
        wait_for(lambda: browser.execute_script(width) == 28)
        picture(browser, "labelling-small-image")
        keys(browser, "p")
        wait_for(lambda: browser.execute_script(width) == 400)
        picture(browser, "labelling-image")
        assert complaints(browser) == []
        browser.execute_script("sessionStorage.clear()")


@needs_browser
def test_a_server_that_is_gone_is_said_and_nothing_is_taken_for_saved(browser, tmp_path):
    with served(tmp_path / "labels.jsonl") as url:
        browser.get(url)
        wait_for(lambda: shown(browser, "#id") == "r0")
    keys(browser, "p")
    wait_for(lambda: "nothing was saved" in shown(browser, "#error"))
    assert shown(browser, "#id") == "r0"
    assert read_decisions(tmp_path / "labels.jsonl") == []


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1200, 800), (390, 800)], ids=["desktop", "phone"])
def test_the_page_fits_its_screen_in_light_and_dark(browser, tmp_path, size, scheme):
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    screen = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 500}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    thought = {"r1": Suggestion("neg", 0.62)}
    try:
        with served(tmp_path / "labels.jsonl", suggestions=thought) as url:
            browser.get(url)
            wait_for(lambda: shown(browser, "#id") == "r0")
            for row, name in enumerate(
                ["plain", "suggested", "chinese", "long", "unbroken", "done"]
            ):
                picture(browser, f"labelling-{name}-{size[0]}-{scheme}")
                wide = browser.execute_script(
                    "return [...document.querySelectorAll('body *')].filter(e =>"
                    " e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML)"
                )
                assert wide == []
                assert _low_contrasts(browser) == []
                small = browser.execute_script(
                    "return [...document.querySelectorAll('.label, .moves button')]"
                    ".filter(e => e.offsetHeight < 40 || e.offsetWidth < 40).length"
                )
                assert small == 0  # a finger hits them
                if row < 5:
                    keys(browser, "p")
                    wait_for(lambda n=row + 1: f"{n} decided" in shown(browser, "#progress")
                             or f"{n} of 5" in shown(browser, "#progress"))  # fmt: skip
            keys(browser, "b")
            wait_for(lambda: shown(browser, "#said") == "you said: pos")
            picture(browser, f"labelling-said-{size[0]}-{scheme}")
            assert _low_contrasts(browser) == []
            named = browser.execute_script(
                "return [...document.querySelectorAll('button, input, img, progress')]"
                ".filter(e => !(e.innerText || e.ariaLabel || e.alt || e.labels?.length))"
                ".map(e => e.outerHTML)"
            )
            assert named == []
            assert complaints(browser) == []
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def _low_contrasts(browser) -> list:
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
        return [...document.querySelectorAll('h1, p, span, button:enabled, kbd')]
          .filter((e) => e.checkVisibility() && e.innerText && !e.closest(':disabled')).map((e) => {
            const pair = [light(parse(getComputedStyle(e).color)), light(ground(e))];
            return [e.outerHTML, (Math.max(...pair) + .05) / (Math.min(...pair) + .05)];
          }).filter(([, ratio]) => ratio < 4.5);
        """
    )
