"""The quota, shared by all workers: each call gets a permit or a time to wait."""

from worker.limiter.limiter import Lane, Limiter, Permit, Permits
from worker.limiter.shared import LEAD_SECONDS, LimiterStatus

__all__ = ["LEAD_SECONDS", "Lane", "Limiter", "LimiterStatus", "Permit", "Permits"]
