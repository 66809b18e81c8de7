"""The ASGI application: health, predictions in two dialects, metrics."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import orjson
from google.protobuf.json_format import MessageToDict
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from components.serving.batching import DynamicBatcher
from components.serving.errors import RequestError
from components.serving.instances import parse_request, predictions, timelines
from components.serving.logs import LOGGER, say
from components.serving.metrics import ServingMetrics
from components.serving.settings import ServingSettings
from trainer.exported_model import SAVED_MODEL, ExportedModel

Load = Callable[[], ExportedModel]
Handler = Callable[[HttpRequest], Awaitable[Response]]
_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
_VERSION = "1"
"""The only one there is: a server has one model."""


class Service:
    """One model behind HTTP.

    Args:
        load: gives the model; called in a thread when the server starts, until when the health
            route answers 503.
        settings: limits and routes.
        failed: told when the model can not be loaded.
        ready: told when it is.

    Attributes:
        metrics: what was counted.
        app: the ASGI application.
    """

    def __init__(
        self,
        load: Load,
        settings: ServingSettings,
        failed: Callable[[Exception], None],
        ready: Callable[[ExportedModel], None] = lambda _: None,
    ) -> None:
        self._load, self._settings, self._failed, self._ready = load, settings, failed, ready
        self.metrics = ServingMetrics()
        self._model: ExportedModel | None = None
        self._described: dict[str, Any] = {}
        self._batcher: DynamicBatcher | None = None
        self._bytes = 0
        self._decoder = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="decoder")
        models = f"/v1/models/{settings.name}"
        routes: list[tuple[str, str, str, Handler]] = [
            ("GET", settings.health_route, "health", self._health),
            ("POST", settings.predict_route, "predict", self._predict),
            ("GET", models, "status", self._status),
            ("GET", f"{models}/metadata", "metadata", self._metadata),
            ("POST", f"{models}:predict", "predict", self._predict),
            ("POST", f"{models}/versions/{_VERSION}:predict", "predict", self._predict),
            ("GET", "/metrics", "metrics", self._metrics),
        ]
        self.app = Starlette(
            routes=[
                Route(path, self._answered(name, handler), methods=[method])
                for method, path, name, handler in routes
            ],
            exception_handlers={HTTPException: self._not_served},
            lifespan=self._lifespan,
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        loading = asyncio.create_task(self._begin())
        try:
            yield
        finally:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
            if self._batcher:
                await self._batcher.stop()
            self._decoder.shutdown()

    async def _begin(self) -> None:
        start = time.perf_counter()
        settings = self._settings
        try:
            model = await asyncio.to_thread(self._loaded_and_warm)
            self._batcher = DynamicBatcher(
                model.answer, settings.max_batch, settings.batch_milliseconds, settings.max_queue,
                self.metrics,
            )  # fmt: skip
            self._batcher.start()
            self._model = model
            self.metrics.ready.set(1)
            say("ready", model=str(model.folder), seconds=round(time.perf_counter() - start, 2))
            self._ready(model)
        except Exception as error:  # whatever it is, a server without a model has to end
            self._failed(error)

    def _loaded_and_warm(self) -> ExportedModel:
        """The model, after a first call: what TensorFlow prepares then, no client waits for."""
        model = self._load()
        model.warm_up()
        self._described = _metadata(model, self._settings.name)
        return model

    def _answered(self, route: str, handler: Handler) -> Handler:
        """A handler whose requests are counted, logged, and end in JSON whatever happens."""

        async def answered(request: HttpRequest) -> Response:
            start = time.perf_counter()
            request.state.videos = 0
            number = request.headers.get("x-request-id", "")[:64] or uuid.uuid4().hex[:16]
            message = ""
            try:
                response = await handler(request)
            except RequestError as error:
                message = error.message
                response = _error(error.status, message)
            except ClientDisconnect:
                message = "the client went away"
                response = _error(400, message)
            except asyncio.CancelledError:
                message = "the server stops"
                response = _error(503, message)
            except Exception:  # a bug of ours: logged whole, and the others are served on
                message = "internal error"
                LOGGER.exception("request failed", extra={"fields": {"request": number}})
                response = _error(500, "internal error, the server's log has it")
            seconds = time.perf_counter() - start
            self.metrics.requests.labels(route, response.status_code).inc()
            self.metrics.request_seconds.labels(route).observe(seconds)
            response.headers["x-request-id"] = number
            if route == "predict":
                say(
                    message or "predicted", request=number, route=request.url.path,
                    status=response.status_code, videos=request.state.videos,
                    milliseconds=round(seconds * 1e3, 1),
                )  # fmt: skip
            return response

        return answered

    async def _health(self, _: HttpRequest) -> Response:
        if self._model is None:
            raise RequestError(503, "the model is being loaded")
        return JSONResponse({"status": "ready"})

    async def _predict(self, request: HttpRequest) -> Response:
        model, batcher = self._model, self._batcher
        if model is None or batcher is None:
            raise RequestError(503, "the model is being loaded")
        async with self._body(request) as body:
            asked = await self._decoded(parse_request, body, model, self._settings)
            body.clear()  # what it says is in the records; it counts until they are answered
            request.state.videos = len(asked.videos)
            if asked.segments:
                answers = await _unless_gone(
                    request,
                    batcher.run(
                        lambda: [model.timeline(one) for one in asked.videos],
                        sum(model.windows(one.num_frames) for one in asked.videos),
                    ),
                )
                content = await self._decoded(lambda: orjson.dumps(timelines(asked, answers)))
            else:
                answer = await _unless_gone(request, batcher.answer(asked.videos))
                content = await self._decoded(lambda: orjson.dumps(predictions(asked, answer)))
            self.metrics.videos.inc(len(asked.videos))
        return Response(content, media_type="application/json")

    async def _decoded(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """From and to JSON beside the loop, which goes on to serve the others.

        In one thread, as more would take turns with the model's for the interpreter.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._decoder, call, *arguments)

    @contextlib.asynccontextmanager
    async def _body(self, request: HttpRequest) -> AsyncIterator[bytearray]:
        """The body, within its limits of size and time; its bytes count until it is answered.

        Raises:
            RequestError: 413, 408, or 503 where the bodies of others fill the memory.
        """
        most = self._settings.max_body_bytes
        # A length that is no number the protocol has refused already.
        stated = int(request.headers.get("content-length", 0))
        if stated > most:
            raise RequestError(413, f"a body of {stated:,} bytes, expected at most {most:,}")
        content = bytearray()
        size = 0
        try:
            try:
                await self._read(request, content, most)
            finally:
                size = len(content)
            yield content
        finally:
            self._hold(-size)

    async def _read(self, request: HttpRequest, content: bytearray, most: int) -> None:
        """Append the body to `content`; what is there counts as held."""
        seconds = self._settings.body_seconds
        try:
            async with asyncio.timeout(seconds):
                async for chunk in request.stream():
                    self._hold(len(chunk))
                    content += chunk
                    if len(content) > most:
                        raise RequestError(413, f"a body of over {most:,} bytes, the limit")
        except TimeoutError:
            raise RequestError(408, f"the body did not arrive within {seconds:g} s") from None

    def _hold(self, count: int) -> None:
        if count > 0 and self._bytes + count > self._settings.max_bytes_in_flight:
            raise RequestError(503, "other requests fill the memory, try again later")
        self._bytes += count
        self.metrics.bytes_in_flight.set(self._bytes)

    async def _status(self, _: HttpRequest) -> Response:
        state = "LOADING" if self._model is None else "AVAILABLE"
        status = {"error_code": "OK", "error_message": ""}
        return JSONResponse(
            {"model_version_status": [{"version": _VERSION, "state": state, "status": status}]}
        )

    async def _metadata(self, _: HttpRequest) -> Response:
        if self._model is None:
            raise RequestError(503, "the model is being loaded")
        return JSONResponse(self._described)

    async def _not_served(self, request: HttpRequest, error: Any) -> Response:
        """Answers to paths and methods that are none."""
        self.metrics.requests.labels("none", error.status_code).inc()
        message = f"{request.method} {request.url.path}: {error.detail.lower()}"
        return JSONResponse({"error": message}, error.status_code, error.headers)

    async def _metrics(self, _: HttpRequest) -> Response:
        return Response(self.metrics.text(), media_type=_PROMETHEUS)


def _metadata(model: ExportedModel, name: str) -> dict[str, Any]:
    """What TensorFlow Serving says of a model, and what the export step does."""
    saved = SavedModel.FromString((model.folder / SAVED_MODEL / "saved_model.pb").read_bytes())
    signatures = {
        signature: MessageToDict(defined, preserving_proto_field_name=True)
        for signature, defined in saved.meta_graphs[0].signature_def.items()
        if signature in model.signatures
    }
    return {
        "model_spec": {"name": name, "version": _VERSION, "signature_name": ""},
        "metadata": {"signature_def": {"signature_def": signatures}},
        "export": model.about,
    }


async def _unless_gone(request: HttpRequest, awaited: Awaitable[Any]) -> Any:
    """What is awaited; nothing more is done for it once the client has gone.

    Raises:
        ClientDisconnect: it has.
    """

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    answer, left = asyncio.ensure_future(awaited), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({answer, left}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ClientDisconnect
        return answer.result()
    finally:
        answer.cancel()
        left.cancel()


def _error(status: int, message: str) -> JSONResponse:
    headers = {"retry-after": "1"} if status == 503 else None
    return JSONResponse({"error": message}, status, headers)
