"""Whatever names there are, a listing is the sorted names, however it is paged, cut and grouped."""

import tempfile

from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.store.store import Store
from tests.store.support import delete, make, names, put

segments = st.sampled_from(["a", "b", "a-", "a.", "", ".", "x" * 252, "x" * 249, "x" * 300, "%~c", "0", "\U0001f600"])
blob_names = st.lists(segments, min_size=1, max_size=4).map("/".join).filter(lambda n: 0 < len(n) <= 1024)


@settings(max_examples=60, deadline=None)
@given(st.sets(blob_names, min_size=1, max_size=14), st.data())
def test_listing_is_sorting(wanted: set[str], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as root:
        store = Store(root, durable=False)
        make(store)
        for name in data.draw(st.permutations(sorted(wanted))):
            put(store, name, name.encode())
        gone = data.draw(st.sampled_from(sorted(wanted)))
        delete(store, gone)
        left = sorted(wanted - {gone})
        limit = data.draw(st.integers(1, 5))
        prefix = data.draw(st.sampled_from(["", *{n[: len(n) // 2] for n in wanted}]))
        delimiter = data.draw(st.sampled_from(["", "/", "a", "/a", "xx"]))
        grouped = set()
        for name in left:
            if name.startswith(prefix):
                cut = name.find(delimiter, len(prefix)) if delimiter else -1
                grouped.add(name if cut < 0 else name[: cut + len(delimiter)])
        assert names(store, limit=limit, prefix=prefix, delimiter=delimiter) == sorted(grouped)
        assert names(store) == left
        store.close()
