"""The quota, shared by all workers: one answer, go or wait so long."""

from worker.limiter.limiter import Lane, Limiter
from worker.limiter.shared import LimiterStatus

__all__ = ["Lane", "Limiter", "LimiterStatus"]
