"""What went wrong, in OpenAI's shape."""

import json

from starlette.responses import Response


class ApiError(Exception):
    """One answer that is an error.

    param  of the request, that is to blame; None: no single one
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = headers or {}

    def to_json(self) -> dict:
        kind = "invalid_request_error" if self.status < 500 and self.status != 429 else "api_error"
        if self.status == 429:
            kind = "rate_limit_error"
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    def response(self) -> Response:
        """In ASCII, for what was asked may hold halves of characters."""
        body = json.dumps(self.to_json())
        return Response(body, self.status, self.headers, media_type="application/json")
