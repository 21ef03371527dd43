"""What the control socket offers where there are workers: each request goes to those that know."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from emailproxy.admin.routes import Answer, Reload, Routes, answered, refusal, reloaded
from emailproxy.errors import ServiceError
from emailproxy.workers.channel import Facts
from emailproxy.workers.crew import NO_WORKER, Crew


class CrewRoutes:
    """Answers as `Routes` does."""

    limit = staticmethod(Routes.limit)

    def __init__(self, crew: Crew, reload: Reload) -> None:
        self._crew = crew
        self._reload_with = reload

    async def answer(self, method: str, path: str, query: Mapping[str, str], body: bytes) -> Answer:
        match method, path:
            case "GET", "/status":
                return await answered(self._crew.status())
            case "POST", "/reload":
                return await answered(reloaded(self._reload_with, body))
        asked = {"method": method, "path": path, "query": dict(query)}
        try:
            match method, path:
                case "POST", "/accounts/passwords":
                    return await self._who_is_unlocked(body, asked)
                case "POST", "/accounts/forget":
                    answers = await self._crew.ask_all("route", body, **asked)
                    if not answers:
                        return refusal(HTTPStatus.CONFLICT, NO_WORKER)
                    refusals = [answer for _, answer in answers if answer["status"] != HTTPStatus.OK]
                    return _answer((refusals or [answer for _, answer in answers])[0])
            return _answer((await self._crew.ask_one("route", body, **asked))[1])
        except ServiceError as error:
            return refusal(HTTPStatus.CONFLICT, str(error))

    async def _who_is_unlocked(self, body: bytes, asked: Mapping[str, object]) -> Answer:
        """Only a worker that an account was logged in at has its key."""
        for member in await self._crew.answering():
            answer = await member.ask("route", body, **asked)
            if answer["status"] != HTTPStatus.LOCKED:
                break
        else:
            answer = (await self._crew.ask_one("route", body, **asked))[1]
        return _answer(answer)


def _answer(answer: Facts) -> Answer:
    return Answer(HTTPStatus(answer["status"]), answer["facts"])
