"""What a service says to those whom it refuses: a status, a code for programs, and words for people."""

from collections.abc import Mapping

from fastapi.responses import JSONResponse
from pydantic import BaseModel


class Refused(Exception):
    """A request that gets no answer; ``code`` is a word that never changes, ``message`` says what to do instead."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None):
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, dict(headers or {})

    def response(self) -> JSONResponse:
        """The refusal as JSON."""
        content = {"error": {"code": self.code, "message": self.message}}
        return JSONResponse(content, status_code=self.status, headers=self.headers)


class Problem(BaseModel):
    """Why a request was refused."""

    code: str
    message: str


class Refusal(BaseModel):
    """Every answer of 400 and above."""

    error: Problem
