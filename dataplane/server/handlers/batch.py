"""Blob Batch: many Delete Blob or Set Blob Tier requests in one.

Every part goes the whole way of a request of its own through the application: address, permission, handler, log line;
nothing of the batch's own authorisation carries over, except that an anonymous batch has no parts that may write. The
parts run side by side, a bounded number at a time, so that the store can sync them together; answers come in the order
of the requests. One part's failure is that part's answer.
"""

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from dataplane.blobapi import batch, limits
from dataplane.blobapi.batch import BatchAnswer, BatchPart
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.message import Response
from dataplane.blobapi.operations import Operation
from dataplane.server.call import Call, Handler
from dataplane.server.refusals import error_answer

ALLOWED: Final = frozenset({Operation.DELETE_BLOB, Operation.SET_BLOB_TIER})
#: The reason phrase of a refused part is the error's message (recorded).
_REASONS: Final = {(code.code, code.status): code.message.replace("{resource}", "blob") for code in ErrorCode}


async def submit_batch(call: Call) -> Response:
    """REST page "Blob Batch", below the service or a container. Raises BlobError for a wrong Content-Type or too large
    a body; anything else that fails is in the body of the 202."""
    content_type = call.require_header("content-type")
    body = await call.body.read_all(limits.batch_body_bytes_max)
    boundary = f"batchresponse_{call.new_guid()}"
    answer = batch.render(boundary, await _answers(call, content_type, body))
    return Response(202, [("Content-Type", f"multipart/mixed; boundary={boundary}")], answer)


async def _answers(call: Call, content_type: str, body: bytes) -> list[BatchAnswer]:
    try:
        parts = batch.parse(content_type, body)
    except BlobError as refusal:
        if refusal.code not in batch.INSIDE:
            raise
        response = error_answer(refusal, "POST", call.request_id, call.node.clock() // 100)
        response.headers += [("x-ms-request-id", call.request_id), ("x-ms-version", call.version)]
        return [_answer("", response)]
    turns = asyncio.Semaphore(limits.batch_requests_at_once_max)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_run(call, part, turns)) for part in parts]
    return [task.result() for task in tasks]


async def _run(call: Call, part: BatchPart, turns: asyncio.Semaphore) -> BatchAnswer:
    async with turns:
        response = await call.node.app.dispatch_inner(call, part.method, part.target, part.headers, ALLOWED)
    return _answer(part.content_id, response)


def _answer(content_id: str, response: Response) -> BatchAnswer:
    assert isinstance(response.body, bytes), "no operation of a batch answers with a blob"
    headers = list(response.headers)
    if response.body:
        headers.insert(0, ("Content-Length", str(len(response.body))))
    return BatchAnswer(content_id, response.status, _reason(response), headers, response.body)


def _reason(response: Response) -> str:
    code = next((value for name, value in response.headers if name.lower() == "x-ms-error-code"), "")
    return _REASONS.get((code, response.status)) or HTTPStatus(response.status).phrase


HANDLERS: Final[Mapping[Operation, Handler]] = {
    Operation.SERVICE_BATCH: submit_batch,
    Operation.CONTAINER_BATCH: submit_batch,
}
