"""The pages of the queue's socket for `blobedge reconcile`.

GET  /reconcile        the one that is under way with why it waits, if it does, and the one that was finished last
POST /reconcile/begin  repair=1, restore=1, account, container, nodes: begin one, or join the same; `began` tells which
                       it is, null: another one is under way
POST /reconcile/stop   forget the one that is under way
"""

from collections.abc import Mapping

from agent.observability.http import Refused, Response, Routes, json_response
from agent.offload.reconcile.course import Wish
from agent.offload.reconcile.reconciler import Busy, Reconciler


def routes(reconciler: Reconciler) -> tuple[Routes, Routes]:
    """Those that change nothing, and those that do."""

    async def show(_query: Mapping[str, str]) -> Response:
        running, last = reconciler.course, reconciler.ended
        return json_response({
            "running": running and running.document(), "problem": reconciler.problem, "last": last and last.document(),
        })  # fmt: skip

    async def begin(query: Mapping[str, str]) -> Response:
        account, container = query.get("account", ""), query.get("container", "")
        if account and account not in reconciler.accounts():
            raise Refused(404, f"this node has no account {account!r}")
        wish = Wish(query.get("repair") == "1", query.get("restore") == "1", account, container, query.get("nodes", ""))
        try:
            began: int | None = await reconciler.ask(wish)
        except Busy:
            began = None
        return json_response({"began": began})

    async def stop(_query: Mapping[str, str]) -> Response:
        await reconciler.stop()
        return json_response({"asked": True})

    return {"/reconcile": show}, {"/reconcile/begin": begin, "/reconcile/stop": stop}
