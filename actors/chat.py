"""Asks a model in plain text, outside of training: an engine in this process or an OpenAI-compatible endpoint."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import Any, Protocol, Self

from corewarding.actors.engine import EngineContext, EngineError, engine_seed
from corewarding.actors.engines import make_engine
from corewarding.actors.settings import EngineSettings
from corewarding.dataflow.carriers import RolloutTask
from corewarding.dataflow.errors import RunError
from corewarding.dataflow.ids import AskedId
from corewarding.questions.template import PromptTemplate
from corewarding.weights.hub import local_folder

RETRIES, FIRST_BACKOFF_S = 6, 0.5
_TEMPORARY = (408, 409, 425, 429, 500, 502, 503, 504, 529)


class ChatError(RunError):
    """The model cannot be asked at all, for example because the endpoint does not exist or refuses the key."""


class ChatRefusedError(RunError):
    """This request cannot be answered, for example because it is too long. Other requests may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """n replies to one user message. `id` and `attempt` seed the random draws of an engine."""

    id: str
    attempt: int
    system: str  # empty: none
    user: str
    n: int
    temperature: float
    max_new_tokens: int


class Chat(Protocol):
    """A context manager that answers requests, many at once."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...

    async def ask(self, request: ChatRequest) -> list[str]:
        """The n texts. ChatRefusedError if this request fails, ChatError if all would."""
        ...


class EngineChat:
    """An engine in this process, with the model's own chat template."""

    def __init__(
        self, model_path: str, *, settings: EngineSettings, max_model_len: int, device: str, seed: int
    ) -> None:
        """TemplateError, EngineSettingsError or EngineError for a model that cannot be used."""
        self._folder = str(local_folder(model_path))
        self._seed = seed
        self._templates: dict[str, PromptTemplate] = {}
        self._engine = make_engine(
            EngineContext(
                settings=settings,
                model_path=self._folder,
                max_model_len=max_model_len,
                eos_token_ids=self._template("").eos_token_ids,
                device=device,
                seed=engine_seed(seed, "chat", 0),
            )
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._engine.close()

    async def ask(self, request: ChatRequest) -> list[str]:
        template = self._template(request.system)
        task = RolloutTask(
            id=AskedId(question_id=request.id, epoch=request.attempt).group("original", "policy"),
            incarnation=0,
            attempt=0,
            group_size=request.n,
            prompt_token_ids=template.token_ids(request.user),
            temperature=request.temperature,
            max_new_tokens=request.max_new_tokens,
            run_seed=self._seed,
        )
        try:
            sequences = [sequence async for sequence in self._engine.generate(task)]
        except EngineError as error:
            raise ChatRefusedError(str(error)) from error
        sequences.sort(key=lambda sequence: sequence.sample_index)
        return [template.decode(sequence.token_ids.tolist()) for sequence in sequences]

    def _template(self, system: str) -> PromptTemplate:
        if system not in self._templates:
            self._templates[system] = PromptTemplate.from_folder(self._folder, system_prompt=system)
        return self._templates[system]


class EndpointChat:
    """`POST {url}/chat/completions`, the interface of vLLM, SGLang and hosted services."""

    def __init__(self, url: str, *, model: str, api_key: str | None, timeout_s: float = 600.0) -> None:
        """url: including its version, for example http://localhost:8000/v1."""
        self._url = url.rstrip("/") + "/chat/completions"
        self._model = model
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._timeout_s = timeout_s
        self._session: Any = None

    async def __aenter__(self) -> Self:
        import aiohttp

        self._session = aiohttp.ClientSession(
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            connector=aiohttp.TCPConnector(limit=0),  # no limit: the caller limits requests
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def ask(self, request: ChatRequest) -> list[str]:
        messages = [{"role": "user", "content": request.user}]
        if request.system:
            messages.insert(0, {"role": "system", "content": request.system})
        body = {
            "model": self._model,
            "messages": messages,
            "n": request.n,
            "temperature": request.temperature,
            "max_tokens": request.max_new_tokens,
        }
        content = await self._post(body)
        try:
            texts = [str(choice["message"]["content"] or "") for choice in content["choices"]]
        except (KeyError, TypeError) as error:
            raise ChatError(
                f"{self._url} does not answer as a chat completions endpoint: {str(content)[:300]}"
            ) from error
        if len(texts) < request.n:  # some services ignore n
            more = ChatRequest(**{f: getattr(request, f) for f in request.__slots__} | {"n": request.n - len(texts)})
            if not texts:
                raise ChatError(f"{self._url} answered with no choice")
            texts += await self.ask(more)
        return texts[: request.n]

    async def _post(self, body: dict[str, Any]) -> Any:
        """The answer's JSON. Temporary failures are retried with growing waits."""
        import aiohttp

        backoff, problem = FIRST_BACKOFF_S, ""
        for attempt in range(RETRIES):
            if attempt:
                await asyncio.sleep(backoff * random.uniform(0.5, 1.0))
                backoff *= 2
            try:
                async with self._session.post(self._url, json=body) as response:
                    if response.status == 200:
                        return await response.json(content_type=None)
                    problem = f"HTTP {response.status}: {(await response.text())[:300]}"
                    if response.status in (400, 413, 422):
                        raise ChatRefusedError(problem)
                    if response.status not in _TEMPORARY:
                        raise ChatError(f"{self._url} refuses: {problem}")
            except (aiohttp.ClientError, TimeoutError) as error:
                problem = f"{type(error).__name__}: {error}"
            except ValueError as error:
                raise ChatError(f"{self._url} answers no JSON: {error}") from error
        raise ChatError(f"{self._url} could not be asked {RETRIES} times: {problem}")
