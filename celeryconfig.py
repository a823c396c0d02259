"""Celery configuration."""
