"""The board on a page: in a real browser with clicks, and its server before bad requests."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from modelwright.data import games
from modelwright.play.page import build_app
from modelwright.serving.hosting import listen
from tests.play.test_terminal import First

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
JSON = {"content-type": "application/json"}


def asked(path: str, body: Any, game: str = "chess", **more: Any) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(build_app(game, First(), more.pop("key", None)))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            content = body if isinstance(body, bytes) else None
            given = {"content": content, "headers": JSON} if content is not None else {"json": body}
            return await client.post(path, **given, **more)

    return asyncio.run(ask())


def test_a_game_goes_to_and_fro() -> None:
    found = asked("/api/board", {"moves": ["e4"]}).json()
    assert found["turn"] == 1
    assert found["board"][4][4] == 1
    assert found["last"] == [[6, 4], [4, 4]]
    answered = asked("/api/answer", {"moves": ["e4"]}).json()
    assert answered["moves"] == ["e4", answered["move"]]
    assert {"move": "Nc3", "squares": [[7, 1], [5, 2]]} in answered["legal"]


@pytest.mark.parametrize("game", games.names())
def test_squares_lie_where_the_board_is_drawn(game: str) -> None:
    found = asked("/api/board", {"moves": []}, game).json()
    for one in found["legal"]:
        row, column = one["squares"][0]
        piece = found["board"][row][column]
        assert (piece > 0) == (game in ("chess", "checkers"))  # a piece moves, or one is put down
        state = games.begin(game)
        after = state.play(state.parse(one["move"])).board()
        row, column = one["squares"][-1]
        assert after[row, column] > 0


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        ({"moves": "e4"}, "a list of at most 400 short texts"),
        ({"moves": ["e4"] * 401}, "a list of at most 400 short texts"),
        ({"moves": ["e" * 41]}, "a list of at most 400 short texts"),
        ([], "a list of at most 400 short texts"),
        ({"moves": ["e5"]}, "e5: is not legal"),
        ({"moves": ["f3", "e5", "g4", "Qh4"]}, "the game is over"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_one_line(body: Any, message: str) -> None:
    answer = asked("/api/answer", body)
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]


@contextmanager
def served(game: str) -> Iterator[str]:
    with listen("127.0.0.1", 0) as socket:
        app = build_app(game, First())
        config = uvicorn.Config(app, http="h11", ws="none", lifespan="on", log_level="error")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[socket])))
        thread.start()
        try:
            yield f"http://127.0.0.1:{socket.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=30)


def test_others_pages_cannot_ask() -> None:
    with served("chess") as address, httpx.Client(base_url=address) as client:
        evil = {"origin": "http://evil.example"}
        assert client.post("/api/board", json={"moves": []}, headers=evil).status_code == 403
        form = {"content-type": "application/x-www-form-urlencoded"}
        assert client.post("/api/board", content=b"moves=", headers=form).status_code == 415
        assert client.post("/api/none", json={"moves": []}).status_code == 404
        policy = client.get("/").headers["content-security-policy"]
        assert "default-src 'none'; script-src 'sha256-" in policy


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if not (BROWSER and DRIVER):
        pytest.skip("chromium and chromedriver are not installed")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    profile: Path = tmp_path_factory.mktemp("profile")
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "no-first-run", "disable-sync",
                 "disable-background-networking", "disable-dev-shm-usage",
                 f"user-data-dir={profile}"):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER)) as driver:
        driver.set_window_size(900, 900)
        yield driver


def wait_for(condition: Any, seconds: float = 20.0) -> None:
    pause = threading.Event()
    for _ in range(int(seconds * 20)):
        if condition():
            return
        pause.wait(0.05)
    raise AssertionError("it has not happened")


def test_a_game_is_played_with_clicks(browser: Any) -> None:
    """Connect Four is won in four clicks; chess moves by two, and what is shown is announced."""

    def press(row: int, column: int) -> None:
        browser.find_element("css selector", f"[aria-label^='row {row}, column {column}:']").click()

    def status() -> str:
        return str(browser.find_element("id", "status").text)

    def moves() -> list[str]:
        return str(browser.find_element("id", "moves").text).split()

    with served("connect4") as address:
        browser.get(address)
        for number in range(4):
            wait_for(lambda: "your move" in status())
            press(6 - number, 4)
            wait_for(lambda n=number: len(moves()) >= 2 * n + 1)
        wait_for(lambda: status() == "You have won.")
    with served("chess") as address:
        browser.get(address)
        wait_for(lambda: "your move" in status())
        press(7, 5)
        press(5, 5)
        wait_for(lambda: len(moves()) == 2 and "your move" in status())
        assert moves()[0] == "e4"
        browser.find_element("id", "undo").click()
        wait_for(lambda: not moves() and "your move" in status())
        browser.find_element("id", "resign").click()
        assert status() == "You have resigned."
    assert not [line for line in browser.get_log("browser") if line["level"] == "SEVERE"
                and "favicon" not in line["message"]]  # fmt: skip
