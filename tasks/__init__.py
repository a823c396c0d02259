"""Celery tasks: functions of under ten lines that call one use case and publish what its outcome asks for."""
