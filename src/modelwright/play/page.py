"""The board on a page: a person in a browser on this machine against a player.

The server keeps nothing: a request brings the moves of its game, which are replayed by the rules.
"""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from modelwright.data.games import IllegalMove, encoding
from modelwright.play.game import LONGEST, Game, replayed
from modelwright.play.players import Player
from modelwright.serving.guard import Guard
from modelwright.serving.hosting import host_app, json_body, page_headers
from modelwright.serving.keys import Keys
from modelwright.serving.openai import ApiError

_MOVE_CHARS = 40


def build_app(game: str, player: Player, api_key: str | None = None) -> Starlette:
    """The ASGI application of the page.

    Args:
        game: its name.
        player: the other side.
        api_key: what clients must send; None: only this machine is served.
    """
    routes = _Routes(game, player)
    return Starlette(
        routes=[
            Route("/", routes.page),
            Route("/api/board", routes.board, methods=["POST"]),
            Route("/api/answer", routes.answer, methods=["POST"]),
        ],
        middleware=[Middleware(Guard, keys=Keys(key=api_key))],
        exception_handlers={HTTPException: _no_route},
    )


def serve(game: str, player: Player, *, port: int = 8000) -> None:
    """Serve the page to this machine until Ctrl-C.

    Raises:
        MachineError: the port is taken or not allowed.
    """
    app = build_app(game, player)
    host_app(app, f"a board of {game}", host="127.0.0.1", port=port, keyed=False)


async def _no_route(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return JSONResponse(ApiError(status, "there is no such path here").body(), status)


class _Routes:
    """The endpoints. One move is thought about at a time."""

    def __init__(self, game: str, player: Player) -> None:
        self.game, self.player, self.seen = game, player, encoding(game)
        self._lock = threading.Lock()
        html = Path(__file__).with_name("play.html").read_text(encoding="utf-8")
        self._page = Response(html, media_type="text/html", headers=page_headers(html))

    async def page(self, _: Request) -> Response:
        """The page itself; it holds no game."""
        return self._page

    async def board(self, request: Request) -> Response:
        """POST {"moves"}: the board after them, what is legal, and the result if it is over."""
        made = await self._replayed(request)
        return JSONResponse(self._told(made))

    async def answer(self, request: Request) -> Response:
        """POST {"moves"}: the player's move, and the board after it."""
        made = await self._replayed(request)
        if made.result() is not None:
            raise ApiError(400, "the game is over; begin another", code="game_over")
        move = await asyncio.to_thread(self._chosen, made)
        written = made.state.write(move)
        made.play(move)
        return JSONResponse({**self._told(made), "move": written})

    def _chosen(self, made: Game) -> Any:
        with self._lock:
            return self.player.choose(self.game, [made.stand])[0]

    async def _replayed(self, request: Request) -> Game:
        try:
            asked = json.loads(await json_body(request))
        except (ValueError, RecursionError):
            raise ApiError(400, "the body is no JSON", code="invalid_json") from None
        moves: Any = asked.get("moves") if isinstance(asked, dict) else None
        plain = isinstance(moves, list) and all(
            isinstance(move, str) and len(move) <= _MOVE_CHARS for move in moves
        )
        if not plain or len(moves) > LONGEST:
            message = f"moves: a list of at most {LONGEST} short texts is meant"
            raise ApiError(400, message, param="moves", code="invalid_moves")
        try:
            return replayed(self.game, moves)
        except IllegalMove as error:
            raise ApiError(400, str(error), param="moves", code="illegal_move") from error

    def _told(self, made: Game) -> dict[str, Any]:
        state, result = made.state, made.result()
        legal = state.legal_moves() if result is None else []
        last = self.seen.squares(made.states[-2], made.moves[-1]) if made.moves else []
        return {
            "game": self.game,
            "player": self.player.name,
            "colours": self.seen.colours,
            "board": state.board().tolist(),
            "turn": state.turn,
            "result": result,
            "moves": made.written(),
            "last": last,
            "legal": [
                {"move": state.write(move), "squares": self.seen.squares(state, move)}
                for move in legal
            ],
        }
