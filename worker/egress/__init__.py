"""The way out: one deadline over each call, the proxy between us and the network, and the authorities we trust."""

from worker.egress.egress import Egress, Head
from worker.egress.proxy import Proxy
from worker.egress.reasons import SHORTAGE, NotConnectedError, is_shortage

__all__ = ["SHORTAGE", "Egress", "Head", "NotConnectedError", "Proxy", "is_shortage"]
