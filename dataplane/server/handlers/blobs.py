"""Put Blob: a block blob in one request.

Append and page blobs are refused by name, as a blob of another type than asked for would fail its client later and
worse.
"""

from collections.abc import Mapping
from functools import partial
from typing import Final

from dataplane.blobapi.checksums import Purpose
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.message import Response
from dataplane.blobapi.model import BlobProperties, BlobState
from dataplane.blobapi.operations import Operation
from dataplane.server.call import Call, Handler
from dataplane.server.handlers.shared import WRITE_ENCRYPTED, blob_ref, entity
from dataplane.server.handlers.writing import NewBlob, Overwrite
from dataplane.server.uploads import Receiver, put_blob_bytes_max

TYPE_HEADER: Final = "x-ms-blob-type"
_OTHER_TYPES: Final = frozenset({"appendblob", "pageblob"})


async def put_blob(call: Call) -> Response:
    """REST page "Put Blob". The MD5 is always computed and stored, as the service does for this operation."""
    _check_type(call.require_header(TYPE_HEADER))
    overwrite, new = Overwrite(call), NewBlob.from_headers(call.request.headers, plain=True)
    receiver = Receiver(call, Purpose.BLOB, put_blob_bytes_max(call.version))
    if receiver.large:
        await overwrite.check_early()
    upload = await receiver.receive(partial(call.store.stage, call.request.resource.container))
    etag = call.new_etag()

    def decide(current: BlobState | None) -> BlobProperties:
        overwrite.check(current)
        now = call.node.now()
        return new.properties(etag, now, created=now, content_md5=upload.digest.md5)

    state = await call.write(call.store.put(blob_ref(call), upload.content, decide))
    headers = [*entity(etag, state.properties.last_modified), *upload.response_headers(), WRITE_ENCRYPTED]
    return Response(201, headers)


def _check_type(blob_type: str) -> None:
    if blob_type.lower() == "blockblob":
        return
    code = ErrorCode.FEATURE_NOT_SUPPORTED if blob_type.lower() in _OTHER_TYPES else ErrorCode.INVALID_HEADER_VALUE
    raise BlobError(code, header_name=TYPE_HEADER, header_value=blob_type)


HANDLERS: Final[Mapping[Operation, Handler]] = {Operation.PUT_BLOB: put_blob}
