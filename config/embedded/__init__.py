"""Servers that live in the checkout: PostgreSQL, and Valkey for django-rq.

As a database engine (`"ENGINE": "config.embedded"`) it starts PostgreSQL when a process first
connects. `python -m config.embedded` shows, starts and stops the servers by hand.
"""
