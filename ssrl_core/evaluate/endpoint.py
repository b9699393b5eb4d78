"""A model behind a server with OpenAI's chat completions API, queried with concurrent requests.

Images are sent at their position in the prompt as PNG, so the server sees the same pixels as training, or as the file
that they were read from.
"""

from __future__ import annotations

import base64
import io
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..errors import did_you_mean
from ..form import opens_thinking
from ..models.tokens import Prompted, user_message
from ..pages import data_url
from .folder import EvaluationError
from .models import Failed, Numbered, Sampling, Written
from .response import LONGEST_REASON, read_response, words_of

if TYPE_CHECKING:
    from openai import OpenAI
    from PIL import Image

MOST_FAILURES = 10
"""Number of consecutive failed requests after which an evaluation stops."""

SENT = "ssrl_data_url"
"""Attribute of an image: a data URL with its pixels. Images that Pillow derives from it do not have it."""

_ALL_FRAMES = {"media_io_kwargs": {"video": {"num_frames": -1}}}
"""Without it, vLLM keeps 32 frames of a video part and says nothing."""

_ODD = (ValueError, TypeError, LookupError, AttributeError)
"""Errors that the client raises if a response with status 200 has another format."""


class Endpoint:
    """A model behind a server. The API key is read from ``OPENAI_API_KEY`` if it is set.

    Args:
        url: base URL of the API, e.g. ``http://localhost:8000/v1``.
        name: name of the model on the server.
        concurrency: maximum number of concurrent requests, at least 1.
        retries: maximum number of retries of a request after status 408, 409, 429 or 5xx, after no response, and after
            a response with status 200 that holds such an error or is no chat completion. The delay doubles up to 8
            seconds unless the server sets it.
        timeout: time limit of a request in seconds.
        body: extra JSON merged into each request body, e.g. ``{"top_k": 1}``.
        video: send the frames of a video as one video part, as vLLM takes it; else as images.
        written: what the chat template of the model writes of a completion; None if it is not known.
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        concurrency: int = 16,
        retries: int = 6,
        timeout: float = 600.0,
        body: Mapping[str, Any] | None = None,
        video: bool = False,
        written: str | None = None,
    ) -> None:
        self._url, self._name, self._concurrency = url, name, concurrency
        self._retries, self._timeout, self._body = retries, timeout, dict(body or {})
        self._limit, self.written, self._video = "max_tokens", written, video
        self.facts = {"engine": "endpoint", "model": name, "body": self._body} | ({"video": True} if video else {})

    def answer(self, examples: Iterable[Numbered], sampling: Sampling) -> Iterator[tuple[Numbered, Written | Failed]]:
        """Each example with its outcome, in the order of the responses.

        Every request carries a seed of its own (``Sampling.seed_of``). Raises EvaluationError if the server does not
        know the model, refuses the key, or fails ``MOST_FAILURES`` times in a row.
        """
        client = self._client()
        pool = ThreadPoolExecutor(self._concurrency)
        examples = iter(examples)
        waiting: dict[Future[Written | Failed], Numbered] = {}
        in_a_row = 0
        try:
            while True:
                for index, example in islice(examples, self._concurrency - len(waiting)):
                    request = self._request(example, sampling, seed=sampling.seed_of(index))
                    waiting[pool.submit(self._ask, client, request)] = index, example
                if not waiting:
                    return
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    outcome = future.result()
                    yield waiting.pop(future), outcome
                    in_a_row = in_a_row + 1 if isinstance(outcome, Failed) else 0
                    if in_a_row == MOST_FAILURES:
                        raise EvaluationError(
                            f"{self._url}: {in_a_row} requests in a row failed, the last one with: {outcome}. "
                            "The answers so far are kept; run the same command again to resume"
                        )
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            client.close()

    def _client(self) -> OpenAI:
        """A client, after one request without retries has shown that the server responds and accepts the key."""
        try:
            from openai import (
                APIConnectionError,
                APIError,
                APIStatusError,
                AuthenticationError,
                OpenAI,
                PermissionDeniedError,
            )
        except ImportError as err:
            raise EvaluationError("an endpoint needs the openai package: pip install 'ssrl-core[eval]'") from err
        key = os.environ.get("OPENAI_API_KEY", "").strip() or "none"
        if not (key.isascii() and key.isprintable()):
            raise EvaluationError("OPENAI_API_KEY has characters that a request cannot carry: copy the key again")
        try:
            client = OpenAI(base_url=self._url, api_key=key, max_retries=self._retries, timeout=self._timeout)
        except Exception as err:  # of many kinds: the address, or a proxy or certificates from environment variables
            named = ("SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
            given = [name for name in named if os.environ.get(name) or os.environ.get(name.lower())]
            raise EvaluationError(
                f"no connection to {self._url} can be made: {err}. Check the address, and the environment variables "
                f"{', '.join(given or named)}"
            ) from err
        try:
            client.with_options(max_retries=0, timeout=30).models.list()
        except APIConnectionError as err:
            raise EvaluationError(
                f"{self._url}: no server answers ({err.__cause__ or err}). Is it running, and is the address right? "
                "It usually ends in /v1"
            ) from err
        except (AuthenticationError, PermissionDeniedError) as err:
            raise EvaluationError(
                f"{self._url}: the server wants a key ({err.status_code}). Set OPENAI_API_KEY"
            ) from err
        except APIStatusError:
            pass  # not every server lists its models
        except (APIError, *_ODD) as err:
            raise EvaluationError(
                f"{self._url}: this is no server of chat completions ({type(err).__name__}: {err}). "
                "Is the address right? It usually ends in /v1"
            ) from err
        return client

    def _request(self, example: Prompted, sampling: Sampling, *, seed: int) -> dict[str, Any]:
        images, body = example.images, self._body
        if self._video and getattr(example, "video", False):
            part = {"type": "video_url", "video_url": {"url": _frames_url(images)}}
            text = example.prompt.replace("<image>", "")
            message = {"role": "user", "content": [part, {"type": "text", "text": text}]}
            body = _ALL_FRAMES | body
        else:
            message = user_message(
                example.prompt, lambda number: {"type": "image_url", "image_url": {"url": _url(images[number])}}
            )
        return {
            "model": self._name,
            "messages": [message],
            "temperature": sampling.temperature,
            "seed": seed,
            self._limit: sampling.max_tokens,
            "extra_body": body,
        }

    def _ask(self, client: OpenAI, request: dict[str, Any]) -> Written | Failed:
        """The outcome of a request. A response that fails inside is asked for again, as the client does by status."""
        for tried in range(self._retries + 1):
            outcome = self._ask_once(client, request)
            if not (isinstance(outcome, Failed) and outcome.again and tried < self._retries):
                break
            time.sleep(min(0.5 * 2**tried, 8.0))
        return outcome

    def _ask_once(self, client: OpenAI, request: dict[str, Any]) -> Written | Failed:
        from openai import APIConnectionError, APIError, APIStatusError, AuthenticationError, NotFoundError

        try:
            response = client.chat.completions.with_raw_response.create(**request)
            opened = None if self.written is None else opens_thinking(self.written)
            return read_response(response.text, opened=opened)
        except (AuthenticationError, NotFoundError) as err:
            raise EvaluationError(self._refused(client, err)) from err
        except APIStatusError as err:
            said, other = words_of(err.body), "max_completion_tokens"
            if err.status_code == 400 and other in said and other not in request:  # as OpenAI's reasoning models
                self._limit, request[other] = other, request.pop("max_tokens")
                return self._ask_once(client, request)
            later = err.response.headers.get("retry-after")
            wait = f" (retry-after: {later})" if later else ""
            return Failed(f"{type(err).__name__} {err.status_code}{wait}: {said or 'the server gives no reason'}")
        except APIConnectionError as err:
            return Failed(f"{type(err).__name__}: {err.__cause__ or err}"[:LONGEST_REASON])
        except (APIError, *_ODD) as err:
            return Failed(f"an answer that is no chat completion: {type(err).__name__}: {err}"[:LONGEST_REASON])

    def _refused(self, client: OpenAI, err: Any) -> str:
        from openai import APIError

        try:
            names = [model.id for model in client.models.list()]
        except APIError:
            names = []
        known = f" It has {', '.join(names[:10])}.{did_you_mean(self._name, names)}" if names else ""
        return f"{self._url}: {err.status_code}: {words_of(err.body)} (model {self._name!r}).{known}"


def _frames_url(frames: Sequence[Image.Image]) -> str:
    """All frames of a video as one URL, as vLLM takes it: JPEG, separated by commas."""
    return "data:video/jpeg;base64," + ",".join(data_url(frame).partition("base64,")[2] for frame in frames)


def _url(image: Image.Image) -> str:
    """The URL of an image: that of its file if the image knows it (``SENT``), else PNG, made once for an image."""
    url = getattr(image, SENT, None)
    if url is None:
        buffer = io.BytesIO()
        image.save(buffer, "PNG", compress_level=1)  # a third of the time for a little more bytes
        url = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
        setattr(image, SENT, url)
    return str(url)
