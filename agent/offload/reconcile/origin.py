"""Which blob here a blob in the cloud is the copy of: the templates of the rules, read backwards.

The answer is certain, or there is none: templates give no two blobs one name (templates.py), so what can be read back
was made by that blob alone. A name that ends in a digest cannot be read back, nor one that no rule of today would have
made; those are told, and left alone.

Rejected: the local name as one more entry of metadata. It costs up to 3 KiB of the 8 that a blob may have, and says
nothing that the name does not, but for names of nearly 1,024 characters.
"""

from collections.abc import Sequence
from typing import Final

from agent.config_offload import Offload
from agent.offload.reconcile.ledger import LocalName
from agent.offload.rules import Rules
from agent.offload.templates import Route


class Origins:
    """The rules of a configuration, backwards. `node`: whose blobs are asked about, as {node} is in the templates."""

    def __init__(self, offload: Offload, accounts: Sequence[str], node: str) -> None:
        theirs = offload.model_copy(update={"node": node})
        self._rules: Final = Rules(theirs, accounts)
        self._accounts: Final = frozenset(accounts)
        self._routes: Final[list[tuple[int, Route]]] = [
            (number, rule.route(node, list(accounts)))
            for number, rule in enumerate(offload.rules)
            if rule.upload != "never"
        ]

    def origin(self, container: str, name: str) -> LocalName | None:
        """(account, container, name) here of the cloud's blob; None when that cannot be told."""
        for number, route in self._routes:
            found = route.origin(container, name)
            if found is None or found[0] not in self._accounts:
                continue
            candidates = self._rules.candidates(found[0], found[1])
            if any(each.number == number and each.takes(found[2]) for each in candidates):
                return found
        return None

    def may_lead_to(self, container: str) -> bool:
        """Whether a rule sends blobs to this container of the cloud."""
        return any(route.leads_to(container) for _, route in self._routes)
