"""Who a node is for the cloud, and what an upload may hold while its mount hangs."""

from pathlib import Path

import trio
import trio.testing

from agent.offload.asyncqueue import AsyncQueue
from agent.offload.gate import MEMORY_BYTES_MAX, Gate
from agent.offload.identity import FILE, identity
from agent.offload.templates import Target
from agent.offload.transport import Errand

SIZE = 8 << 20
AT_ONE_TIME = MEMORY_BYTES_MAX // SIZE


def test_an_instance_is_made_once_and_each_directory_has_its_own(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    made = identity(tmp_path, "edge-7")
    assert identity(tmp_path, "edge-7") == made
    assert identity(tmp_path, "edge-8") == made.replace("edge-7", "edge-8")
    assert identity(tmp_path / "other", "edge-7") != made
    assert made.startswith("edge-7/")


def test_a_file_that_says_nothing_is_made_again(tmp_path: Path) -> None:
    for text in ("", "\n", "two words", "a/b"):
        (tmp_path / FILE).write_text(text)
        made = identity(tmp_path, "edge-7")
        assert made.count("/") == 1
        assert identity(tmp_path, "edge-7") == made


def test_uploads_that_hang_do_not_keep_the_memory_of_the_others(tmp_path: Path) -> None:
    async def story() -> None:
        queue = await AsyncQueue.open(tmp_path / "queue.db")
        gate, target = Gate(queue), Target("c", "n")
        hung = [Errand() for _ in range(AT_ONE_TIME)]

        async def hold(errand: Errand) -> None:
            async with gate.upload(target, SIZE, errand):
                await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            for errand in hung:
                nursery.start_soon(hold, errand)
            await trio.testing.wait_all_tasks_blocked()
            passed = trio.Event()

            async def another() -> None:
                async with gate.upload(target, SIZE, Errand()):
                    passed.set()

            nursery.start_soon(another)
            await trio.testing.wait_all_tasks_blocked()
            assert not passed.is_set()
            gate.give_back(hung[0])
            gate.give_back(hung[0])  # it still hangs
            await passed.wait()
            assert gate.under_way == AT_ONE_TIME
            nursery.cancel_scope.cancel()
        assert gate.under_way == 0
        async with gate.upload(target, SIZE * 3, Errand()):
            pass
        await queue.aclose()

    trio.run(story)
