"""Celery tasks: functions of under ten lines that call one use case and publish the tasks that follow from it."""
